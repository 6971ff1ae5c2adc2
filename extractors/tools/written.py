"""Calls that a model wrote into its words, where it should have made them: small models do, and so do servers that do
not know a model's way of calling."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from extractors.qwen.requests import ToolCall

_START = re.compile(r"\{\s*\"(?:name|arguments|function)\"")
_MOST = 16


def written_calls(text: str, names: Collection[str]) -> tuple[ToolCall, ...]:
    """``{"name": ..., "arguments": {...}}`` in the text, in fences, tags or bare, of functions that there are."""
    if "{" not in text:
        return ()
    return tuple(
        ToolCall(f"call_{number}", name, json.dumps(arguments, ensure_ascii=False, separators=(",", ":")))
        for number, (name, arguments) in enumerate(_found(text, names))
    )


def _found(text: str, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    at = count = 0
    while count < _MOST and (match := _START.search(text, at)):
        try:
            value, at = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.end()
            continue
        if isinstance(value.get("function"), dict):
            value = value["function"]
        name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
        if isinstance(name, str) and name in names and isinstance(arguments, dict):
            count += 1
            yield name, arguments
