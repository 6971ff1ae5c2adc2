"""The one-line schema."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.arrow import RowCodec, SchemaMappingError
from schemas.oneline import parse_line


def types_of(spec: str) -> dict[str, Any]:
    return {name: field.annotation for name, field in parse_line(spec).model_fields.items()}


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ("name", {"name": str}),
        ("name, price: float, tags: list[str]", {"name": str, "price": float, "tags": list[str]}),
        ("currency: 'USD'|\"EUR\"", {"currency": Literal["USD", "EUR"]}),
        ("stars: 1|2|3", {"stars": Literal[1, 2, 3]}),
        ("when: date?", {"when": date | None}),
        ("when?: date", {"when": date | None}),
        ("when: date optional", {"when": date | None}),
        ("when?", {"when": str | None}),
        ("size: int | str", {"size": int | str}),
        ("size: int | null", {"size": int | None}),
        ("extra: dict[str, int]", {"extra": dict[str, int]}),
        ("extra: map[decimal]", {"extra": dict[str, Decimal]}),
        ("words: [str?]", {"words": list[str | None]}),
        ("a: datetime\nb: duration\n", {"a": datetime, "b": timedelta}),
        ("name,\n price: float,", {"name": str, "price": float}),
    ],
)
def test_each_form_gives_its_type(spec: str, types: dict[str, Any]) -> None:
    assert types_of(spec) == types


def test_objects_nest_and_lists_of_objects_too() -> None:
    model = parse_line("buyer: {name, address: {city, zip?}}, items: [{name, qty: int}]")
    value = model.model_validate_json(
        '{"buyer": {"name": "A", "address": {"city": "B", "zip": null}}, "items": [{"name": "C", "qty": 2}]}'
    )
    codec = RowCodec(model)
    assert codec.decode(codec.encode([value])) == [value]
    assert str(codec.schema.field("items").type) == "list<element: struct<name: string, qty: int64>>"


def test_notes_in_parentheses_and_after_a_hash_are_descriptions() -> None:
    model = parse_line("price: float (in euros, (net)), tags (all of them): list[str] # up to five, no more\nname")
    notes = {name: field.description for name, field in model.model_fields.items()}
    assert notes == {"price": "in euros, (net)", "tags": "up to five, no more", "name": None}


def test_fields_are_required_unless_marked() -> None:
    model = parse_line("name, price: float?")
    assert model.model_validate({"name": "A"}).model_dump() == {"name": "A", "price": None}
    with pytest.raises(ValidationError):
        model.model_validate({"price": 1})


def test_the_same_line_gives_the_same_schema() -> None:
    spec = "b: {x, y: [{z: int}]}, a: 'q'|'p', c: {x}"
    assert parse_line(spec).model_json_schema() == parse_line(spec).model_json_schema()


@pytest.mark.parametrize(
    ("spec", "position", "words"),
    [
        ("name price", 6, "after the field name a comma is expected"),
        ("x: foo", 4, "there is no type foo; use str, "),
        ("a, A", 4, "the field A is there twice"),
        ("items: [{name", 14, "'}' is missing"),
        ("x: list[", 9, "a type is expected"),
        ("x: 'a", 4, "a type is expected"),
        ("x: 1.5|2", 4, "choices are quoted text or whole numbers"),
        ("x (note", 3, "')' is missing"),
        ("_x", 1, "cannot be a field name; choose another, such as x_value"),
        ("a, copy", 4, "cannot be a field name"),
        ("record_id", 1, "the rows table has its own column record_id"),
        ("x: null", 4, "a type beside null is needed"),
        ("x: {}", 6, "there is no field"),
        ("x: dict[int, str]", 9, "the keys of a dict are str"),
        ("x: " + "[" * 50, 24, "nested too deeply"),
    ],
)
def test_an_error_names_its_position(spec: str, position: int, words: str) -> None:
    with pytest.raises(SchemaMappingError) as caught:
        parse_line(spec)
    assert str(caught.value).startswith(f"one-line schema, position {position}: ")
    assert words in str(caught.value)


@given(st.text(st.sampled_from("ab:,?|[]{}()#'\" \n1.-_élist"), max_size=40))
def test_any_text_is_a_model_or_the_documented_error(spec: str) -> None:
    try:
        model = parse_line(spec)
    except SchemaMappingError:
        return
    RowCodec(model)
