"""The parts of a recipe: which fields are asked window by window, and with which schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from extractors.longtext.begin import begin
from extractors.longtext.parts import has_lists, parts_of
from extractors.packing import packs
from extractors.qwen.requests import ChatReply, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.keys import Key
from schemas.loading import load_schema
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Line(BaseModel):
    sku: str
    qty: int | None = None


class Person(BaseModel):
    name: str


class Order(BaseModel):
    number: str
    lines: Annotated[list[Line] | None, Key("sku")] = Field(default=None, alias="order-lines", max_length=40)
    tags: list[str] = []
    people: list[Person] = Field(min_length=1)


class Plain(BaseModel):
    number: str
    tags: list[str]


def recipe(model: type[BaseModel] = Order, mode: Mode = Mode.PROMPTED, **options: Any) -> Recipe:
    policy = ModelPolicy("fake", mode, None, max_input_tokens=2_000, max_output_tokens=4_000)
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    return compile_recipe(job, model, policy)


def test_lists_of_objects_are_asked_by_windows_and_the_rest_by_itself() -> None:
    parts = parts_of(recipe())

    assert parts is not None and parts.rest is not None
    assert list(parts.rest.shape.schema["properties"]) == ["number", "tags"]
    assert list(parts.window.shape.schema["properties"]) == ["lines_count", "order-lines", "people_count", "people"]
    assert list(parts.gap.shape.schema["properties"]) == ["order-lines", "people"]
    assert [(one.path, one.key) for one in parts.lists] == [("order-lines", ("sku",)), ("people", ())]


def test_limits_of_a_whole_list_are_not_those_of_a_window() -> None:
    parts = parts_of(recipe())

    assert parts is not None
    assert not {"minItems", "maxItems"} & set(parts.window.schema["properties"]["people"])


def test_a_schema_without_lists_of_objects_has_no_parts() -> None:
    assert not has_lists(recipe(Plain)) and parts_of(recipe(Plain)) is None


def test_the_parts_are_compiled_once() -> None:
    compiled = recipe()

    assert parts_of(compiled) is parts_of(compiled)


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_has_its_shapes(mode: Mode) -> None:
    parts = parts_of(recipe(mode=mode))

    assert parts is not None and parts.window.shape.mode is mode


def test_evidence_is_required_of_a_part_s_own_fields() -> None:
    parts = parts_of(recipe(require_evidence=("number", "people")))

    assert parts is not None and parts.rest is not None
    assert (parts.window.require_evidence, parts.rest.require_evidence) == (("people",), ("number",))


def test_the_options_are_part_of_the_recipe_only_where_they_were_chosen() -> None:
    ids = {recipe().id, recipe(count_lists="always").id, recipe(failed_windows="incomplete").id}

    assert len(ids) == 3 and recipe(max_windows=7).id == recipe(count_lists="auto").id == recipe().id


def test_several_lists_with_aliases_are_put_together() -> None:
    text = "Order 7\n\n" + "".join(f"Line: part A{n}, {n} pieces, packed by Person{n}.\n" for n in range(1, 101))
    extraction = begin(recipe(max_output_tokens=600), Record("r", text, content_fingerprint(text)))
    while (request := extraction.next_request()) is not None:
        said = request.messages[-1].content
        there = [n for n in range(1, 101) if f"part A{n}," in said and f"Person{n}." in said]
        answer: dict[str, Any] = {
            "order-lines": [{"sku": f"A{n}", "qty": n} for n in there][:40],
            "people": [{"name": f"Person{n}"} for n in there],
        }
        if "number" in request.shape.schema["properties"]:
            answer = {"number": "7", "tags": []}
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 1, 1), model="fake"))
    outcome = extraction.outcome

    # The limit of 40 lines is the whole list's.
    assert not isinstance(outcome, Extracted) and outcome is not None
    assert "order-lines" in outcome.message
    assert [one["name"] for one in outcome.partial["people"]] == [f"Person{n}" for n in range(1, 101)]


def test_a_json_schema_file_is_cut_into_parts_too(tmp_path: Path) -> None:
    item = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    schema = {
        "title": "Bill",
        "type": "object",
        "properties": {"the lines": {"type": "array", "x-key": "sku", "items": item}, "no.": {"type": "string"}},
        "required": ["the lines", "no."],
    }
    (tmp_path / "bill.json").write_text(json.dumps(schema))
    parts = parts_of(recipe(load_schema(str(tmp_path / "bill.json"))))

    assert parts is not None and parts.rest is not None
    assert [(one.path, one.key) for one in parts.lists] == [("the lines", ("sku",))]
    assert list(parts.rest.shape.schema["properties"]) == ["no."]


def test_a_record_that_is_asked_in_parts_shares_no_call() -> None:
    texts = [f"Order {n}: " + "two of A1 for Ann, " * 50 for n in range(2)]
    records = [Record(text, text, content_fingerprint(text)) for text in texts]

    assert packs(records, recipe(records_per_call=2)) == [(0, 1)]
    assert packs(records, recipe(records_per_call=2, context_tokens=256)) == []
