"""An example's answer as a model would write it: which keys there are, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.qwen.fitting import free_fields, may_be_left_out, nullable
from schemas.evidence import Evidence
from schemas.pointers import escape


def in_schema_order(data: Any, schema: Mapping[str, Any], *, omit_nulls: bool) -> Any:
    """An answer as the model would write it: the schema's keys in their order; what is missing and may be null as
    null, or with ``omit_nulls`` nothing that is null or an empty list."""
    if isinstance(data, Mapping):
        own = _of_object(schema, data)
        if not own:
            values = _with(schema, "additionalProperties").get("additionalProperties", {})
            return {name: in_schema_order(value, values, omit_nulls=omit_nulls) for name, value in data.items()}
        return {
            name: in_schema_order(data.get(name), inner, omit_nulls=omit_nulls)
            for name, inner in own["properties"].items()
            if (name in data or nullable(inner))
            and not (omit_nulls and data.get(name) in (None, []) and may_be_left_out(inner))
        }
    if isinstance(data, list):
        return [
            in_schema_order(item, inner, omit_nulls=omit_nulls)
            for item, inner in zip(data, _of_items(schema, len(data)), strict=True)
        ]
    return data


def in_text_order(data: Any, schema: Mapping[str, Any], evidence: Sequence[Evidence]) -> Any:
    """The answer as ``compact_grammar`` has it with ``text_order``: of an object, two or more of whose fields may be left out,
    first those that may not, and then the others by their places in the text, those that have none last. ``evidence`` is
    that of the answer."""
    return _by_places(data, schema, _places(evidence), "")


def _by_places(data: Any, schema: Mapping[str, Any], places: Mapping[str, int], path: str) -> Any:
    under = f"{path}/" if path else ""
    if isinstance(data, list):
        return [
            _by_places(item, inner, places, f"{under}{number}")
            for number, (item, inner) in enumerate(zip(data, _of_items(schema, len(data)), strict=True))
        ]
    if not isinstance(data, Mapping):
        return data
    held = _of_object(schema, data)
    own = held.get("properties") or dict.fromkeys(
        data, _with(schema, "additionalProperties").get("additionalProperties", {})
    )
    paths = {name: f"{under}{escape(name)}" for name in data}
    found = {name: _by_places(value, own[name], places, paths[name]) for name, value in data.items()}
    free = free_fields(held)
    if len(free) < 2:
        return found
    order = {name: (1, places.get(paths[name], math.inf)) if name in free else (0, 0) for name in found}
    return {name: found[name] for name in sorted(found, key=order.__getitem__)}


def _places(evidence: Sequence[Evidence]) -> dict[str, int]:
    """Where the first of each value stands, and of each object and list."""
    places: dict[str, int] = {}
    for one in evidence:
        path = one.path
        while path and one.start is not None:
            places[path] = min(places.get(path, one.start), one.start)
            path = path.rpartition("/")[0]
    return places


def _of_object(schema: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema or the branch of it that an object is an answer of: with its fixed values, without other fields, with all
    that must be there; the first of those that come nearest. An empty one where none has properties."""

    def fit(one: Mapping[str, Any]) -> tuple[bool, bool, int]:
        own = one["properties"]
        fixed = {name: inner.get("enum", [inner["const"]] if "const" in inner else None) for name, inner in own.items()}
        told = all(data[name] in values for name, values in fixed.items() if values is not None and name in data)
        return told, data.keys() <= own.keys(), -sum(name not in data for name in one.get("required", ()))

    return max((one for one in (schema, *_branches(schema)) if one.get("properties")), key=fit, default={})


def _of_items(schema: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """The schema of each of so many items of a list or tuple."""
    tuples = [one["prefixItems"] for one in (schema, *_branches(schema)) if one.get("prefixItems")]
    places = next((one for one in tuples if len(one) == count), tuples[0] if tuples else [])
    rest = _with(schema, "items").get("items", {})
    return [*places[:count], *[rest] * (count - len(places))]


def _with(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The schema or the branch of it that has a mapping under ``key``; an empty one where none has."""
    return next((one for one in (schema, *_branches(schema)) if isinstance(one.get(key), Mapping)), {})


def _branches(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()) if isinstance(branch, Mapping)]
