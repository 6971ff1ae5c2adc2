"""Records that are longer than one call may show: live, in batches, stopped half-way, and planned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from extractors.endpoint import Settings
from extractors.planning import estimate
from extractors.store.catalog import current_rows
from tests.end_to_end.things import job_for, run_things
from tests.fakes.answers import record_of
from tests.fakes.qwen import FakeQwen

FILLER = "The receiving side treats drawings, samples and lists with care and gives them to nobody else at all.\n\n"
HERE = "tests.end_to_end.test_long_texts:Contract"


class Contract(BaseModel):
    number: str = Field(description="The contract's number.")
    governing_law: str | None = Field(default=None, description="The state whose law governs the contract.")
    keeper: str | None = Field(default=None, description="Who is to be rung up.")


def contract(number: int) -> str:
    law = "Governing law. The law of the State of Nevada governs this contract.\n\n"
    keeper = f"Mail goes to drawer Zebra-{number}.\n\n"
    return f"CONTRACT C-{number:04}\n\n" + FILLER * 25 + law + FILLER * 25 + keeper + FILLER * 12


def answer(body: dict[str, Any]) -> str:
    """What stands in the chunks that are shown."""
    shown = record_of(body)
    found = (re.search(pattern, shown) for pattern in (r"C-\d{4}", r"Nevada", r"Zebra-\d+"))
    number, law, keeper = (one.group() if one else None for one in found)
    return json.dumps({"number": number or "C-?", "governing_law": law, "keeper": keeper})


@pytest.fixture
def qwen() -> Iterator[FakeQwen]:
    with FakeQwen(answer) as service:
        yield service


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "contracts.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{n}", "text": contract(n)}) + "\n" for n in range(6)))
    return path


LONG = {"schema": HERE, "context_tokens": 400}


def table(out: Path) -> list[dict[str, Any]]:
    rows = current_rows(out).drop_columns(["run_id", "committed_at"])
    return sorted(({**row, "_meta": None} for row in rows.to_pylist()), key=lambda row: row["record_id"])


def test_a_long_record_is_a_row_whose_evidence_has_offsets_and_chunks(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    report = run_things(source, tmp_path / "out", qwen, **LONG)

    assert (report.rows, report.failures) == (6, 0)
    for place, row in enumerate(table(tmp_path / "out")):
        assert (row["number"], row["governing_law"]) == (f"C-{place:04}", "Nevada")
        (law,) = (one for one in row["_evidence"] if one["path"] == "governing_law")
        assert contract(place)[law["start"] : law["end"]] == "Nevada"
        assert law["chunk"] > 1


def test_much_less_than_the_texts_is_sent(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    whole = run_things(source, tmp_path / "whole", qwen, schema=HERE)
    focused = run_things(source, tmp_path / "focused", qwen, **LONG, max_attempts=1)

    assert focused.input_tokens < whole.input_tokens / 2


def test_a_run_that_was_stopped_asks_only_what_is_missing(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    calm = run_things(source, tmp_path / "calm", qwen, **LONG)
    asked = qwen.count
    options = {**LONG, "concurrency": 1}
    stopped = run_things(source, tmp_path / "out", qwen, **options, max_tokens=calm.input_tokens // 2)
    assert stopped.undone > 0
    run_things(source, tmp_path / "out", qwen, **options)

    assert asked == calm.calls > 6
    assert qwen.count == 2 * asked
    assert table(tmp_path / "out") == table(tmp_path / "calm")


def test_a_batch_run_makes_the_rows_of_a_live_one(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    run_things(source, tmp_path / "live", qwen, **LONG)
    run_things(source, tmp_path / "batch", qwen, **LONG, lane="batch", batch_poll=0.01)

    assert table(tmp_path / "batch") == table(tmp_path / "live")


def test_the_plan_tells_how_much_of_the_texts_is_sent(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    whole = estimate(job_for(source, tmp_path / "o", qwen, schema=HERE), settings=Settings())
    focused = estimate(job_for(source, tmp_path / "o", qwen, **LONG), settings=Settings())

    assert (whole.context.focused, whole.context.share) == (0, 1.0)
    assert not any("context" in line for line in whole.lines())
    assert (focused.context.focused, focused.context.shown_tokens) == (6, 2_400)
    assert focused.context.record_tokens == whole.context.record_tokens > 2 * 2_400
    assert focused.input_tokens < whole.input_tokens
    assert whole.cost and focused.cost and focused.cost < whole.cost
    assert any("6 long texts are asked about their chunks" in line for line in focused.lines())
