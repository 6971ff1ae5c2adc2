"""Fields whose value must be a span of the record, word for word.

``Annotated[str, Verbatim()]`` in a model, ``"x-verbatim": true`` beside ``"type": "string"`` in a JSON Schema, or the
type ``verbatim`` in a one-line spec. The record is not at hand when a model is validated, so the extraction holds
the rule, not pydantic; what pydantic changes afterwards (a validator, ``str_strip_whitespace``) is held to it too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from schemas.arrow_types import SchemaMappingError
from schemas.json_merge import plain_branches
from schemas.json_shape import types_named

KEY = "x-verbatim"
"""The keyword in JSON Schema."""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Marks a ``str`` whose value must stand in the record as it is."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _marked(handler(schema))


def is_verbatim(schema: Mapping[str, Any]) -> bool:
    """Whether a string that stands here must be a span of the record."""
    if schema.get(KEY) is True:
        return True
    return any(is_verbatim(branch) for key in ("anyOf", "oneOf", "allOf") for branch in schema.get(key, ()))


def has_verbatim(schema: Any) -> bool:
    """Whether any place of the schema is marked."""
    return any(True for _ in _marks(schema))


def refuse_unheld(flat: Mapping[str, Any], pointer: str) -> None:
    """Raises ``SchemaMappingError`` for a mark in a JSON Schema that is none, or that could not be held to."""
    mark = flat.get(KEY, False)
    if not isinstance(mark, bool):
        raise SchemaMappingError(f"{pointer}: {KEY} is {json.dumps(mark)}, which is neither true nor false")
    if not mark:
        return
    kinds = [kind for kind in types_named(flat) if kind != "null"]
    if "const" in flat or "enum" in flat:
        said = f"{'const' if 'const' in flat else 'enum'} names the values already"
    elif plain_branches(flat) or kinds == ["string"]:
        return
    elif kinds == ["array"]:
        said = "a list is none; put it beside the type of its items"
    else:
        said = f"{' or '.join(kinds) or 'a place of any type'} is none"
    raise SchemaMappingError(f"{pointer}: {KEY} is for plain strings, and {said}")


def _marked(schema: JsonSchemaValue) -> JsonSchemaValue:
    """The schema with its strings marked: itself, those of a union, or the items of a list. Raises
    ``SchemaMappingError`` where there is none."""
    if schema.get("type") == "string" and "format" not in schema and "enum" not in schema:
        return {**schema, KEY: True}
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return {**schema, "items": _marked(schema["items"])}
    if "anyOf" in schema:
        branches = [one if one.get("type") == "null" else _marked(one) for one in schema["anyOf"]]
        return {**schema, "anyOf": branches}
    raise SchemaMappingError(
        f"Verbatim() is for str, list[str] and str | None, not for a field of the kind {schema.get('type', 'object')}: "
        "a span of a record is text"
    )


def _marks(schema: Any) -> Iterator[None]:
    if isinstance(schema, Mapping):
        if schema.get(KEY) is True:
            yield
        for inner in schema.values():
            yield from _marks(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _marks(inner)
