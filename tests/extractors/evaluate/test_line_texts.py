"""Where a golden set's texts are: in columns, in ``text`` beside them, and never nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation, evaluate
from extractors.evaluate.golden_lines import Example, add_lines
from flows.cli.app import app
from schemas.job import ExtractionJob
from tests.fakes.answers import thing_answer, thing_text
from tests.fakes.qwen import FakeQwen

SCHEMA = "tests.end_to_end.things:Thing"
TEMPLATE = "{title}\n{body}"


def in_columns(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "title": f"Offer {number}", "body": thing_text(number), **labels(number), **more}


def labels(number: int) -> dict[str, Any]:
    return {"expected": {"name": f"thing-{number:07}", "price": f"{number}.{number:02}"}}


def in_text(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "text": f"Offer {number}\n{thing_text(number)}", **labels(number), **more}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluated(golden: Path, qwen: FakeQwen, **options: Any) -> Evaluation:
    given = {"source": str(golden), "schema": SCHEMA, "out": str(golden.parent / "out"), "base_url": qwen.base_url}
    return evaluate(golden, ExtractionJob.model_validate({**given, "model": "qwen-plus", **options}))


def test_a_set_of_columns_can_be_added_to_and_is_evaluated_as_before(tmp_path: Path) -> None:
    golden = write(tmp_path / "golden.jsonl", *(in_columns(n, note=f"by {n}") for n in range(3)))
    source = write(tmp_path / "source.jsonl", *({**in_columns(n), "expected": None} for n in (0, 7)))
    out = tmp_path / "run"
    with FakeQwen(thing_answer) as qwen:
        command = ["run", str(source), "--schema", SCHEMA, "--id", "id", "--text", TEMPLATE, "--out", str(out), "--model", "qwen-plus",
                   "--base-url", qwen.base_url]  # fmt: skip
        assert CliRunner().invoke(app, command).exit_code == 0
        added = CliRunner().invoke(app, ["golden", "add", str(out), "--id", "r7,r0", "-o", str(golden)])
        assert added.exit_code == 0, added.exception
        found = evaluated(golden, qwen, text=TEMPLATE)
        again = evaluated(golden, qwen, text=TEMPLATE)
    assert lines_of(golden)[0] == in_columns(0, note="by 0"), "columns that make the text need no other"
    assert lines_of(golden)[3] == in_text(7)
    assert (found.micro.f1.value, found.valid.value, len(found.records)) == (1, 1, 4)
    assert {one.text for one in found.records} == {f"Offer {n}\n{thing_text(n)}" for n in (0, 1, 2, 7)}
    assert again.report is not None and again.report.calls == 0


@pytest.mark.parametrize("first", [in_columns(0), in_text(0)])
def test_the_text_of_a_line_is_where_that_line_has_it(tmp_path: Path, first: dict[str, Any]) -> None:
    golden = write(tmp_path / "golden.jsonl", first, in_columns(1), in_text(2))
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(golden, qwen, text=TEMPLATE)
    assert [one.text for one in found.records] == [f"Offer {n}\n{thing_text(n)}" for n in range(3)]
    assert found.micro.f1.value == 1


def test_of_parquet_a_row_without_the_columns_values_has_its_text_in_text(tmp_path: Path) -> None:
    rows = [{"text": None, **in_columns(1)}, {"title": None, "body": None, **in_text(2)}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "golden.parquet")
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(tmp_path / "golden.parquet", qwen, text=TEMPLATE)
    assert [one.text for one in found.records] == [f"Offer {n}\n{thing_text(n)}" for n in (1, 2)]


def test_columns_that_are_not_the_record_any_more_give_way_to_its_text(tmp_path: Path) -> None:
    golden = write(tmp_path / "golden.jsonl", in_columns(0, note="mine"), in_columns(1))
    new = Example("r0", f"Offer 0\n{thing_text(5)}", labels(5)["expected"])
    add_lines(golden, [new], told=lambda key, value: value, text=TEMPLATE)
    assert lines_of(golden)[0] == {"id": "r0", "note": "mine", "text": new.text, **labels(5)}
    with FakeQwen(thing_answer) as qwen:
        assert evaluated(golden, qwen, text=TEMPLATE).micro.f1.value == 1


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        ({"id": "r1", **labels(1)}, None, r"line 2 has no text of its record: it holds only labels"),
        ({"id": "r1", "text": " ", **labels(1)}, None, r"line 2 has no text of its record"),
        ({"id": "r1", "title": None, **labels(1)}, TEMPLATE, r"line 2 has no text of its record"),
        (in_columns(1), None, r"line 2 .*--text '\{title\}\\n\{body\}'"),
        ({"id": "r1", "text": "\ufeff", **labels(1)}, None, r"only white space of the labelled record 'r1'"),
    ],
)
def test_a_line_without_text_is_named_before_anything_is_asked(
    tmp_path: Path, line: dict[str, Any], text: str | None, said: str
) -> None:
    golden = write(tmp_path / "golden.jsonl", in_text(0), line, in_columns(3) if text else in_text(3))
    with FakeQwen(thing_answer) as qwen:
        with pytest.raises(JobError, match=said):
            evaluated(golden, qwen, text=text)
        assert qwen.count == 0


def test_a_labelled_record_without_text_elsewhere_is_named_too(tmp_path: Path) -> None:
    records = write(tmp_path / "records.jsonl", {"id": "r0", "text": thing_text(0)}, {"id": "r1", "text": None})
    golden = write(tmp_path / "golden.jsonl", *({"id": f"r{n}", **labels(n)} for n in range(2)))
    with FakeQwen(thing_answer) as qwen:
        with pytest.raises(JobError, match=r"the text is null of the labelled record 'r1'"):
            evaluated(golden, qwen, source=str(records), id="id")
        assert qwen.count == 0


def test_a_check_names_a_line_without_text_as_an_evaluation_does(tmp_path: Path) -> None:
    def check(*more: str) -> str | None:
        found = CliRunner().invoke(app, ["golden", "check", str(golden), "--schema", SCHEMA, *more])
        return str(found.exception) if found.exception else None

    golden = write(tmp_path / "golden.jsonl", in_text(0), {"id": "r1", **labels(1)})
    assert "line 2 has no text of its record" in (check() or "")
    golden = write(tmp_path / "golden.jsonl", in_text(0), in_columns(1))
    assert "--text '{title}" in (check() or "")
    assert check("--text", TEMPLATE) is None
    golden = write(tmp_path / "golden.jsonl", {"id": "r0", **labels(0)}, {"id": "r1", **labels(1)})
    assert check() is None, "labels alone are for records that are elsewhere"
