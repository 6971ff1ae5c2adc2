"""Columns: how values of one Python type become an Arrow array and come back equal.

A column handles a whole list of values at once (``None`` is null everywhere), so that the work for one
record is a few list comprehensions and Arrow's own conversion. Nested columns split their values into
their children's lists. Nothing here knows pydantic's annotations; see ``schemas.arrow_types``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from schemas.arrow_limits import Verdict
from schemas.outcomes import FieldProblem
from schemas.pointers import escape

_MOST_TEXT = 400


class Column(ABC):
    """One Arrow type and the Python values it holds. ``name`` is a short word for it, used to name
    union branches."""

    arrow: pa.DataType
    name: str

    @abstractmethod
    def encode(self, values: list[Any]) -> pa.Array:
        """An array of ``self.arrow`` with ``len(values)`` entries."""

    @abstractmethod
    def decode(self, array: pa.Array) -> list[Any]:
        """The values that were encoded, equal to them."""

    @abstractmethod
    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        """Add a problem for each part of a value (not None) that the array could not hold exactly."""

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether a validated value (not None) is of this column's Python type."""


class Scalar(Column):
    """A leaf. ``to_cell`` and ``from_cell`` convert between the Python value and what Arrow takes;
    ``verdict`` judges a value of the right type."""

    def __init__(
        self,
        name: str,
        arrow: pa.DataType,
        *,
        accepts: Callable[[Any], bool],
        to_cell: Callable[[Any], Any] | None = None,
        from_cell: Callable[[Any], Any] | None = None,
        verdict: Callable[[Any], Verdict] | None = None,
    ) -> None:
        self.name = name
        self.arrow = arrow
        self._accepts = accepts
        self._to_cell = to_cell
        self._from_cell = from_cell
        self._verdict = verdict

    def encode(self, values: list[Any]) -> pa.Array:
        convert = self._to_cell
        cells = values if convert is None else [None if value is None else convert(value) for value in values]
        return pa.array(cells, type=self.arrow)

    def decode(self, array: pa.Array) -> list[Any]:
        cells: list[Any] = array.to_pylist()
        convert = self._from_cell
        return cells if convert is None else [None if cell is None else convert(cell) for cell in cells]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if not self._accepts(value):
            problems.append(_wrong_type(self, value, path))
        elif self._verdict is not None and (verdict := self._verdict(value)) is not None:
            problems.append(FieldProblem(path, *verdict, shown(value)))

    def accepts(self, value: Any) -> bool:
        return self._accepts(value)


class Choice(Column):
    """A closed list of values: text cells as a dictionary column, all-int, all-float and all-bool cells
    as plain numbers. ``plain`` keeps text out of a dictionary (map keys)."""

    def __init__(self, name: str, values: Sequence[Any], cells: Sequence[Any], *, plain: bool = False) -> None:
        self.name = name
        self._values = tuple(values)
        self._cells = tuple(cells)
        kinds = {type(cell) for cell in cells}
        self._dictionary: pa.Array | None = None
        if kinds == {str}:
            self.arrow = pa.string() if plain else pa.dictionary(pa.int32(), pa.string())
            if not plain:
                self._dictionary = pa.array(self._cells, pa.string())
        else:
            self.arrow = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[kinds.pop()]
        # 1, True and 1.0 are one dict key, so the type takes part.
        self._index = {(type(value), value): number for number, value in enumerate(self._values)}
        self._back = dict(zip(self._cells, self._values, strict=True))

    def encode(self, values: list[Any]) -> pa.Array:
        index = self._index
        numbers = [None if value is None else index[type(value), value] for value in values]
        if self._dictionary is not None:
            return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), self._dictionary)
        cells = self._cells
        return pa.array([None if number is None else cells[number] for number in numbers], self.arrow)

    def decode(self, array: pa.Array) -> list[Any]:
        back = self._back
        return [None if cell is None else back[cell] for cell in array.to_pylist()]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if not self.accepts(value):
            listed = ", ".join(json.dumps(cell) for cell in self._cells)
            problems.append(FieldProblem(path, "enum", f"must be one of {listed}", shown(value)))

    def accepts(self, value: Any) -> bool:
        try:
            return (type(value), value) in self._index
        except TypeError:
            return False


class Struct(Column):
    """A struct of named members; see ``ModelColumn`` and ``TupleColumn`` for what it is in Python."""

    def __init__(self, name: str, fields: Sequence[pa.Field], columns: Sequence[Column]) -> None:
        self.name = name
        self.fields = tuple(fields)
        # A null struct has null members, which Parquet would refuse for a required member.
        self._fields = [field.with_nullable(True) for field in fields]
        self.columns = tuple(columns)
        self.arrow = pa.struct(self._fields)

    def assemble(self, members: list[list[Any]], present: Iterable[bool]) -> pa.Array:
        """The struct array of the members' values; ``present`` is False where the struct is null."""
        arrays = [column.encode(values) for column, values in zip(self.columns, members, strict=True)]
        mask = pa.array([not each for each in present], pa.bool_())
        return pa.StructArray.from_arrays(arrays, fields=self._fields, mask=mask)

    def members(self, array: pa.Array) -> list[list[Any]]:
        """The members' values, garbage where the struct is null."""
        return [column.decode(array.field(number)) for number, column in enumerate(self.columns)]


class ModelColumn(Struct):
    """A pydantic model, or a RootModel of one field, as a struct. ``keys`` are the JSON keys of its
    fields (alias or name), used in problem paths."""

    def __init__(
        self,
        model: type[BaseModel],
        names: Sequence[str],
        keys: Sequence[str],
        *,
        fields: Sequence[pa.Field],
        columns: Sequence[Column],
    ) -> None:
        super().__init__(model.__name__, fields, columns)
        self.model = model
        self._names = tuple(names)
        self._keys = tuple(escape(key) for key in keys)
        self._triples = tuple(zip(self._names, self._keys, self.columns, strict=True))

    def split(self, values: Sequence[BaseModel]) -> list[list[Any]]:
        """Each field's values, of models that are all there."""
        rows = [value.__dict__ for value in values]
        return [[row[name] for row in rows] for name in self._names]

    def join(self, members: Sequence[Sequence[Any]]) -> list[BaseModel]:
        """Models from each field's values, without validating again: they were valid when encoded."""
        names = self._names
        return [revive(self.model, dict(zip(names, row, strict=True))) for row in zip(*members, strict=True)]

    def encode(self, values: list[Any]) -> pa.Array:
        rows = [None if value is None else value.__dict__ for value in values]
        members = [[None if row is None else row[name] for row in rows] for name in self._names]
        return self.assemble(members, (row is not None for row in rows))

    def decode(self, array: pa.Array) -> list[Any]:
        valid = array.is_valid().to_pylist()
        return [each if there else None for each, there in zip(self.join(self.members(array)), valid, strict=True)]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if not self.accepts(value):
            problems.append(_wrong_type(self, value, path))
            return
        self.check_fields(value, f"{path}/", problems)

    def check_fields(self, value: BaseModel, prefix: str, problems: list[FieldProblem]) -> None:
        """Check every field; ``prefix`` is "" or ends in "/"."""
        row = value.__dict__
        for name, key, column in self._triples:
            inner = row[name]
            if inner is not None:
                column.check(inner, prefix + key, problems)

    def accepts(self, value: Any) -> bool:
        return type(value) is self.model


class RootColumn(Column):
    """A RootModel: stored as its root alone."""

    def __init__(self, model: type[BaseModel], inner: Column) -> None:
        self.name = model.__name__
        self.arrow = inner.arrow
        self._model = model
        self._inner = inner

    def encode(self, values: list[Any]) -> pa.Array:
        return self._inner.encode([None if value is None else value.root for value in values])

    def decode(self, array: pa.Array) -> list[Any]:
        roots = self._inner.decode(array)
        return [None if root is None else revive(self._model, {"root": root}) for root in roots]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if self.accepts(value):
            self._inner.check(value.root, path, problems)
        else:
            problems.append(_wrong_type(self, value, path))

    def accepts(self, value: Any) -> bool:
        return type(value) is self._model


class TupleColumn(Struct):
    """A tuple of fixed, mixed types as a struct ``item_1, item_2, ...``."""

    def __init__(self, columns: Sequence[Column]) -> None:
        fields = [pa.field(f"item_{number}", column.arrow) for number, column in enumerate(columns, 1)]
        super().__init__("tuple", fields, columns)

    def encode(self, values: list[Any]) -> pa.Array:
        width = range(len(self.columns))
        members = [[None if value is None else value[number] for value in values] for number in width]
        return self.assemble(members, (value is not None for value in values))

    def decode(self, array: pa.Array) -> list[Any]:
        valid = array.is_valid().to_pylist()
        rows = zip(*self.members(array), strict=True)
        return [row if there else None for row, there in zip(rows, valid, strict=True)]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if type(value) is not tuple or len(value) != len(self.columns):
            problems.append(_wrong_type(self, value, path))
            return
        for number, (inner, column) in enumerate(zip(value, self.columns, strict=True)):
            if inner is not None:
                column.check(inner, f"{path}/{number}", problems)

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) == len(self.columns)
            and all(item is None or column.accepts(item) for item, column in zip(value, self.columns, strict=True))
        )


class ListColumn(Column):
    """A list, tuple of one type, set or frozenset. Sets are written in sorted order, so that equal sets
    give equal bytes."""

    def __init__(self, container: Callable[[Iterable[Any]], Any], item: Column) -> None:
        self.name = f"{item.name}_{'set' if container in (set, frozenset) else 'list'}"
        self._container = container
        self._item = item
        # Parquet's own word for a list's member, so that the type reads back as it was written.
        self.arrow = pa.list_(pa.field("element", item.arrow))

    def encode(self, values: list[Any]) -> pa.Array:
        if self._container in (set, frozenset):
            values = [None if value is None else _ordered(value) for value in values]
        flat = [item for value in values if value is not None for item in value]
        return pa.ListArray.from_arrays(_offsets(values), self._item.encode(flat), type=self.arrow)

    def decode(self, array: pa.Array) -> list[Any]:
        flat = self._item.decode(array.flatten())
        make = self._container
        if make is list:
            return _cut(flat, array)
        return [None if part is None else make(part) for part in _cut(flat, array)]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if type(value) is not self._container:
            problems.append(_wrong_type(self, value, path))
            return
        check = self._item.check
        items: Iterable[Any] = value
        for number, item in enumerate(items):
            if item is not None:
                check(item, f"{path}/{number}", problems)

    def accepts(self, value: Any) -> bool:
        accepts = self._item.accepts
        return type(value) is self._container and all(item is None or accepts(item) for item in value)


class MapColumn(Column):
    """A dict with keys of one scalar type."""

    def __init__(self, key: Column, item: Column) -> None:
        self.name = f"{item.name}_map"
        self._key = key
        self._item = item
        self.arrow = pa.map_(key.arrow, item.arrow)

    def encode(self, values: list[Any]) -> pa.Array:
        keys = [key for value in values if value is not None for key in value]
        items = [item for value in values if value is not None for item in value.values()]
        return pa.MapArray.from_arrays(_offsets(values), self._key.encode(keys), self._item.encode(items), self.arrow)

    def decode(self, array: pa.Array) -> list[Any]:
        offsets = array.offsets.to_pylist()
        first, last = offsets[0], offsets[-1]
        keys = self._key.decode(array.keys[first:last])
        items = self._item.decode(array.items[first:last])
        pairs = list(zip(keys, items, strict=True))
        spans = zip(offsets, offsets[1:], array.is_valid().to_pylist(), strict=False)
        return [dict(pairs[start - first : end - first]) if there else None for start, end, there in spans]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        if type(value) is not dict:
            problems.append(_wrong_type(self, value, path))
            return
        for key, item in value.items():
            self._key.check(key, path, problems)
            if item is not None:
                self._item.check(item, f"{path}/{escape(str(key))}", problems)

    def accepts(self, value: Any) -> bool:
        accepts, key_accepts = self._item.accepts, self._key.accepts
        return type(value) is dict and all(
            key_accepts(key) and (item is None or accepts(item)) for key, item in value.items()
        )


class UnionColumn(Struct):
    """A union as a struct: ``kind`` names the branch, the branch's own member holds the value and the
    other members are null."""

    def __init__(self, branches: Sequence[Column]) -> None:
        names = _distinct([branch.name for branch in branches], taken={"kind"})
        kind = Choice("kind", names, names)
        members = [pa.field(name, branch.arrow) for name, branch in zip(names, branches, strict=True)]
        super().__init__("union", [pa.field("kind", kind.arrow), *members], [kind, *branches])
        self._branches = tuple(branches)
        self._names = tuple(names)

    def encode(self, values: list[Any]) -> pa.Array:
        chosen = [None if value is None else self._pick(value) for value in values]
        kinds = [None if number is None else self._names[number] for number in chosen]
        members = [
            [value if number == branch else None for value, number in zip(values, chosen, strict=True)]
            for branch in range(len(self._branches))
        ]
        return self.assemble([kinds, *members], (value is not None for value in values))

    def decode(self, array: pa.Array) -> list[Any]:
        kinds, *members = self.members(array)
        number_of = {name: number for number, name in enumerate(self._names)}
        valid = array.is_valid().to_pylist()
        return [
            members[number_of[kind]][row] if there else None
            for row, (kind, there) in enumerate(zip(kinds, valid, strict=True))
        ]

    def check(self, value: Any, path: str, problems: list[FieldProblem]) -> None:
        number = self._pick(value)
        if number is None:
            problems.append(_wrong_type(self, value, path))
        else:
            self._branches[number].check(value, path, problems)

    def accepts(self, value: Any) -> bool:
        return self._pick(value) is not None

    def _pick(self, value: Any) -> int | None:
        """The first branch that holds the value exactly, else the first of its type."""
        fits = [number for number, branch in enumerate(self._branches) if branch.accepts(value)]
        if len(fits) > 1:
            for number in fits:
                problems: list[FieldProblem] = []
                self._branches[number].check(value, "", problems)
                if not problems:
                    return number
        return fits[0] if fits else None


def revive(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
    """A model instance that holds ``fields`` as they are, as ``model_construct`` would make it, but by
    field name whatever the aliases."""
    value = model.__new__(model)
    object.__setattr__(value, "__dict__", fields)
    object.__setattr__(value, "__pydantic_fields_set__", set(fields))
    object.__setattr__(value, "__pydantic_extra__", None)
    object.__setattr__(value, "__pydantic_private__", None)
    if model.__pydantic_post_init__:
        value.model_post_init(None)
    return value


def shown(value: Any) -> str:
    """A value as JSON text for a problem, at most 400 characters."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    elif isinstance(value, Enum):
        value = value.value
    text = json.dumps(value, default=str)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _wrong_type(column: Column, value: Any, path: str) -> FieldProblem:
    message = f"validated to a {type(value).__name__}, which a column of {column.arrow} does not hold"
    return FieldProblem(path, "column_type", message, shown(value))


def _ordered(values: Iterable[Any]) -> list[Any]:
    items = list(values)
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _offsets(values: list[Any]) -> pa.Array:
    """A null offset makes a null list."""
    offsets: list[int | None] = []
    end = 0
    for value in values:
        if value is None:
            offsets.append(None)
        else:
            offsets.append(end)
            end += len(value)
    offsets.append(end)
    return pa.array(offsets, pa.int32())


def _cut(flat: list[Any], array: pa.Array) -> list[Any]:
    parts: list[Any] = []
    start = 0
    for length in array.value_lengths().to_pylist():
        if length is None:
            parts.append(None)
        else:
            parts.append(flat[start : start + length])
            start += length
    return parts


def _distinct(names: Sequence[str], *, taken: set[str]) -> list[str]:
    used = set(taken)
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in used:
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate.lower())
        result.append(candidate)
    return result
