"""Schemas made fit for strict modes: nothing unsupported on the wire, nothing refused that the original allows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from extractors.qwen.fitting import SEEN_ACCEPTED, fitted, inlined, with_words

CORE = {"type", "properties", "required", "items", "additionalProperties", "anyOf", "enum", "description"}
NODE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name"],
        }
    },
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "required": ["root"],
}


def keywords_of(schema: Any) -> Iterator[str]:
    """Every keyword that a schema uses anywhere; names of properties are none."""
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        yield key
        if key in ("properties", "patternProperties"):
            for inner in value.values():
                yield from keywords_of(inner)
        elif isinstance(value, list) and key not in ("enum", "required", "type"):
            for inner in value:
                yield from keywords_of(inner)
        elif key not in ("enum", "const", "default"):
            yield from keywords_of(value)


def canonical(value: Any, schema: Any) -> Any:
    """The form of a value that strict schemas ask for: nulls and empty lists written, no unknown keys."""
    if not isinstance(schema, Mapping):
        return value
    for branch in schema.get("anyOf", ()):
        form = canonical(value, branch)
        if Draft202012Validator(branch).is_valid(form):
            value = form
            break
    if isinstance(value, list):
        return [canonical(item, schema.get("items")) for item in value]
    if not isinstance(value, dict):
        return value
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    made = {}
    for key, inner in value.items():
        if key in properties:
            made[key] = canonical(inner, properties[key])
        elif more is not False:
            made[key] = canonical(inner, more)
    for key in schema.get("required", ()):
        if key not in made and key in properties:
            made[key] = None if Draft202012Validator(properties[key]).is_valid(None) else []
    return made


LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 1, "maxLength": 5},
        {"type": "string", "pattern": "^[a-c]{1,3}$"},
        {"type": "string", "format": "date"},
        {"type": ["string", "null"], "default": "x"},
        {"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3},
        {"type": "number", "exclusiveMinimum": 0, "title": "Positive"},
        {"type": "boolean"},
        {"enum": ["a", 1, None]},
        {"type": ["string", "null"], "enum": ["a", "b"]},
        {"const": "fixed"},
        {"type": "null"},
        {"type": "integer", "not": {"enum": [3]}},
        {"if": {"type": "string"}, "then": {"minLength": 1}, "type": ["string", "integer"]},
    ]
)


def _larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "title", "properties", "json"])
    objects = st.builds(
        lambda properties, required, more: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            **more,
        },
        st.dictionaries(names, inner, min_size=1, max_size=3),
        st.sets(names),
        st.sampled_from([{}, {"additionalProperties": False}, {"minProperties": 1}, {"title": "T"}]),
    )
    lists = st.builds(
        lambda items, more: {"type": "array", "items": items, **more},
        inner,
        st.sampled_from([{}, {"minItems": 1, "maxItems": 3}, {"uniqueItems": True, "maxItems": 2}]),
    )
    tuples = st.builds(
        lambda places, more: {"type": "array", "prefixItems": places, "minItems": len(places), **more},
        st.lists(inner, min_size=1, max_size=2),
        st.sampled_from([{"items": False}, {"maxItems": 3}, {"items": {"type": "integer"}, "maxItems": 3}]),
    )
    unions = st.builds(
        lambda kind, branches: {kind: branches},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(inner, min_size=1, max_size=2),
    )
    maps = st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner)
    return objects | lists | tuples | unions | maps


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are likely, not sure, to be instances."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([values(branch) for branch in schema[key]])
    if "allOf" in schema:
        return values(schema["allOf"][0])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([values({**schema, "type": one}) for one in kind])
    if kind == "array":
        places, items = schema.get("prefixItems"), schema.get("items", {"type": "null"})
        if places is None:
            return st.lists(values(items), min_size=schema.get("minItems", 0), max_size=3)
        return st.tuples(*map(values, places)).map(list)
    if kind == "object":
        known = {name: values(inner) for name, inner in schema.get("properties", {}).items()}
        required = {name: known[name] for name in schema.get("required", ())}
        optional = {name: inner for name, inner in known.items() if name not in required}
        more = schema.get("additionalProperties", {"type": "boolean"})
        if more is not False:
            optional["unnamed"] = values(more)
        return st.fixed_dictionaries(required, optional=optional)
    return {
        "string": st.sampled_from(["a", "abc", "2026-01-02", "b"]),
        "integer": st.sampled_from([0, 3, 6]),
        "number": st.sampled_from([0.5, 2]),
        "boolean": st.booleans(),
    }.get(str(kind), st.none())


SCHEMAS = st.builds(
    lambda properties: {"type": "object", "properties": properties, "required": ["first"]},
    st.fixed_dictionaries({"first": st.recursive(LEAVES, _larger, max_leaves=5)}, optional={"second": LEAVES}),
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS)
def test_a_fitted_schema_has_no_unsupported_keyword_and_closed_objects(schema: dict[str, Any]) -> None:
    strict = fitted(schema)
    Draft202012Validator.check_schema(strict)
    assert set(keywords_of(strict)) <= CORE | set(SEEN_ACCEPTED)
    assert strict["additionalProperties"] is False


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(SCHEMAS, st.data())
def test_every_instance_of_the_original_is_one_of_the_fitted_schema(
    schema: dict[str, Any], data: st.DataObject
) -> None:
    instance = data.draw(values(schema))
    assume(Draft202012Validator(schema).is_valid(instance))
    strict = fitted(schema)
    Draft202012Validator(strict).validate(canonical(instance, strict))


def test_references_are_written_out_and_a_recursive_one_ends_in_a_place_of_its_type() -> None:
    flat = inlined(NODE)
    assert "$ref" not in json.dumps(flat) and "$defs" not in flat
    place, depth = flat["properties"]["root"], 0
    while "properties" in place:
        place, depth = place["properties"]["children"]["items"], depth + 1
    assert depth == 3
    assert place == {"type": "object", "description": "again as Node above"}
    deep: dict[str, Any] = {"name": "end"}
    for _ in range(6):
        deep = {"name": "x", "children": [deep]}
    strict = fitted(NODE)
    Draft202012Validator(strict).validate(canonical({"root": deep}, strict))


def test_a_reference_s_own_description_wins_over_that_of_what_it_means() -> None:
    schema = {
        "$defs": {"Price": {"type": "number", "minimum": 0, "description": "An amount"}},
        "properties": {"total": {"$ref": "#/$defs/Price", "description": "What is due"}},
    }
    assert inlined(schema)["properties"]["total"] == {"type": "number", "minimum": 0, "description": "What is due"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "^A-\\d+$"}, "matches the pattern ^A-\\d+$"),
        ({"type": "string", "minLength": 1, "maxLength": 5}, "not empty; at most 5 characters"),
        ({"type": "string", "format": "email"}, "format email"),
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 9}, "at least 1; less than 9"),
        ({"type": "number", "multipleOf": 0.01, "description": "Net."}, "Net; a multiple of 0.01"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "no item twice"),
        ({"type": "array", "contains": {"const": 1}}, 'fulfils contains {"const":1}'),
        ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, 'fulfils if {"required":["a"]}; fulfils then {"required":["b"]}'),
    ],
)  # fmt: skip
def test_what_the_mode_does_not_take_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert fitted({"properties": {"x": schema}})["properties"]["x"]["description"] == words


def test_keywords_that_a_model_takes_stay_on_the_wire() -> None:
    schema = {"properties": {"x": {"type": "string", "maxLength": 5, "pattern": "^a"}}}
    place = fitted(schema, ("maxLength",))["properties"]["x"]
    assert place == {"type": "string", "maxLength": 5, "description": "matches the pattern ^a"}


def test_a_prompt_tells_constraints_beside_the_field_that_they_are_about() -> None:
    schema = {
        "properties": {
            "code": {"anyOf": [{"type": "string", "pattern": "^K"}, {"type": "null"}], "description": "The code."},
            "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 9}},
            "day": {"type": "string", "format": "date"},
        }
    }
    told = with_words(schema)["properties"]
    assert told["code"]["description"] == "The code; matches the pattern ^K"
    assert told["tags"]["description"] == "at most 3 items; each at most 9 characters"
    assert "description" not in told["day"], "the type's own words say it"
    assert told["code"]["anyOf"][0]["pattern"] == "^K"
