"""The JSON Schema that a prompt tells in words: a schema written out, or a list of fields with their types."""

from __future__ import annotations

import json
import re
from typing import Any

Schema = dict[str, Any]

_FIELD = re.compile(r'^(?P<indent> *)- (?P<name>"(?:[^"\\]|\\.)*"): (?P<words>.+?)(?:  # .*)?$', re.MULTILINE)
_FORMATS = {"date YYYY-MM-DD": "date", "date-time ISO 8601": "date-time", "time HH:MM:SS": "time"}


def schema_in(text: str) -> Schema | None:
    """The schema of an object that the text describes, or None."""
    return _written_out(text) or _listed(text)


def _written_out(text: str) -> Schema | None:
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, found.start())
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            return value
    return None


def _listed(text: str) -> Schema | None:
    """Read ``- "name": type`` lines; deeper ones belong to the object above them."""
    root: Schema = {"type": "object", "properties": {}}
    above: list[tuple[int, Schema]] = [(-1, root)]
    for line in _FIELD.finditer(text):
        indent = len(line["indent"])
        while above[-1][0] >= indent:
            above.pop()
        schema = of_words(line["words"])
        owner = _object_in(above[-1][1])
        owner.setdefault("properties", {})[json.loads(line["name"])] = schema
        above.append((indent, schema))
    return root if root["properties"] else None


def of_words(words: str) -> Schema:
    """The schema of a type in words, such as ``list of number or null``."""
    if words.endswith(" or null"):
        return {"anyOf": [of_words(words.removesuffix(" or null")), {"type": "null"}]}
    if words.startswith("one of "):
        try:
            return {"enum": json.loads(f"[{words.removeprefix('one of ')}]")}
        except ValueError:
            return {"type": "string"}
    if words.startswith("list of "):
        return {"type": "array", "items": of_words(words.removeprefix("list of "))}
    if words.startswith("object of name to "):
        return {"type": "object", "additionalProperties": of_words(words.removeprefix("object of name to "))}
    if words in _FORMATS:
        return {"type": "string", "format": _FORMATS[words]}
    if words.endswith(" string"):
        return {"type": "string", "format": words.removesuffix(" string")}
    if words in ("integer", "number", "object", "null"):
        return {"type": words}
    if words == "true or false":
        return {"type": "boolean"}
    if " or " in words:
        return {"anyOf": [of_words(one) for one in words.split(" or ")]}
    return {"type": "array"} if words == "list" else {"type": "string"}


def _object_in(schema: Schema) -> Schema:
    """The object inside of a union or a list whose fields come below it."""
    for branch in schema.get("anyOf", ()):
        if branch.get("type") != "null":
            return _object_in(branch)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            return _object_in(schema[key])
    return schema
