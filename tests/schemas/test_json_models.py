"""JSON Schema documents to models, on small cases and on real-world schemas."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Optional, Union

import pytest
from pydantic import BaseModel, ValidationError

from schemas.arrow import RowCodec, SchemaMappingError
from schemas.json_models import model_of
from schemas.jsonschema import answer_schema

DATA = Path(os.environ.get("QUARRY_DATA") or Path(__file__).parents[2].parent / "shared" / "data") / "jsonschemabench"


def column(schema: Any, *, required: bool = True) -> str:
    document = {"type": "object", "properties": {"x": schema}, "required": ["x"] if required else []}
    field = RowCodec(model_of(document, name="sample")).schema.field("x")
    return f"{field.type}{'?' if field.nullable else ''}"


@pytest.mark.parametrize(
    ("schema", "arrow"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date"}, "date32[day]"),
        ({"type": "string", "format": "date-time"}, "timestamp[us, tz=UTC]"),
        ({"type": "string", "format": "uuid"}, "string"),
        ({"type": "integer", "minimum": 0}, "int64"),
        ({"type": ["integer", "number"]}, "double"),
        ({"type": ["string", "null"]}, "string?"),
        ({"type": "boolean"}, "bool"),
        ({"enum": ["a", "b", None]}, "dictionary<values=string, indices=int32, ordered=0>?"),
        ({"const": 4}, "int64"),
        ({"type": "array", "items": {"type": "integer"}}, "list<element: int64>"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "map<string, double>"),
        ({"type": "object"}, "map<string, string>"),
        ({}, "string?"),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "struct<kind: dictionary<values=string, indices=int32, ordered=0>, int: int64, str: string>?",
        ),
        (
            {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "integer"}}}]},
            "struct<a: string, b: int64>",
        ),
    ],
    ids=json.dumps,
)
def test_each_schema_has_its_column(schema: Any, arrow: str) -> None:
    assert column(schema) == arrow


def test_the_members_of_a_union_do_not_depend_on_what_was_loaded_before() -> None:
    one, other = {"type": "integer"}, {"type": "array", "items": {"type": "string"}}
    for branches in ([one, other], [other, one]):
        for _ in range(2):
            assert column({"anyOf": [*branches, {"type": "null"}]}) == (
                "struct<kind: dictionary<values=string, indices=int32, ordered=0>, int: int64, str_list: list<element: string>>?"
            )

    class Wide(BaseModel):
        x: Optional[Union[str, int]]  # noqa: UP007, UP045 -- these words are remembered by typing, `|` is not

    class Narrow(BaseModel):
        x: Optional[Union[int, str]]  # noqa: UP007, UP045

    assert RowCodec(Wide).schema.field("x").type == RowCodec(Narrow).schema.field("x").type


def test_a_property_that_is_not_required_may_be_null() -> None:
    assert column({"type": "integer"}, required=False) == "int64?"


def test_local_references_are_followed_and_descriptions_kept() -> None:
    document = {
        "$defs": {"money": {"type": "number", "description": "An amount."}},
        "properties": {"a": {"$ref": "#/$defs/money"}, "b": {"$ref": "#/$defs/money", "description": "Tax."}},
    }
    model = model_of(document, name="sample")
    assert {name: field.description for name, field in model.model_fields.items()} == {"a": "An amount.", "b": "Tax."}


def test_names_that_python_cannot_use_become_fields_with_an_alias() -> None:
    names = ["unit-price", "2nd", "_hidden", "Name", "name", "record_id", "model_dump", "json", "class", "größe"]
    document = {"properties": {name: {"type": "integer"} for name in names}}
    model = model_of(document, name="sample")
    assert list(model.model_fields) == [
        *("unit_price", "field_2nd", "hidden", "Name", "name_2", "record_id_", "model_dump_", "json", "class", "größe")
    ]
    value = model.model_validate({name: number for number, name in enumerate(names)})
    codec = RowCodec(model)
    assert codec.encode([value]).to_pylist()[0]["hidden"] == 2
    assert codec.decode(codec.encode([value])) == [value]
    assert list(answer_schema(model)["properties"]) == names


@pytest.mark.parametrize(
    ("schema", "good", "bad", "path"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1], ("x",)),
        ({"type": "array", "contains": {"const": "a"}}, ["a", "b"], ["b"], ("x",)),
        ({"type": "string", "not": {"const": "none"}}, "some", "none", ("x",)),
        ({"type": "number", "multipleOf": 0.5}, 1.5, 1.6, ("x",)),
        ({"type": "object", "patternProperties": {"^n": {"type": "integer"}}}, {"n": 1}, {"n": "a"}, ("x", "n")),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "if": {"properties": {"a": {"const": 1}}},
                "then": {"required": ["b"]},
            },
            {"a": 2},
            {"a": 1},
            ("x",),
        ),
        ({"type": "string", "pattern": "^(?!x)"}, "y", "x", ("x",)),
        ({"oneOf": [{"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 6}]}, 4, 5, ("x",)),
    ],
    ids=json.dumps,
)
def test_keywords_beyond_types_are_enforced_at_their_place(schema: Any, good: Any, bad: Any, path: Any) -> None:
    model = model_of({"type": "object", "properties": {"x": schema}, "required": ["x"]}, name="sample")
    model.model_validate_json(json.dumps({"x": good}))
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps({"x": bad}))
    assert caught.value.errors()[0]["loc"] == path


def test_null_means_absent_for_an_optional_property_whatever_else_is_enforced() -> None:
    document = {
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {}, "uniqueItems": True}},
        "required": ["b"],
    }
    assert model_of(document, name="sample").model_validate({"a": None, "b": [1]}).model_dump() == {"a": None, "b": [1]}


@pytest.mark.parametrize(
    ("document", "key", "answer"),
    [
        ({"type": "array", "items": {"type": "string"}}, "items", ["a"]),
        ({"type": "integer"}, "value", 3),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "entries", {"a": 1}),
    ],
)
def test_a_root_that_is_no_object_is_wrapped(document: Any, key: str, answer: Any) -> None:
    model = model_of(document, name="sample")
    assert model.model_validate(answer) == model.model_validate({key: answer})
    assert model.model_validate(answer).model_dump() == {key: answer}


def test_branches_at_the_root_become_one_wide_object() -> None:
    document = {
        "oneOf": [
            {"properties": {"kind": {"const": "a"}, "size": {"type": "integer"}}, "required": ["kind"]},
            {"properties": {"kind": {"const": "b"}, "size": {"type": "string"}}, "required": ["kind"]},
        ]
    }
    model = model_of(document, name="sample")
    assert list(model.model_fields) == ["kind", "size"]
    assert model.model_validate({"kind": "b", "size": "x"}).model_dump() == {"kind": "b", "size": "x"}
    with pytest.raises(ValidationError):
        model.model_validate({"kind": "a", "size": "x"})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (True, "#: a boolean schema says nothing about fields; give it a"),
        ({}, "#: a value of any type has no fields"),
        ({"type": "strng"}, "#/type: not a valid JSON Schema"),
        (
            {"properties": {"a": {"$ref": "#"}}},
            "#/properties/a/properties/a: # contains itself, and a table has a fixed depth; write out",
        ),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "#/properties/a/$ref: #/$defs/b points to nothing; copy"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "#/properties/a/$ref: other.json points outside of the file"),
        ({"properties": {"a": {"type": "string", "pattern": r"\p{L}"}}}, "#/properties/a/pattern: "),
        ({"type": "array", "items": False}, None),
    ],
    ids=json.dumps,
)
def test_what_has_no_table_is_refused_with_its_pointer(document: Any, words: str | None) -> None:
    if words is None:
        assert RowCodec(model_of(document, name="sample")).schema.names == ["items"]
        return
    with pytest.raises(SchemaMappingError) as caught:
        model_of(document, name="sample")
    assert str(caught.value).startswith(words)


def test_the_same_document_gives_the_same_schema() -> None:
    document = {
        "properties": {"b": {"enum": ["z", "a"]}, "a": {"anyOf": [{"properties": {"c": {}}}, {"type": "null"}]}}
    }
    one, other = model_of(document, name="sample"), model_of(json.loads(json.dumps(document)), name="sample")
    assert json.dumps(one.model_json_schema()) == json.dumps(other.model_json_schema())


@pytest.mark.skipif(
    not (DATA / "schemas.small.jsonl").is_file(),
    reason=f"JSONSchemaBench is not at {DATA}; set QUARRY_DATA to the folder that holds jsonschemabench",
)
def test_real_world_schemas_load_and_their_valid_instances_round_trip() -> None:
    tests = {}
    for line in (DATA / "instances.small.jsonl").read_text().splitlines():
        entry = json.loads(line)
        tests[entry["id"]] = entry["tests"]
    counts: Counter[str] = Counter()
    for line in (DATA / "schemas.small.jsonl").read_text().splitlines()[::4]:
        entry = json.loads(line)
        counts["schemas"] += 1
        try:
            model = model_of(entry["schema"], name="sample")
            codec = RowCodec(model)
        except SchemaMappingError as error:
            assert "#" in str(error), entry["id"]
            continue
        counts["loaded"] += 1
        for test in tests[entry["id"]]:
            counts[f"instances {test['valid']}"] += 1
            try:
                value = model.model_validate_json(json.dumps(test["data"]))
            except ValidationError:
                continue
            counts[f"accepted {test['valid']}"] += 1
            if not codec.check(value):
                assert codec.decode(codec.encode([value])) == [value], entry["id"]
                counts[f"round trip {test['valid']}"] += 1
    assert counts["loaded"] >= 0.95 * counts["schemas"], counts
    assert counts["round trip True"] >= 0.99 * counts["instances True"], counts
    assert counts["accepted False"] <= 0.10 * counts["instances False"], counts
