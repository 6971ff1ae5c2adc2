"""How structured output is asked for: the request keys of each mode, compiled once per recipe.

The shapes come from instructor's mode handlers, whose client stays out of the loop; the schema inside
them is Quarry's own, with references inlined and fit for strict decoding. Not every handler's words
are used: the prompt is Quarry's in all modes, and always states the fields, so that a mode can be
exchanged for another without touching the messages.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from extractors.qwen.fitting import SEEN_ACCEPTED, fitted, inlined, nullable
from extractors.qwen.grammar import compact_grammar
from extractors.qwen.requests import AnswerShape, ChatRequest, Message, Mode
from schemas.verbatim import KEY as VERBATIM
from schemas.verbatim import has_verbatim

__all__ = ["compile_shape", "nullable", "with_the_word_json", "within"]

_GRAMMAR_KEYWORDS = (
    *SEEN_ACCEPTED,
    *("const", "oneOf", "prefixItems", "minLength", "maxLength", "format", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    VERBATIM,
)
"""What ``compact_grammar`` reads."""
_WORD = "\nAnswer with one JSON object."
_JSON = re.compile("json", re.IGNORECASE)


def compile_shape(
    name: str,
    schema: Mapping[str, Any],
    mode: Mode,
    *,
    keywords: Sequence[str] = SEEN_ACCEPTED,
    omit_nulls: bool = False,
    text_order: bool = False,
) -> AnswerShape:
    """The answer shape of an object schema in one mode. ``keywords``, of the model's profile, are those that
    its strict mode takes beyond the core of types, properties, enums and unions. ``omit_nulls`` lets a grammar leave
    out what would be null; strict schemas and tools want every property. ``text_order`` lets it write what may be left out
    in any order."""
    label = (re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "answer")[:64]
    whole = inlined(schema)
    wire: dict[str, Any]
    if mode is Mode.GRAMMAR:
        wire = {"grammar": _grammar(whole, omit_nulls=omit_nulls, text_order=text_order), "cache_prompt": True}
    elif mode is Mode.PROMPTED:
        wire = {}
    else:
        wire = copy.deepcopy(_handler_keys(mode))
        if mode is Mode.JSON_SCHEMA:
            wire["response_format"]["json_schema"] = {
                "name": label,
                "strict": True,
                "schema": fitted(whole, keywords),
            }
        elif mode is Mode.TOOLS:
            function = wire["tools"][0]["function"]
            label = "answer" if label == "search" else label  # the service refuses that name
            function.update(name=label, description="Give the extracted values.", parameters=fitted(whole, keywords))
            wire["tool_choice"] = {"type": "function", "function": {"name": label}}
    return AnswerShape(label, whole, mode, wire, omit_nulls=omit_nulls, text_order=text_order, lists=_has_list(whole))


def _has_list(schema: Any) -> bool:
    """Whether a schema without references has a list anywhere."""
    if isinstance(schema, list):
        return any(_has_list(each) for each in schema)
    if not isinstance(schema, Mapping):
        return False
    kind = schema.get("type")
    return kind == "array" or (isinstance(kind, list) and "array" in kind) or any(map(_has_list, schema.values()))


def _grammar(
    schema: Mapping[str, Any], *, omit_nulls: bool, text_order: bool, spans: Mapping[str, str] | None = None
) -> str:
    return compact_grammar(fitted(schema, _GRAMMAR_KEYWORDS, omit_nulls=omit_nulls), spans=spans, text_order=text_order)


def within(shape: AnswerShape, spans: Mapping[str, str]) -> AnswerShape:
    """The shape for one record, whose ``spans`` (``span_grammar.span_rules``) are all that a verbatim string can be.
    The same shape where its mode has no grammar or the record no spans."""
    if shape.mode is not Mode.GRAMMAR or not spans or not has_verbatim(shape.schema):
        return shape
    grammar = _grammar(shape.schema, omit_nulls=shape.omit_nulls, text_order=shape.text_order, spans=spans)
    return replace(shape, wire={**shape.wire, "grammar": grammar})


def with_the_word_json(request: ChatRequest) -> ChatRequest:
    """The request as it may be sent: in ``json_object`` mode the service demands the word JSON, in any case, in a
    system or user message, and refuses the call with a 400 without it. Quarry's prompts have it already."""
    if request.shape.mode is not Mode.JSON_OBJECT or any(_says_json(message) for message in request.messages):
        return request
    first, *rest = request.messages
    if first.role == "system":
        return replace(request, messages=(replace(first, content=first.content + _WORD), *rest))
    return replace(request, messages=(Message("system", _WORD.strip()), *request.messages))


def _says_json(message: Message) -> bool:
    return message.role in ("system", "user") and _JSON.search(message.content) is not None


@cache
def _handler_keys(mode: Mode) -> dict[str, Any]:
    """The request keys that instructor's handler adds for a mode, with a placeholder model inside."""
    from instructor import Mode as InstructorMode
    from instructor import Provider
    from instructor.v2.core.registry import mode_registry
    from pydantic import BaseModel

    class Answer(BaseModel):
        """Placeholder; its schema is replaced."""

    modes = {
        Mode.JSON_SCHEMA: InstructorMode.JSON_SCHEMA,
        Mode.JSON_OBJECT: InstructorMode.JSON,
        Mode.TOOLS: InstructorMode.TOOLS,
    }
    handlers = mode_registry.get_handlers(Provider.OPENAI, modes[mode])
    _, keys = handlers.request_handler(Answer, {"messages": [{"role": "user", "content": "json"}]})
    return {key: value for key, value in keys.items() if key != "messages"}
