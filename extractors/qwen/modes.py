"""How structured output is asked for: the request keys of each mode, compiled once per recipe.

The shapes come from instructor's mode handlers, whose client stays out of the loop; the schema inside
them is Quarry's own, with references inlined and fit for strict decoding. Not every handler's words
are used: the prompt is Quarry's in all modes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from extractors.qwen.grammar import compact_grammar
from extractors.qwen.requests import AnswerShape, Mode

_UNENFORCED = ("uniqueItems", "contains", "minContains", "maxContains", "default", "examples", "title")
"""Keywords that hosted models were seen to refuse, or that only cost tokens. Validation still holds them."""


def compile_shape(name: str, schema: Mapping[str, Any], mode: Mode) -> AnswerShape:
    """The answer shape of an object schema (without ``$ref``) in one mode."""
    label = (re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "answer")[:64]
    strict = strict_schema(schema)
    wire: dict[str, Any]
    if mode is Mode.GRAMMAR:
        wire = {"grammar": compact_grammar(strict), "cache_prompt": True}
    elif mode is Mode.PROMPTED:
        wire = {}
    else:
        wire = copy.deepcopy(_handler_keys(mode))
        if mode is Mode.JSON_SCHEMA:
            wire["response_format"]["json_schema"] = {"name": label, "strict": True, "schema": strict}
        elif mode is Mode.TOOLS:
            function = wire["tools"][0]["function"]
            function.update(name=label, description="Give the extracted values.", parameters=strict)
            wire["tool_choice"] = {"type": "function", "function": {"name": label}}
    return AnswerShape(name=label, schema=strict, mode=mode, wire=wire)


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as strict decoders want it: every object closed, every property that may be null
    required, keywords they refuse left out. A property with a default that is not null stays optional."""
    fitted: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _UNENFORCED and not (key == "title" and isinstance(value, Mapping)):
            continue
        if key == "properties":
            fitted[key] = {name: strict_schema(inner) for name, inner in value.items()}
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            fitted[key] = [strict_schema(inner) for inner in value]
        elif isinstance(value, Mapping):
            fitted[key] = strict_schema(value)
        else:
            fitted[key] = value
    properties = fitted.get("properties")
    if properties:
        required = set(schema.get("required", ()))
        fitted["required"] = [
            name for name, inner in properties.items() if name in required or nullable(inner) or _is_list(inner)
        ]
        fitted["additionalProperties"] = False
    return fitted


def nullable(schema: Mapping[str, Any]) -> bool:
    """Whether null is a value of the schema."""
    kind = schema.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind):
        return True
    if "enum" in schema and None in schema["enum"]:
        return True
    return any(nullable(branch) for key in ("anyOf", "oneOf") for branch in schema.get(key, ()))


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" and not schema.get("minItems")


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
