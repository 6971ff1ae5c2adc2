"""An output in which something waits: failures, and a row with an invented name."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import record_of, thing_answer
from tests.fakes.asked import Body
from tests.fakes.qwen import FakeQwen


def some_wrong(body: Body) -> str:
    """Right but for three: 3 and 7 are no JSON however often they are asked, 5 has an invented name."""
    text = record_of(body)
    if "thing-0000003" in text or "thing-0000007" in text:
        return "I would rather not."
    if "thing-0000005" in text:
        return '{"name":"Wintergarten","price":5.05}'
    return thing_answer(body)


def waiting(folder: Path) -> Path:
    """Ten records: seven good rows, a row without evidence (r00005), two failures (r00003, r00007)."""
    source = write_things(folder / "things.jsonl", range(10))
    with FakeQwen(some_wrong) as qwen:
        report = run_things(source, folder / "out", qwen, keep=("id:sku",))
    assert (report.rows, report.failures) == (8, 2)
    return folder / "out"


def copied(made: Path, folder: Path) -> Path:
    """The same output in a folder of its own, as if it had been made there."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    for run in (folder / "out" / "runs").glob("*.json"):
        run.write_text(run.read_text().replace(str(made), str(folder)))
    return folder / "out"
