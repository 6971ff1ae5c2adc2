"""The key of a list's items: three spellings, one meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from extractors.errors import SchemaError
from extractors.qwen.requests import Mode
from extractors.recipe import ModelPolicy, compile_recipe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.keys import Key, item_schema, key_of
from schemas.loading import load_schema


class Line(BaseModel):
    sku: str
    day: str | None = None


class MarkedLine(BaseModel):
    sku: Annotated[str | None, Key()]


class Named(BaseModel):
    lines: Annotated[list[Line], Key("sku", "day")]


class Marked(BaseModel):
    lines: list[MarkedLine] | None = None


class Extra(BaseModel):
    lines: list[Line] = Field(json_schema_extra={"x-key": "sku"})


class Unmarked(BaseModel):
    lines: list[Line]


class Wrong(BaseModel):
    lines: Annotated[list[Line], Key("number")]


def key(model: type[BaseModel]) -> tuple[str, ...]:
    schema = answer_schema(model)["properties"]["lines"]
    item = item_schema(schema)
    assert item is not None
    return key_of(schema, item)


def test_a_model_names_the_key_at_the_list_or_in_the_item() -> None:
    assert key(Named) == ("sku", "day")
    assert key(Marked) == ("sku",)
    assert key(Extra) == ("sku",)
    assert key(Unmarked) == ()


def test_a_json_schema_names_it_by_a_keyword(tmp_path: Path) -> None:
    item = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    marked = {"type": "object", "properties": {"sku": {"type": "string", "x-key": True}}, "required": ["sku"]}
    for at, lines in enumerate(
        [
            {"type": "array", "x-key": "sku", "items": item},
            {"type": "array", "x-key": ["sku"], "items": item},
            {"type": "array", "items": marked},
        ]
    ):
        path = tmp_path / f"bill{at}.json"
        path.write_text(json.dumps({"title": "Bill", "type": "object", "properties": {"lines": lines}}))
        assert key(load_schema(str(path))) == ("sku",)


def test_a_one_line_spec_names_it_by_a_word() -> None:
    assert key(load_schema("number, lines: [{sku key, price: float}]")) == ("sku",)
    assert key(load_schema("lines: [{sku: str? key, day: date key (of delivery), price: float}]?")) == ("sku", "day")
    assert key(load_schema("lines: [{key: str, price: float}]")) == ()


def test_a_key_that_the_items_do_not_have_is_refused_before_any_call() -> None:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out"})
    policy = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1_000, max_output_tokens=1_000)

    with pytest.raises(SchemaError, match=r"lines: .*number.*sku, day"):
        compile_recipe(job, Wrong, policy)
