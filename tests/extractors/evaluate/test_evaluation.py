"""An evaluation end to end over the simulator: a run, then scores that add up to what the fake answered."""

from __future__ import annotations

import codecs
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, Field

from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation, evaluate, score_recipe
from extractors.evaluate.golden import read_golden
from schemas.job import ExtractionJob
from tests.end_to_end.things import Thing
from tests.fakes.answers import record_of, thing_answer, thing_text
from tests.fakes.asked import Body
from tests.fakes.qwen import FakeQwen

SCHEMA = "tests.end_to_end.things:Thing"


def label(number: int, **more: Any) -> dict[str, Any]:
    expected = {"name": f"thing-{number:07}", "price": number % 1000 + number % 100 / 100}
    return {"id": f"r{number}", "text": thing_text(number), "expected": expected, **more}


def write_golden(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def faulty(body: Body) -> str:
    """Record 1 has a wrong price, 2 an invented name and no price, 3 is never answered."""
    text = record_of(body)
    if "thing-0000001" in text:
        return '{"name":"thing-0000001","price":9.99}'
    if "thing-0000002" in text:
        return '{"name":"Wintergarten","price":null}'
    return "I would rather not." if "thing-0000003" in text else thing_answer(body)


def evaluated(golden: Path, qwen: FakeQwen, **options: Any) -> Evaluation:
    rules = options.pop("rules", None)
    job = ExtractionJob.model_validate(
        {"source": str(golden), "schema": SCHEMA, "out": str(golden.parent / "out"), "base_url": qwen.base_url,
         "model": "qwen-plus", "max_attempts": 2, **options}
    )  # fmt: skip
    return evaluate(golden, job, rules=rules)


def test_scores_follow_from_what_was_answered(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(6)])
    with FakeQwen(faulty) as qwen:
        found = evaluated(golden, qwen)
    # Names: 4 right, 1 wrong, 1 missing. Prices: 3 right, 1 wrong, 2 missing.
    assert (found.micro.true_positives, found.micro.false_positives, found.micro.false_negatives) == (7, 2, 5)
    assert found.micro.f1.value == pytest.approx(14 / 21)
    assert found.by_field["name"].precision.value == pytest.approx(4 / 5)
    assert found.by_field["price"].recall.value == pytest.approx(3 / 6)
    assert (found.whole.value, found.valid.value) == (3 / 6, 5 / 6)
    assert found.ungrounded.value == pytest.approx(2 / 9), "the price 9.99 and the name stand nowhere"
    assert found.micro.f1.low is not None and found.micro.f1.low < 14 / 21 < (found.micro.f1.high or 0)
    assert found.output_tokens > 0 and found.cost is not None and found.seconds[0] is not None


def test_costs_in_several_currencies_are_no_sum(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(2)])
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(golden, qwen)
        assert found.cost and found.currency and found.price == f"{found.cost * 500:.4f} {found.currency}"
        [run] = (tmp_path / "out" / "runs").glob("*.json")
        other = {**orjson.loads(run.read_bytes()), "currency": "XYZ"}
        run.with_name(f"0{run.name}").write_bytes(orjson.dumps(other))
        mixed = evaluated(golden, qwen)
    assert (mixed.currency, mixed.cost, mixed.price) == (None, None, None)


def test_evaluating_again_pays_nothing_and_gives_the_same_figures(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(4)])
    with FakeQwen(thing_answer) as qwen:
        first, again = evaluated(golden, qwen), evaluated(golden, qwen)
    assert again.report is not None and again.report.calls == 0
    assert (first.micro, first.output_tokens, first.cost) == (again.micro, again.output_tokens, again.cost)


def test_what_is_not_labelled_is_not_scored(tmp_path: Path) -> None:
    lines = [label(0, free=["price"]), {**label(1), "expected": {"name": "thing-0000001"}}]
    with FakeQwen(faulty) as qwen:
        found = evaluated(write_golden(tmp_path / "golden.jsonl", lines), qwen)
    assert found.by_field["price"].f1.value is None
    assert found.whole.value == 1


NOTHING: list[dict[str, Any]] = [{"expected": {}}, {"free": ["name", "price"]}]


@pytest.mark.parametrize("more", NOTHING)
def test_a_record_that_labels_nothing_is_not_wholly_right(tmp_path: Path, more: dict[str, Any]) -> None:
    with FakeQwen(faulty) as qwen:
        alone = evaluated(write_golden(tmp_path / "golden.jsonl", [label(0, **more)]), qwen)
        beside = evaluated(write_golden(tmp_path / "golden.jsonl", [label(0, **more), label(1), label(4)]), qwen)
    assert (alone.figure("whole"), alone.no_bar is None, alone.unlabelled) == (None, False, 1)
    assert (beside.figure("whole"), beside.no_bar, beside.unlabelled) == (1 / 2, None, 1)


def test_a_label_that_says_there_is_nothing_is_a_label(tmp_path: Path) -> None:
    schema = tmp_path / "list.json"
    item = {"type": "object", "properties": {"sku": {"type": "string"}}}
    schema.write_bytes(
        orjson.dumps({"title": "L", "type": "object", "properties": {"lines": {"type": "array", "items": item}}})
    )
    golden = write_golden(tmp_path / "golden.jsonl", [{"id": "a", "text": "none", "expected": {"lines": []}}])
    with FakeQwen('{"lines":[]}') as qwen:
        assert evaluated(golden, qwen, schema=str(schema)).figure("whole") == 1


class Spelt(BaseModel):
    name: str = Field(validation_alias="Name")
    price: float = Field(serialization_alias="cost")


def test_a_field_is_scored_under_the_key_of_the_answer_whatever_it_is_printed_as(tmp_path: Path) -> None:
    def answer(body: Body) -> str:
        return orjson.dumps({"Name": orjson.loads(thing_answer(body))["name"], "price": 9.99}).decode()

    line = label(1)
    line["expected"] = {"Name": line["expected"]["name"], "price": line["expected"]["price"]}
    with FakeQwen(answer) as qwen:
        golden = write_golden(tmp_path / "golden.jsonl", [line])
        found = evaluated(golden, qwen, schema="tests.extractors.evaluate.test_evaluation:Spelt")
    assert (found.by_field["Name"].true_positives, found.by_field["price"].false_positives) == (1, 1)


@pytest.mark.parametrize("option", [{"approve_above": "0.01"}, {"sample": 20}])
def test_a_gate_that_an_evaluation_has_not_is_refused_before_anything_is_asked(
    option: dict[str, Any], tmp_path: Path
) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(1)])
    with FakeQwen(thing_answer) as qwen:
        with pytest.raises(JobError, match="approve_above and sample"):
            evaluated(golden, qwen, **option)
        assert qwen.count == 0


def test_other_right_values_count(tmp_path: Path) -> None:
    lines = [label(1, accept={"price": [9.99]}), label(2)]
    with FakeQwen(faulty) as qwen:
        found = evaluated(write_golden(tmp_path / "golden.jsonl", lines), qwen)
    assert found.by_field["price"].true_positives == 1


def test_records_beyond_a_ceiling_are_named_and_not_scored(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(5)])
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(golden, qwen, max_records=2)
    assert (len(found.records), len(found.unasked), found.micro.f1.value) == (2, 3, 1)


def test_the_outcome_of_a_text_that_was_changed_since_is_not_scored(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(3)])
    with FakeQwen(thing_answer) as qwen:
        before = evaluated(golden, qwen)
        write_golden(golden, [label(0), {**label(1), "text": thing_text(8)}, label(2)])
        stopped = evaluated(golden, qwen, max_tokens=1)
        job = ExtractionJob.model_validate({"source": str(golden), "schema": SCHEMA, "out": str(tmp_path / "out")})
        there = score_recipe(golden, job, before.recipe)
        after = evaluated(golden, qwen)
    assert (stopped.unasked, there.unasked, after.unasked) == (["r1"], ["r1"], [])
    assert (there.micro.f1.value, len(after.records)) == (1, 3) and after.micro.f1.value < 1


def test_a_byte_order_mark_before_the_first_label_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + orjson.dumps(label(1)))
    assert list(read_golden(path, Thing)) == ["r1"]


def test_labels_alone_find_their_records_elsewhere_and_ask_no_other(tmp_path: Path) -> None:
    records = write_golden(tmp_path / "records.jsonl", [{"id": f"r{n}", "text": thing_text(n)} for n in range(20)])
    lines = [{key: label(number)[key] for key in ("id", "expected")} for number in (3, 11)]
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(write_golden(tmp_path / "golden.jsonl", lines), qwen, source=str(records), id="id")
        assert found.report is not None and found.report.calls == 2
    assert found.micro.f1.value == 1


def test_one_label_is_of_one_record(tmp_path: Path) -> None:
    records = [
        {"id": "r1", "text": thing_text(1)},
        {"id": "r2", "text": thing_text(2)},
        {"id": "r1", "text": thing_text(1)},
    ]
    source = write_golden(tmp_path / "records.jsonl", records)
    lines = [{key: label(number)[key] for key in ("id", "expected")} for number in (1, 2)]
    golden = write_golden(tmp_path / "golden.jsonl", lines)
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(golden, qwen, source=str(source), id="id")
        asked = qwen.count
        write_golden(source, [*records, {"id": "r1", "text": thing_text(9)}])
        with pytest.raises(JobError, match=r"several records of the id 'r1' with different texts"):
            evaluated(golden, qwen, source=str(source), id="id")
        assert qwen.count == asked
    assert ([one.given.key for one in found.records], found.micro.true_positives) == ([("r1", 0), ("r2", 0)], 4)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "r0", "text": "x", "expected": {"nam": "x"}}, "has no field 'nam'"),
        ({"id": "r0", "text": "x", "expected": {"name": "x", "price": "dear"}}, "line 2: expected.price"),
        ({"id": "r0", "text": "x"}, "has no `expected`"),
        ({"id": "r1", "text": "x", "expected": {}}, "stands twice"),
    ],
)
def test_a_label_that_does_not_fit_the_schema_is_named(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(1), line])
    with FakeQwen(thing_answer) as qwen, pytest.raises(JobError, match=said):
        evaluated(golden, qwen)


def test_a_golden_set_in_parquet_holds_typed_values_or_json(tmp_path: Path) -> None:
    ids, texts = ["r0", "r1"], [thing_text(0), thing_text(1)]
    typed = [{"name": f"thing-{n:07}", "price": Decimal(f"{n}.{n:02}")} for n in range(2)]
    written = ['{"name": "thing-0000000"}', '{"name": "thing-0000001", "price": 1.01}']
    pq.write_table(pa.table({"id": ids, "text": texts, "expected": typed}), tmp_path / "typed.parquet")
    pq.write_table(pa.table({"id": ids, "text": texts, "expected": written}), tmp_path / "written.parquet")
    with FakeQwen(thing_answer) as qwen:
        of_typed = evaluated(tmp_path / "typed.parquet", qwen)
        of_written = evaluated(tmp_path / "written.parquet", qwen)
    assert (of_typed.micro.f1.value, of_typed.by_field["price"].true_positives) == (1, 2)
    assert (of_written.micro.f1.value, of_written.by_field["price"].true_positives) == (1, 1)


def test_a_recipe_that_is_there_already_is_scored_without_asking(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(4)])
    with FakeQwen(thing_answer) as qwen:
        first = evaluated(golden, qwen)
    job = ExtractionJob.model_validate({"source": str(golden), "schema": SCHEMA, "out": first.out})
    again = score_recipe(golden, job, first.recipe)
    assert (again.micro, again.model) == (first.micro, "qwen-plus")
    with pytest.raises(JobError, match=f"it has {first.recipe}"):
        score_recipe(golden, job, "00000000")


def test_a_choice_is_not_counted_as_a_value_without_evidence(tmp_path: Path) -> None:
    lines = [{"id": "a", "text": "A red kite.", "expected": {"colour": "red", "flies": True, "size": "big"}}]
    schema = 'colour: str, flies: bool, size: "big" | "small", maker: str?'
    answer = '{"colour":"red","flies":true,"size":"big","maker":"Nobody"}'
    with FakeQwen(answer) as qwen:
        found = evaluated(write_golden(tmp_path / "golden.jsonl", lines), qwen, schema=schema)
    assert found.ungrounded.value == 1 / 2


def test_promoted_records_are_read_whatever_the_job_calls_its_columns(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(2)])
    with FakeQwen(thing_answer) as qwen:
        found = evaluated(golden, qwen, id="sku", text="{title}\n{body}", keep=("maker",))
    assert (len(found.records), found.micro.f1.value) == (2, 1)


def test_a_value_under_a_key_with_a_slash_is_scored_beside_its_evidence(tmp_path: Path) -> None:
    inner = {"type": "object", "properties": {"net/gross": {"type": "string"}}}
    properties = {"a~b": {"type": "string"}, "x/y": inner, "lines": {"type": "array", "items": inner}}
    schema = tmp_path / "odd.json"
    schema.write_bytes(orjson.dumps({"title": "Odd", "type": "object", "properties": properties}))
    expected = {"a~b": "red", "x/y": {"net/gross": "kite"}, "lines": [{"net/gross": "flies"}]}
    lines = [{"id": "a", "text": "A red kite flies.", "expected": expected}]
    with FakeQwen(orjson.dumps(expected).decode()) as qwen:
        golden = write_golden(tmp_path / "golden.jsonl", lines)
        found = evaluated(golden, qwen, schema=str(schema), rules={"x~1y/net~1gross": "exact"})
    [record] = found.records
    assert [record.given.evidence[cell.path]["quote"] for cell in record.cells] == ["red", "kite", "flies"]
    assert list(found.fields) == ["a~0b", "x~1y/net~1gross", "lines/*/net~1gross"]
