"""The shape of a row's values: which column is which key of the answer, how a value is shown, what a choice is.

Columns have the fields' names, evidence has the paths of the JSON answer; both come in the order of the model's
fields, which is how they are brought together here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa

from extractors.second_look import is_choice
from schemas.pointers import escape

Kind = Literal[
    "text", "number", "bool", "date", "instant", "time", "duration", "bytes", "json", "list", "object", "map", "union"
]


@dataclass(frozen=True, slots=True)
class Shape:
    """A column, or a part of one. ``members`` are (key in the answer, name in the column, shape); a list has one,
    of the key ``*``, a map one of its values. ``choice``: picked from a fixed set rather than copied."""

    kind: Kind
    choice: bool = False
    description: str = ""
    members: tuple[tuple[str, str, Shape], ...] = ()

    @property
    def item(self) -> Shape:
        """What a list or a map holds."""
        return self.members[0][2]

    def choices(self, path: str) -> Iterator[str]:
        """The paths of the choices at or below ``path``, in which ``*`` stands for any place or key."""
        if self.choice:
            yield path
        for key, _, inner in self.members:
            yield from inner.choices(path if self.kind == "union" else f"{path}/{escape(key)}")


def row_shapes(columns: pa.Schema, schema: Mapping[str, Any]) -> dict[str, tuple[str, Shape]]:
    """The (key, shape) of each of the schema's columns, by the column's name."""
    return {name: (key, inner) for key, name, inner in _members(list(columns), schema)}


def shape_of(kind: pa.DataType, schema: Mapping[str, Any]) -> Shape:
    """The shape of a column of an Arrow type that holds what a JSON Schema describes."""
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()) if branch.get("type") != "null"]
    choice = is_choice(schema)
    description = str(schema.get("description") or "")
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        if len(branches) > 1 and fields and fields[0].name == "kind":
            members = tuple(("", one.name, shape_of(one.type, _branch(branches, one.type))) for one in fields[1:])
            return Shape("union", description=description, members=members)
        return Shape("object", description=description, members=_members(fields, _whole(schema, branches)))
    inner = _whole(schema, branches)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = shape_of(kind.value_type, _mapping(inner.get("items")))
        return Shape("list", description=description, members=(("*", "", item),))
    if pa.types.is_map(kind):
        item = shape_of(kind.item_type, _mapping(inner.get("additionalProperties")))
        return Shape("map", description=description, members=(("*", "", item),))
    return Shape(_scalar(kind, schema), choice=choice, description=description)


def encoded(value: Any, shape: Shape) -> Any:
    """A value as JSON that JavaScript cannot bend: text, booleans and null as they are, else ``[tag, ...]`` with
    ``n`` number and ``d`` date (as text), ``l`` list, ``o`` object as pairs of key and value."""
    if value is None or isinstance(value, bool):
        return value
    if shape.kind == "list":
        return ["l", [encoded(one, shape.item) for one in value]]
    if shape.kind == "map":
        pairs = value.items() if isinstance(value, Mapping) else value
        return ["o", [[str(key), encoded(one, shape.item)] for key, one in pairs]]
    if shape.kind == "object":
        return ["o", [[key, encoded(value.get(name), inner)] for key, name, inner in shape.members]]
    if shape.kind == "union":
        found = [(value.get(name), inner) for _, name, inner in shape.members if value.get(name) is not None]
        return encoded(*found[0]) if found else None
    if shape.kind == "duration":
        return ["d", str(value if isinstance(value, timedelta) else timedelta(microseconds=int(value)))]
    if shape.kind == "number":
        return ["n", format(value, "f") if not isinstance(value, int | float) else str(value)]
    if isinstance(value, bytes):
        return ["d", base64.b64encode(value).decode()]
    if isinstance(value, str):
        return value
    return ["d", value.isoformat() if hasattr(value, "isoformat") else str(value)]


def is_empty(value: Any) -> bool:
    """Whether an encoded value says nothing: null, an empty list or object, or blank text."""
    return value is None or value in (["l", []], ["o", []]) or (isinstance(value, str) and not value.strip())


def preview(values: Sequence[Any]) -> str:
    """The first values of a row in one line."""
    shown = []
    for value in values:
        if is_empty(value):
            continue
        if isinstance(value, list):
            tag, inner = value
            items = f"{len(inner)} item" if len(inner) == 1 else f"{len(inner)} items"
            text = items if tag == "l" else "{…}" if tag == "o" else str(inner)
        else:
            text = str(value).lower() if isinstance(value, bool) else value
        shown.append(" ".join(text[:80].split()))
        if sum(map(len, shown)) > 110:
            break
    return " · ".join(shown)[:140]


def _members(fields: Sequence[pa.Field], schema: Mapping[str, Any]) -> tuple[tuple[str, str, Shape], ...]:
    properties = schema.get("properties", {})
    if not properties and "prefixItems" in schema:
        properties = {str(number): one for number, one in enumerate(schema["prefixItems"])}
    keys = list(properties) if len(properties) == len(fields) else [field.name for field in fields]
    return tuple(
        (key, field.name, _described(shape_of(field.type, _mapping(properties.get(key))), field))
        for key, field in zip(keys, fields, strict=True)
    )


def _described(shape: Shape, field: pa.Field) -> Shape:
    note = (field.metadata or {}).get(b"description")
    if note is None:
        return shape
    return Shape(shape.kind, choice=shape.choice, description=note.decode(), members=shape.members)


def _whole(schema: Mapping[str, Any], branches: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schema of what is not null."""
    return branches[0] if len(branches) == 1 and "properties" not in schema else schema


def _branch(branches: Sequence[Mapping[str, Any]], kind: pa.DataType) -> Mapping[str, Any]:
    if not pa.types.is_struct(kind):
        return {}
    return next((one for one in branches if len(one.get("properties", {})) == kind.num_fields), {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _scalar(kind: pa.DataType, schema: Mapping[str, Any]) -> Kind:
    checks: tuple[tuple[Any, Kind], ...] = (
        (pa.types.is_boolean, "bool"),
        (pa.types.is_integer, "number"),
        (pa.types.is_floating, "number"),
        (pa.types.is_decimal, "number"),
        (pa.types.is_date, "date"),
        (pa.types.is_timestamp, "instant"),
        (pa.types.is_time, "time"),
        (pa.types.is_duration, "duration"),
        (pa.types.is_binary, "bytes"),
    )
    for check, name in checks:
        if check(kind):
            return name
    typed = {"type", "enum", "const", "anyOf", "oneOf"} & schema.keys()
    return "text" if typed or pa.types.is_dictionary(kind) else "json"
