"""A run that dies just before or just after any entry of the ledger is written loses nothing and asks nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extractors.batch.ledger import BatchEntry, BatchLedger
from extractors.store.catalog import current_rows
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import record_of, thing_answer
from tests.fakes.qwen import FakeQwen


class Killed(BaseException):
    """What no ``except Exception`` catches, like a kill."""


def answer(body: dict[str, Any]) -> str:
    if int(record_of(body)[10:17]) % 4 == 0 and "Your last answer" not in str(body):
        return thing_answer(body).replace('"price":', '"price":"?","was":')
    return thing_answer(body)


def dying_run(source: Path, out: Path, qwen: FakeQwen, *, at: int, written: bool) -> bool:
    """Run until the entry number ``at`` is written (or just not); whether the run came that far."""
    count = 0
    save = BatchLedger.save

    def dying(ledger: BatchLedger, entry: BatchEntry) -> BatchEntry:
        nonlocal count
        count += 1
        if count == at and not written:
            raise Killed
        saved = save(ledger, entry)
        if count == at:
            raise Killed
        return saved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchLedger, "save", dying)
        try:
            run_things(source, out, qwen, lane="batch", batch_poll=0.01)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_dying_at_every_entry(tmp_path: Path, written: bool) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    at = 0
    with FakeQwen(answer) as qwen:
        while True:
            at += 1
            out = tmp_path / f"out{at}"
            qwen.batches.asked.clear()
            died = dying_run(source, out, qwen, at=at, written=written)
            if not died:
                break
            report = run_things(source, out, qwen, lane="batch", batch_poll=0.01)
            assert report.undone == 0
            assert sorted(current_rows(out).column("record_id").to_pylist()) == [f"r{n:05}" for n in range(12)]
            assert max(qwen.batches.asked.values()) == 1, f"entry {at}: a request was submitted twice"
            assert len(qwen.batches.asked) == 15
    assert at > 12, "a run has that many entries at least"
