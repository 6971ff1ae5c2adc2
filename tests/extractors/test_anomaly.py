"""When a run's cost for a record counts as unusual."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from extractors.anomaly import find_anomaly, judge
from extractors.history import run_documents
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Reply


@pytest.mark.parametrize(
    ("value", "known", "odd"),
    [
        (2.0, [1.0, 1.1, 0.9, 1.0, 1.05], True),
        (1.1, [1.0, 1.1, 0.9, 1.0, 1.05], False),
        (0.3, [1.0, 1.1, 0.9, 1.0, 1.05], True),
        (2.0, [1.0, 1.1, 0.9, 1.0], False),  # four runs say nothing
        (1.1, [1.0] * 9, False),  # equal runs do not make an alarm of any difference
        (1.3, [1.0] * 9, True),
        (1.0, [1.0, 1.0, 1.0, 1.0, 50.0, 60.0], False),  # runs that went wrong move no median
        (50.0, [1.0, 1.0, 1.0, 1.0, 50.0, 60.0], True),
    ],
)
def test_far_from_the_median_is_unusual(value: float, known: list[float], odd: bool) -> None:
    assert (judge(value, known, measure="cost") is not None) is odd


def test_a_run_that_costs_thrice_as_much_is_told_apart_from_the_earlier_ones(tmp_path: Path) -> None:
    out, size = tmp_path / "out", 100
    told = []
    with FakeQwen() as qwen:
        for number in range(7):
            size = 300 if number == 6 else 100 + number
            qwen.answer_with(lambda body, size=size: Reply(thing_answer(body), tokens=(size, size, 0, 0)))
            source = write_things(tmp_path / f"{number}.jsonl", range(number * 25, number * 25 + 25))
            report = run_things(source, out, qwen)
            told.append(find_anomaly(report, run_documents(out, name=report.name, recipe=report.recipe)))
    assert told[:6] == [None] * 6
    assert told[6] is not None
    assert (told[6].measure, told[6].runs, told[6].higher) == ("cost", 6, True)
    assert "earlier runs of this recipe" in str(told[6])
    assert isinstance(report.cost, Decimal)


def test_other_recipes_and_broken_files_are_no_history(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
        run_things(source, tmp_path / "out", qwen, instructions="Other words.")
    (tmp_path / "out/runs/0.json").write_text("{")
    known = list(run_documents(tmp_path / "out", name=report.name, recipe=report.recipe))
    assert [one["run_id"] for one in known] == [report.run_id]
    assert "0.json cannot be read" in caplog.text
