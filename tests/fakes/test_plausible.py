"""Answers made from a request's schema have its types, whatever the mode."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from extractors.prompting import describe
from schemas.jsonschema import answer_schema
from schemas.receipt import Receipt
from schemas.ticket import Ticket
from tests.fakes.asked import Asked, read
from tests.fakes.plausible import Plausible
from tests.fakes.schema_texts import schema_in

RECORD = "=== RECORD ab12\nMail mira@fernhill.example. Order 17 of 2026-03-05 costs 48.60 euros.\n=== END ab12"

EVERYTHING = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 8},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "on": {"type": "string", "format": "date"},
        "count": {"type": "integer", "minimum": 5, "maximum": 20},
        "price": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "kind": {"enum": ["a", "b"]},
        "fixed": {"const": 3},
        "flag": {"type": "boolean"},
        "maybe": {"type": ["string", "null"]},
        "lines": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/line"}},
        "more": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["name", "currency", "on", "count", "price", "kind", "fixed", "flag", "maybe", "lines", "more"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
}


def question(schema: dict[str, Any] | None, *, system: str = "Give JSON.", record: str = RECORD, **more: Any) -> Asked:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": record}]
    body: dict[str, Any] = {"model": "qwen3.7-plus", "messages": messages, **more}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return read("chat", body, {})


def answer(asked: Asked, seed: int = 0) -> Any:
    return json.loads(Plausible(seed)(asked).text or "")


@given(st.integers())
@settings(max_examples=30, deadline=None)
def test_every_answer_has_the_types_of_the_schema(seed: int) -> None:
    Draft202012Validator(EVERYTHING).validate(answer(question(EVERYTHING), seed))


def test_the_same_seed_gives_the_same_answer_and_another_one_another() -> None:
    found = [answer(question(EVERYTHING), seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_values_are_taken_from_the_record() -> None:
    schema = {
        "type": "object",
        "properties": {
            "contact_email": {"type": "string"},
            "on": {"type": "string", "format": "date"},
            "total": {"type": "number"},
            "words": {"type": "string"},
        },
    }
    found = answer(question(schema))
    assert (found["contact_email"], found["on"]) == ("mira@fernhill.example", "2026-03-05")
    assert found["total"] in (17, 2026, 48.6)
    assert found["words"] in RECORD


def test_a_tool_s_parameters_and_a_schema_in_the_prompt_do_as_well() -> None:
    schema = {"type": "object", "properties": {"flag": {"type": "boolean"}}}
    tools = [{"type": "function", "function": {"name": "give", "parameters": schema}}]
    assert isinstance(answer(question(None, tools=tools))["flag"], bool)
    assert isinstance(answer(question(None, system=f"Answer as {json.dumps(schema)}, please."))["flag"], bool)


@pytest.mark.parametrize("model", [Ticket, Receipt])
def test_the_fields_that_the_prompt_lists_are_understood(model: Any) -> None:
    schema = answer_schema(model)
    found = schema_in(describe(schema))
    assert found is not None
    assert list(found["properties"]) == list(schema["properties"])
    assert set(answer(question(None, system=describe(schema)))) == set(schema["properties"])


def test_fields_below_a_field_belong_to_it() -> None:
    listed = '- "shop": string\n- "lines": list of object  # one a line\n  - "price": number or null\n- "paid": true or false'
    assert schema_in(listed) == {
        "type": "object",
        "properties": {
            "shop": {"type": "string"},
            "lines": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"price": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
                },
            },
            "paid": {"type": "boolean"},
        },
    }


def test_without_a_schema_it_answers_in_words() -> None:
    assert Plausible()(question(None)).text.endswith(".")


def test_a_model_that_thinks_says_what_it_thought() -> None:
    assert Plausible()(question(EVERYTHING)).thinking
    assert Plausible()(question(EVERYTHING, enable_thinking=False)).thinking is None
