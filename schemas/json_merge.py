"""Merging JSON Schemas that must all hold (``allOf``, ``$ref`` with siblings) into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NOTES = frozenset({"title", "description", "default", "examples", "$comment", "$schema", "$id", "id", "deprecated"})
_HIGHER = frozenset({"minimum", "minLength", "minItems", "minProperties"})
_LOWER = frozenset({"maximum", "maxLength", "maxItems", "maxProperties"})
ALTERNATIVES = ("anyOf", "oneOf", "if", "then", "else", "dependencies", "dependentSchemas")
"""Keywords whose branches may describe further properties."""
ALSO = "x-also"
"""Where a merged schema keeps the alternatives of its second part, for their properties' sake."""
_IGNORED = frozenset({"$defs", "definitions"})


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """One schema for values that both allow, and whether nothing was lost. Where two keywords cannot be
    joined the first one's stays, and the caller must enforce the whole in another way. Notes such as
    ``description`` come from ``first`` where it has them."""
    merged = {key: value for key, value in first.items() if key not in _IGNORED}
    lossless = True
    for key, value in second.items():
        if key in _IGNORED:
            continue
        if key not in merged:
            merged[key] = value
        elif key in _NOTES or merged[key] == value:
            continue
        elif key == "properties":
            merged[key] = _both(merged[key], value)
        elif key == "required":
            merged[key] = list(dict.fromkeys([*merged[key], *value]))
        elif key == "type":
            merged[key] = _common_types(_as_list(merged[key]), _as_list(value))
        elif key == "enum":
            merged[key] = [each for each in merged[key] if each in value]
        elif key in _HIGHER:
            merged[key] = max(merged[key], value)
        elif key in _LOWER:
            merged[key] = min(merged[key], value)
        elif key == "items" and isinstance(merged[key], Mapping) and isinstance(value, Mapping):
            merged[key] = {"allOf": [merged[key], value]}
        elif key == "additionalProperties" and (merged[key] is True or value is True):
            merged[key] = value if merged[key] is True else merged[key]
        else:
            lossless = False
            if key in ALTERNATIVES:
                merged[ALSO] = [*merged.get(ALSO, ()), {key: value}]
    if isinstance(merged.get("additionalProperties"), bool) and not merged["additionalProperties"]:
        # Each side's "no others" looks at its own properties only; the union of both is wider.
        lossless = lossless and ("properties" in first) != ("properties" in second)
    return merged, lossless


def plain_branches(schema: Mapping[str, Any]) -> list[Any]:
    """The branches of ``anyOf``, else of ``oneOf``."""
    branches: Sequence[Any] = schema.get("anyOf") or schema.get("oneOf") or ()
    return list(branches)


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(first)
    for name, schema in second.items():
        known = joined.get(name)
        if known is None or known is True or known == schema:
            joined[name] = schema
        elif schema is False or known is False:
            joined[name] = False
        elif schema is not True:
            joined[name] = {"allOf": [known, schema]}
    return joined


def _common_types(first: list[str], second: list[str]) -> list[str]:
    common = [kind for kind in first if kind in second]
    if "integer" not in common and (
        ("integer" in first and "number" in second) or ("number" in first and "integer" in second)
    ):
        common.append("integer")
    return common


def _as_list(kind: Any) -> list[str]:
    return list(kind) if isinstance(kind, list) else [kind]
