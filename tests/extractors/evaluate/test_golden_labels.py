"""What a golden set says: exact values, what is labelled and what is not, ids, and what is refused when it is read."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from extractors.errors import JobError
from extractors.evaluate.fields import compared_fields
from extractors.evaluate.golden import Labelled, read_golden
from extractors.evaluate.golden_lines import Example
from extractors.evaluate.promotion import add_examples
from extractors.evaluate.results import shown
from extractors.evaluate.scoring import Cell, score_record
from extractors.parsing import dumps_exact
from flows.cli.app import app
from schemas.json_models import model_of


class Town(BaseModel):
    name: str
    founded: date | None = None


class Seller(BaseModel):
    name: str
    city: Town | None = None
    branches: list[str] = Field(default_factory=list)


class Line(BaseModel):
    text: str
    due: date | None = None
    price: Decimal | None = None


class Bill(BaseModel):
    number: int | None = None
    due: date | None = None
    paid: list[date] = Field(default_factory=list)
    seller: Seller | None = None
    lines: list[Line] = Field(default_factory=list)


def read(tmp_path: Path, *lines: Any, model: type[BaseModel] = Bill, **options: Any) -> dict[str, Labelled]:
    path = tmp_path / "golden.jsonl"
    path.write_text("".join((one if isinstance(one, str) else orjson.dumps(one).decode()) + "\n" for one in lines))
    return read_golden(path, model, **options)


def label(tmp_path: Path, expected: Any, *, model: type[BaseModel] = Bill, **more: Any) -> Labelled:
    return read(tmp_path, {"id": "a", "text": "x", "expected": expected, **more}, model=model)["a"]


def verdicts(
    found: Labelled, got: dict[str, Any], *, model: type[BaseModel] = Bill, rules: dict[str, str] | None = None
) -> dict[str, str]:
    cells: list[Cell] = score_record(compared_fields(model, rules), found, got)
    return {cell.path: cell.verdict.value for cell in cells}


def test_a_key_that_a_nested_label_leaves_out_is_not_scored(tmp_path: Path) -> None:
    found = label(tmp_path, {"seller": {"city": {"name": "Kiel"}}, "lines": [{"text": "kettle", "due": None}]})
    assert found.expected == {"seller": {"city": {"name": "Kiel"}}, "lines": [{"text": "kettle", "due": None}]}
    got = {
        "seller": {"name": "Acme", "city": {"name": "Kiel", "founded": "1233-01-01"}, "branches": ["x"]},
        "lines": [{"text": "kettle", "due": "2024-01-02", "price": "3.00"}],
    }
    assert verdicts(found, got) == {
        "seller/city/name": "right",
        "lines/0/text": "right",
        "lines/0/due": "extra",
    }


def test_what_a_whole_label_leaves_out_below_its_keys_is_not_filled_in(tmp_path: Path) -> None:
    expected = {"number": 1, "due": None, "paid": [], "seller": {"name": "Acme"}, "lines": [{"text": "kettle"}]}
    found = label(tmp_path, expected)
    assert found.expected == expected
    got = {**expected, "seller": {"name": "Acme", "city": None, "branches": ["x"]}, "lines": []}
    assert verdicts(found, got)["lines/0/text"] == "missing"
    assert {place for place in verdicts(found, got) if place.startswith("seller")} == {"seller/name"}


@pytest.mark.parametrize("rule", ["exact", "whole"])
def test_an_object_that_counts_as_one_value_is_compared_by_what_is_labelled(tmp_path: Path, rule: str) -> None:
    found = label(tmp_path, {"seller": {"name": "Acme"}, "lines": [{"text": "kettle"}]})
    got = {"seller": {"name": "Acme", "city": None, "branches": []}, "lines": [{"text": "kettle", "due": None}]}
    told = verdicts(found, got, rules={"seller": rule, "lines": rule})
    assert set(told.values()) == {"right"} and len(told) == 2


def test_a_json_schema_s_objects_are_labelled_in_part_too(tmp_path: Path) -> None:
    town = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["name"],
    }
    document = {"type": "object", "properties": {"home": town, "towns": {"type": "array", "items": town}}}
    model = model_of(document, name="Person")
    found = label(tmp_path, {"home": {"size": 3}, "towns": [{"name": "Ulm"}]}, model=model)
    assert found.expected == {"home": {"size": 3}, "towns": [{"name": "Ulm"}]}


def test_an_accepted_object_names_what_is_other_and_nothing_else_is_accepted(tmp_path: Path) -> None:
    expected = {"seller": {"name": "Acme", "city": {"name": "Kiel", "founded": None}, "branches": ["a", "b"]}}
    found = label(tmp_path, expected, accept={"seller": [{"name": "ACME Ltd"}, {"branches": ["c"]}]})
    assert found.accept == {"seller": [{"name": "ACME Ltd"}, {"branches": ["c"]}]}
    got = {"seller": {"name": "ACME Ltd", "city": None, "branches": ["c"]}}
    assert verdicts(found, got) == {
        "seller/name": "right",
        "seller/city/name": "missing",
        "seller/city/founded": "absent",
        "seller/branches/0": "right",
    }


def test_an_object_that_may_be_missing_is_accepted_as_null(tmp_path: Path) -> None:
    found = label(tmp_path, {"seller": {"name": "Acme", "city": None}}, accept={"seller": [None]})
    assert set(verdicts(found, {"seller": None}).values()) == {"absent"}


def test_a_struct_of_parquet_labels_all_of_its_keys(tmp_path: Path) -> None:
    kind = pa.struct([("seller", pa.struct([("name", pa.string()), ("branches", pa.list_(pa.string()))]))])
    rows = [{"seller": {"name": "Acme", "branches": None}}]
    path = tmp_path / "golden.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"], "expected": pa.array(rows, kind)}), path)
    found = read_golden(path, Bill)["a"]
    got = {"seller": {"name": "Acme", "branches": ["x"], "city": {"name": "Ulm", "founded": None}}}
    assert verdicts(found, got) == {"seller/name": "right", "seller/branches/0": "extra"}


def test_accepted_dates_and_decimals_of_parquet_are_values_of_the_schema(tmp_path: Path) -> None:
    expected = [
        {"due": date(2024, 1, 2), "paid": [date(2024, 1, 3)], "lines": [{"text": "x", "price": Decimal("1.50")}]}
    ]
    accept = [
        {
            "due": [date(2024, 2, 2)],
            "paid": [[date(2024, 3, 3)]],
            "lines": [[{"text": "y", "price": Decimal("1.25")}]],
        }
    ]
    path = tmp_path / "golden.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"], "expected": expected, "accept": accept}), path)
    found = read_golden(path, Bill)["a"]
    assert found.accept == {
        "due": ["2024-02-02"],
        "paid": [["2024-03-03"]],
        "lines": [[{"text": "y", "price": "1.25"}]],
    }
    got = {"due": "2024-02-02", "paid": ["2024-03-03"], "lines": [{"text": "y", "due": None, "price": "1.25"}]}
    assert set(verdicts(found, got).values()) == {"right"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {"expected": {"seller": {"nam": "x"}}},
            r"expected\.seller: Seller has no field 'nam'; its fields are name, city",
        ),
        ({"expected": {"seller": {"name": "x", "cty": None}}}, r"Seller has no field 'cty'"),
        (
            {"expected": {"lines": [{"text": "x"}, {"text": "x", "prise": 1}]}},
            r"expected\.lines\[1\]: Line has no field",
        ),
        ({"expected": {"lines": [{"text": "x"}, {"due": "soon"}]}}, r"expected\.lines\[1\]\.due: .*\(given"),
        ({"expected": {"paid": ["2024-01-02"]}, "accept": {"paid": [["soon"]]}}, r"accept\.paid\[0\]: "),
        (
            {"expected": {"lines": [{"text": "x"}]}, "accept": {"lines": [[{"pric": 1}]]}},
            r"accept\.lines\[0\]: Line has no",
        ),
        ({"expected": {"due": None}, "accept": {"due": "2024-01-02"}}, r"accept\.due must be a list"),
        ({"expected": {}, "free": [["due"]]}, r"has no field \['due'\]"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_set_is_read(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=r"line 1: .*" + said):
        read(tmp_path, {"id": "a", "text": "x", **line})


def test_integers_of_any_size_and_all_digits_of_decimals_are_kept(tmp_path: Path) -> None:
    digits = "123456789012345678901234567890"
    line = '{"id":"a","text":"x","expected":{"number":%s,"lines":[{"text":"x","price":"0.1234567890123456789012"}]}}'
    found = read(tmp_path, line % digits)["a"]
    assert found.expected["number"] == int(digits)
    assert found.expected["lines"][0]["price"] == "0.1234567890123456789012"
    assert verdicts(found, {"number": int(digits) + 1, "lines": []})["number"] == "wrong"
    assert shown(found.expected["number"]) == digits


def test_a_record_with_a_huge_integer_is_added_to_a_golden_set(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    add_examples(path, [Example("a", "x", {"number": 10**30})], Bill)
    add_examples(path, [Example("b", "x", {"number": 10**400 + 1})], Bill)
    assert [one.expected["number"] for one in read_golden(path, Bill).values()] == [10**30, 10**400 + 1]


NUMBERED, BARE = {"id": "a", "text": "x", "expected": {}}, {"text": "y", "expected": {}}


@pytest.mark.parametrize(
    ("lines", "there", "not_there"),
    [((NUMBERED, BARE), 1, 2), ((BARE, NUMBERED), 2, 1), ((BARE, {**BARE, "text": "z"}, NUMBERED), 3, 1)],
)
def test_ids_beside_none_are_named_with_both_lines(tmp_path: Path, lines: Any, there: int, not_there: int) -> None:
    with pytest.raises(JobError, match=rf"line {there} has an `id`, and .*line {not_there} has none"):
        read(tmp_path, *lines)


def test_an_id_column_that_a_line_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"line 1 has no `sku`"):
        read(tmp_path, BARE, id_column="sku")


@pytest.mark.parametrize("given", ["true", "false", "[1]", '{"a": 1}'])
def test_an_id_that_is_no_text_and_no_number_is_refused(tmp_path: Path, given: str) -> None:
    line = f'{{"id": {given}, "text": "x", "expected": {{}}}}'
    with pytest.raises(JobError, match=r"line 1: `id` must be text or a number"):
        read(tmp_path, line)
    path = tmp_path / "golden.jsonl"
    with pytest.raises(JobError, match=r"line 1: `id` must be text or a number"):
        add_examples(path, [Example("b", "x", {})], Bill)


@pytest.mark.parametrize(
    ("given", "known"), [("7", "7"), ("1.5", "1.5"), ("1.50", "1.5"), ("1" * 30, "1" * 30), ('"7"', "7")]
)
def test_an_id_is_known_as_a_source_gives_it(tmp_path: Path, given: str, known: str) -> None:
    assert list(read(tmp_path, f'{{"id": {given}, "text": "x", "expected": {{}}}}')) == [known]


def test_a_record_with_an_id_is_not_added_beside_one_without(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_bytes(orjson.dumps(BARE) + b"\n")
    with pytest.raises(JobError, match=r"line 1 has no `id`"):
        add_examples(path, [Example("b", "x", {})], Bill)


def test_a_check_counts_what_is_labelled_however_deep_it_lies(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a/b": {"type": ["string", "null"]},
            "seller": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "city": {"type": ["string", "null"]}},
            },
            "lines": {"type": "array", "items": {"type": "object", "properties": {"what": {"type": "string"}}}},
        },
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    labels = [
        {"a/b": "x", "seller": {"name": "Ann"}, "lines": [{"what": "pan"}, {"what": "lid"}]},
        {"a/b": None, "seller": {"name": "Bob", "city": None}, "lines": []},
        {"seller": {"city": "Leeds"}},
    ]
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "expected": one}) + "\n" for n, one in enumerate(labels)))
    found = CliRunner().invoke(app, ["golden", "check", str(path), "--schema", str(tmp_path / "schema.json"), "--json"])
    assert found.exit_code == 0, found.output
    counts = {one["field"]: (one["labelled"], one["with a value"]) for one in json.loads(found.stdout)["fields"]}
    assert counts == {"a~1b": (2, 1), "seller/name": (2, 2), "seller/city": (2, 1), "lines/*/what": (2, 1)}


def test_a_label_keeps_all_digits_of_a_decimal(tmp_path: Path) -> None:
    whole = {"number": 1, "due": None, "paid": [], "seller": None}
    amount = "99999999999999999.99"
    for rest in ({}, whole):
        line = dumps_exact({**rest, "lines": [{"price": orjson.Fragment(amount)}]})
        [found] = read(tmp_path, f'{{"id":"1","text":"t","expected":{line}}}').values()
        assert found.expected["lines"] == [{"price": amount}]
