"""What tells the items of a list apart, where the schema names it.

``Annotated[list[Item], Key("sku")]`` on a list (or ``Annotated[str, Key()]`` on the field inside of the item) in a model,
``"x-key": "sku"`` beside ``"type": "array"`` (or ``"x-key": true`` in the item's property) in a JSON Schema, or ``key`` after a
field of the item in a one-line spec: ``items: [{sku key, price: float}]``. Two items with the same key are one item, which
counts when a list is put together from parts of a long record. Nothing is checked of a list that was answered whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from schemas.arrow_types import SchemaMappingError

KEY = "x-key"
"""The keyword in JSON Schema."""


class Key:
    """Marks a list of objects by the names (as in the JSON answer) of the fields that make its items' key; without names,
    marks such a field itself."""

    __slots__ = ("names",)

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), KEY: list(self.names) if self.names else True}


def key_named(told: Any) -> Key | None:
    """The mark that a JSON Schema's keyword stands for, None for anything else than names or true."""
    if told is True:
        return Key()
    if isinstance(told, str):
        return Key(told)
    if isinstance(told, list) and told and all(isinstance(name, str) for name in told):
        return Key(*told)
    return None


def item_schema(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a list's items where they are objects with fields, else None."""
    branches = [schema, *(branch for way in ("anyOf", "oneOf") for branch in schema.get(way, ()))]
    for branch in branches:
        items = branch.get("items")
        if branch.get("type") == "array" and isinstance(items, Mapping) and items.get("properties"):
            return items
    return None


def key_of(schema: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the fields that make the key of a list's items; none where the schema names none. ``schema`` is the
    list's, ``item`` that of its items. Raises ``SchemaMappingError`` for a field that the items do not have."""
    names = next((mark.names for mark in _marks(schema) if mark.names), ())
    properties = item.get("properties", {})
    unknown = [name for name in names if name not in properties]
    if unknown:
        raise SchemaMappingError(
            f"the key of a list names {', '.join(unknown)}, which its items do not have; their fields are "
            f"{', '.join(properties)}"
        )
    return names or tuple(name for name, each in properties.items() if any(not mark.names for mark in _marks(each)))


def _marks(schema: Mapping[str, Any]) -> Iterator[Key]:
    """The marks of a place and of the branches of its union."""
    mark = key_named(schema.get(KEY))
    if mark is not None:
        yield mark
    for branch in (branch for way in ("anyOf", "oneOf", "allOf") for branch in schema.get(way, ())):
        yield from _marks(branch)
