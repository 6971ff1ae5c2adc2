"""Which branches of a schema's unions a value is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema.validators import Draft202012Validator

from schemas.json_shape import json_type, types_named
from schemas.jsonschema import children
from schemas.pointers import split

_UNIONS = ("anyOf", "oneOf")


def subschemas_of(schema: Mapping[str, Any], data: Any, path: str) -> list[dict[str, Any]]:
    """The schemas at ``path`` that plain JSON ``data`` is held to there: of a union's branches those that the value
    fits, by type and constants, and of several such those that it validates against. Where it fits none, all count.

    Raises ``KeyError`` for a path that the data or the schema does not have.
    """
    found = _fitting(schema, data)
    for step in split(path):
        data = _member(data, step, path)
        found = [one for outer in found for inner in children(outer, step) for one in _fitting(inner, data)]
    if not found:
        raise KeyError(path)
    return found


def _fitting(schema: Mapping[str, Any], value: Any) -> list[dict[str, Any]]:
    """The schema, its unions narrowed to branches that ``value`` fits."""
    key = next((key for key in _UNIONS if key in schema), None)
    if key is None:
        return [dict(schema)]
    around = {name: inner for name, inner in schema.items() if name != key}
    fitting = [branch for branch in schema[key] if _agrees(branch, value)]
    if len(fitting) > 1:
        # Pydantic's lax reading may take what no branch validates strictly.
        fitting = [branch for branch in fitting if Draft202012Validator(branch).is_valid(value)] or fitting
    return [one for branch in fitting or schema[key] for one in _fitting({**around, **branch}, value)]


def _agrees(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is of a type that the schema names, and has the constants that tell its branch from others."""
    kinds = types_named(schema)
    if (kinds and not json_type(value, kinds)) or not _is_allowed(schema, value):
        return False
    if isinstance(value, Mapping):
        properties: Mapping[str, Any] = schema.get("properties", {})
        if not all(_is_allowed(inner, value[name]) for name, inner in properties.items() if name in value):
            return False
    return all(any(_agrees(branch, value) for branch in schema[key]) for key in _UNIONS if key in schema)


def _is_allowed(schema: Mapping[str, Any], value: Any) -> bool:
    return value in schema.get("enum", (value,)) and value == schema.get("const", value)


def _member(data: Any, step: str, path: str) -> Any:
    if isinstance(data, Mapping) and step in data:
        return data[step]
    if isinstance(data, list) and step.isdigit() and int(step) < len(data):
        return data[int(step)]
    raise KeyError(path)
