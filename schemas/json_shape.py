"""Small questions about a JSON Schema (which types, which limits) and names for what is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from pydantic import BaseModel

from schemas.arrow_types import RESERVED
from schemas.json_merge import plain_branches

_OBJECT_WORDS = (
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "minProperties",
    "maxProperties",
)


def types_named(flat: Mapping[str, Any]) -> list[str]:
    """The JSON types a schema allows, by its ``type`` or else by the keywords it uses; empty: any."""
    kind = flat.get("type")
    if isinstance(kind, str):
        return [kind]
    if isinstance(kind, list):
        return list(dict.fromkeys(kind))
    if any(key in flat for key in _OBJECT_WORDS):
        return ["object"]
    if "items" in flat or "prefixItems" in flat:
        return ["array"]
    if any(key in flat for key in ("pattern", "minLength", "maxLength", "format")):
        return ["string"]
    if any(key in flat for key in ("minimum", "maximum", "multipleOf")):
        return ["number"]
    return []


def has_type(flat: Mapping[str, Any]) -> bool:
    """Whether a schema says what type its values are."""
    if "enum" in flat or "const" in flat or "properties" in flat or "items" in flat:
        return True
    if "type" in flat:
        return True
    return bool(plain_branches(flat)) or bool(set(types_named(flat)) - {"object"})


def is_object(flat: Mapping[str, Any]) -> bool:
    """Whether a schema's values are objects, or null."""
    return [kind for kind in types_named(flat) if kind != "null"] == ["object"]


def json_type(value: Any, kinds: Sequence[str]) -> bool:
    """Whether a JSON value is of one of the JSON types."""
    if value is None:
        return "null" in kinds
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int):
        return "integer" in kinds or "number" in kinds
    if isinstance(value, float):
        return "number" in kinds or ("integer" in kinds and value.is_integer())
    names: dict[Any, str] = {str: "string", list: "array", dict: "object"}
    return names[type(value)] in kinds


def extra_keys(flat: Mapping[str, Any]) -> Literal["forbid", "ignore"]:
    """Keys that only a pattern allows have no field, but they are not forbidden."""
    closed = flat.get("additionalProperties") is False and not flat.get("patternProperties")
    return "forbid" if closed else "ignore"


def length_limits(flat: Mapping[str, Any], **words: str) -> dict[str, Any]:
    """Pydantic's options for the length keywords that a schema has."""
    return {option: int(flat[keyword]) for keyword, option in words.items() if keyword in flat}


def union_of(kinds: Sequence[Any]) -> Any:
    """The union of annotations that are made at run time, its members in one order whatever the order given.

    ``typing`` remembers the unions it made, and takes ``A | B`` for ``B | A``: without an order of our own a
    schema's columns would depend on what else the process has loaded before."""
    return Union[tuple(sorted(kinds, key=lambda kind: (kind in (None, type(None)), repr(kind))))]  # noqa: UP007


def class_name(text: str) -> str:
    """A class name from a title, a file name or a property; "" when there is no letter or digit."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name and not name[0].isdigit() else (f"Schema{name}" if name else "")


def field_name(key: str, used: set[str]) -> str:
    """The property's own name where Python, pydantic and DuckDB allow it; a close one otherwise."""
    name = re.sub(r"\W+", "_", key).lstrip("_")
    if not name or not name.isidentifier():
        name = f"field_{name}".rstrip("_")
    if name.startswith("model_") and hasattr(BaseModel, name):
        name += "_"
    candidate, number = name, 2
    if candidate.lower() in RESERVED and candidate.lower() in used:
        candidate = name = f"{name}_"
    while candidate.lower() in used:
        candidate, number = f"{name}_{number}", number + 1
    used.add(candidate.lower())
    return candidate


def anchored(node: Any, name: str) -> Any:
    """The schema inside ``node`` that calls itself ``#name``, or None."""
    if isinstance(node, Mapping):
        if node.get("$anchor") == name or f"#{name}" in (node.get("$id"), node.get("id")):
            return node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        found = anchored(child, name)
        if found is not None:
            return found
    return None
