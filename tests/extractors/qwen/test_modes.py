"""The request keys of each structured-output mode."""

from __future__ import annotations

from typing import Any

import pytest

from extractors.prompting import Prompter, load_texts
from extractors.qwen.modes import compile_shape, with_the_word_json
from extractors.qwen.requests import ChatRequest, Message, Mode

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"code": {"type": "string", "pattern": "^K"}, "price": {"type": ["number", "null"]}},
    "required": ["code"],
}
STRICT = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "matches the pattern ^K"},
        "price": {"type": ["number", "null"]},
    },
    "required": ["code", "price"],
    "additionalProperties": False,
}


def ask(mode: Mode, *messages: Message) -> ChatRequest:
    return ChatRequest("qwen-plus", messages, compile_shape("Offer", SCHEMA, mode))


@pytest.mark.parametrize(
    ("mode", "wire"),
    [
        (
            Mode.JSON_SCHEMA,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "Offer", "strict": True, "schema": STRICT},
                }
            },
        ),
        (Mode.JSON_OBJECT, {"response_format": {"type": "json_object"}}),
        (Mode.PROMPTED, {}),
    ],
)
def test_each_mode_has_its_keys(mode: Mode, wire: dict[str, Any]) -> None:
    assert compile_shape("Offer", SCHEMA, mode).wire == wire


def test_tools_forces_one_named_function() -> None:
    wire = compile_shape("Offer of the day", SCHEMA, Mode.TOOLS).wire
    [tool] = wire["tools"]
    assert tool["function"]["parameters"] == STRICT
    assert tool["function"]["name"] == "Offer_of_the_day"
    assert wire["tool_choice"] == {"type": "function", "function": {"name": "Offer_of_the_day"}}


def test_a_function_is_not_called_by_the_name_that_the_service_refuses() -> None:
    assert compile_shape("search", SCHEMA, Mode.TOOLS).wire["tools"][0]["function"]["name"] == "answer"


def test_the_embedded_grammar_keeps_what_it_can_hold() -> None:
    schema = {"properties": {"x": {"type": "string", "minLength": 2, "maxLength": 3}}, "required": ["x"]}
    assert "{2,3}" in compile_shape("X", schema, Mode.GRAMMAR).wire["grammar"]


def test_a_shape_can_be_compiled_again_for_another_mode_without_loss() -> None:
    schema = {"properties": {"x": {"type": "string", "maxLength": 3}}, "required": ["x"]}
    shape = compile_shape("X", schema, Mode.JSON_SCHEMA)
    assert shape.schema == schema
    assert compile_shape(shape.name, shape.schema, Mode.GRAMMAR) == compile_shape("X", schema, Mode.GRAMMAR)


def test_every_prompt_of_ours_has_the_word_that_json_object_mode_demands() -> None:
    prompter = Prompter(load_texts(), SCHEMA, instructions="")
    assert "json" in prompter.system.content.lower()
    request = ask(Mode.JSON_OBJECT, *prompter.extract("a record", code="x"))
    assert with_the_word_json(request) is request


@pytest.mark.parametrize(
    "messages",
    [(Message("system", "Be brief."), Message("user", "Read this.")), (Message("user", "Read this."),)],
)
def test_any_other_prompt_is_given_the_word_in_its_system_message(messages: tuple[Message, ...]) -> None:
    sent = with_the_word_json(ask(Mode.JSON_OBJECT, *messages))
    assert "JSON" in sent.messages[0].content
    assert sent.messages[0].role == "system"
    assert sent.messages[-1] == messages[-1]


def test_the_other_modes_need_no_word() -> None:
    request = ask(Mode.JSON_SCHEMA, Message("user", "Read this."))
    assert with_the_word_json(request) is request
