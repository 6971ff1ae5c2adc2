"""A golden set: JSON Lines or Parquet with a line for each labelled record.

``id``        the record's id; without it, ``c-`` and the start of the hash of its text, as a source gives it
``expected``  the right values under the keys of the JSON answer (an object, or its JSON text); null, "" and [] mean that
              the record does not say. A key that is not there is not labelled, and not scored, however deep it lies
``accept``    per field, other right values: a list of them; for a list field a list for each expected item, in order. Of
              an object the keys that differ are enough
``free``      fields that everybody would word differently, not scored
``draft``     true while the expected values still have to be put right: the set is refused until then

In Parquet, a struct has all its keys in every row, so each of them is labelled (or accepted as null); JSON text leaves
that open.

Anything else is the record itself: ``text``, or the columns that the job's text template names. Where the set holds
only labels, the records come from another source and are found by their ids.
"""

from __future__ import annotations

import codecs
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow.parquet as pq
from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError

from extractors.errors import JobError
from extractors.parsing import dumps_exact, loads_exact
from extractors.validating import validate_model, validate_type
from schemas.answer_values import answer_keys, answer_value, answer_values
from schemas.records import content_fingerprint

LABEL_KEYS = ("expected", "accept", "free", "draft")
"""What a line says about its record; every other key is the record's."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A record's label. ``expected`` holds JSON values as the schema's types print them; ``accept`` the further right
    values of a field, or of each item of a list field."""

    record_id: str
    expected: Mapping[str, Any]
    accept: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    free: frozenset[str] = frozenset()


def read_golden(path: Path, model: type[BaseModel], *, id_column: str | None = None) -> dict[str, Labelled]:
    """The labels of a golden set by record id, in its order, validated by the schema.

    Raises ``JobError`` naming the line and what is wrong: no such file, no labels, an id twice, a line with an id beside
    one without, a key or a value that the schema does not have.
    """
    found: dict[str, Labelled] = {}
    reader = _Reader(model)
    name = id_column or "id"
    first: tuple[str, str | None] | None = None
    for where, row in golden_lines(path):
        given = id_text(row.get(name), f"{where}: `{name}`")
        first = first or (where, given)
        if (given is None) != (first[1] is None):
            there, not_there = (first[0], where) if given is None else (where, first[0])
            raise JobError(f"{there} has an `{name}`, and {not_there} has none: give every line one, or none of them")
        record_id = _id_of_text(row, id_column, where) if given is None else given
        if record_id in found:
            raise JobError(f"{where}: the id {record_id!r} stands twice in the golden set; one label a record")
        found[record_id] = reader.labelled(record_id, row, where)
    if not found:
        raise JobError(f"{path} holds no labelled records")
    return found


@dataclass(frozen=True, slots=True)
class WrittenLabel:
    """A line as it is written. ``where`` is what messages call it, ``row`` all of it, ``expected`` its label under the keys of
    the JSON answer however deep, with all digits."""

    where: str
    row: Mapping[str, Any]
    record_id: str | None
    expected: Mapping[str, Any]


def written_labels(path: Path, model: type[BaseModel], *, id_column: str = "id") -> Iterator[WrittenLabel]:
    """The lines of a golden set with their labels as they are written, keys apart not validated yet. Raises ``JobError``
    naming the line: not readable, a draft, no label, a key that the schema does not have."""
    reader = _Reader(model)
    for where, row in golden_lines(path):
        given = id_text(row.get(id_column), f"{where}: `{id_column}`")
        yield WrittenLabel(where, row, given, reader.written(row, given, where))


def record_columns(path: Path) -> list[str]:
    """What the lines of a golden set have besides their labels: ``id`` and the records themselves, if they are there."""
    return list(dict.fromkeys(key for _, row in golden_lines(path) for key in row if key not in LABEL_KEYS))


def id_text(value: Any, where: str) -> str | None:
    """A record's id as a source gives it, of a JSON value with exact numbers; None where there is none. Raises ``JobError``
    for what is no text and no number."""
    if value is None or value == "":
        return None
    if isinstance(value, bool | dict | list):
        raise JobError(f"{where} must be text or a number, not {_written(value)}")
    if not isinstance(value, orjson.Fragment):
        return str(value)
    digits = dumps_exact(value)
    number = float(digits)
    # What no float holds exactly keeps the digits that are written.
    return digits if digits.lstrip("-").isdecimal() or abs(number) >= 2.0**53 else repr(number)


class _Reader:
    """Validates labels with one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._named = answer_keys(model)
        self._keys = {key: name for name, key in self._named.items()}
        self._adapters: dict[Any, TypeAdapter[Any]] = {}
        self._inner: dict[type[BaseModel], _Reader] = {}

    def written(self, row: Mapping[str, Any], record_id: str | None, where: str) -> dict[str, Any]:
        """A line's label as it is written, under the answer's keys. Raises ``JobError``."""
        return self._written(self._expected(row, record_id, where), f"{where}: expected")

    def labelled(self, record_id: str, row: Mapping[str, Any], where: str) -> Labelled:
        expected = self._expected(row, record_id, where)
        accept, free = self._object(row, "accept", where) or {}, row.get("free") or ()
        if not isinstance(free, list | tuple):
            raise JobError(f"{where}: `free` must be a list of fields")
        for key in (*expected, *accept, *free):
            if not isinstance(key, str) or key not in self._keys:
                raise JobError(
                    f"{where}: {self._model.__name__} has no field {key!r}; its fields are {', '.join(self._keys)}"
                )
        return Labelled(
            record_id,
            expected=self.values(expected, f"{where}: expected"),
            accept={
                key: self._accepted(key, values, expected.get(key), f"{where}: accept.{key}")
                for key, values in accept.items()
                if values is not None and key in expected
            },
            free=frozenset(free),
        )

    def _expected(self, row: Mapping[str, Any], record_id: str | None, where: str) -> dict[str, Any]:
        named = "the record" if record_id is None else f"record {record_id!r}"
        if row.get("draft"):
            raise JobError(f"{where}: {named} is a draft: put `expected` right and take `draft` out")
        expected = self._object(row, "expected", where)
        if expected is None:
            raise JobError(f"{where}: {named} has no `expected`")
        return expected

    def _written(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {
            key: self._written_part(self._kind(key), value, f"{where}.{key}")
            for key, value in self._by_key(given, where).items()
        }

    def _written_part(self, kind: Any, given: Any, where: str) -> Any:
        if isinstance(given, Mapping) and (inner := self._model_in(kind)) is not None:
            return inner._written(given, where)
        if isinstance(given, list):
            item = _item_in(kind)
            return [self._written_part(item, one, f"{where}[{number}]") for number, one in enumerate(given)]
        return given

    def values(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The values of an object's labelled keys. Raises ``JobError``."""
        given = self._by_key(given, where)
        if given.keys() >= self._keys.keys():
            try:
                whole = validate_model(self._model, _json(given))
            except ValidationError:
                # A rule over several fields does not make the labels wrong one by one.
                pass
            else:
                return self._part(answer_values(whole), given, where)
        return {key: self._value(self._kind(key), value, f"{where}.{key}") for key, value in given.items()}

    def _by_key(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        found = {}
        for key, value in given.items():
            name = key if key in self._keys else self._named.get(key)
            if name is None:
                known = ", ".join(self._keys)
                raise JobError(f"{where}: {self._model.__name__} has no field {key!r}; its fields are {known}")
            found[name] = value
        return found

    def _part(self, told: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Of a valid object's values those that the label has, down to the last."""
        given = self._by_key(given, where)
        return {
            key: self._labelled_part(self._kind(key), told.get(key), value, f"{where}.{key}")
            for key, value in given.items()
        }

    def _labelled_part(self, kind: Any, told: Any, given: Any, where: str) -> Any:
        if isinstance(told, dict) and isinstance(given, Mapping) and (inner := self._model_in(kind)) is not None:
            return inner._part(told, given, where)
        if isinstance(told, list) and isinstance(given, list | tuple) and len(told) == len(given):
            item = _item_in(kind)
            return [
                self._labelled_part(item, one, other, f"{where}[{number}]")
                for number, (one, other) in enumerate(zip(told, given, strict=True))
            ]
        return told

    def _accepted(self, key: str, values: Any, expected: Any, where: str) -> list[Any]:
        kind = self._kind(key)
        if not isinstance(values, list):
            raise JobError(f"{where} must be a list of right values")
        if not isinstance(expected, list):
            return [self._other(kind, value, where) for value in values]
        if len(values) != len(expected) or not all(isinstance(one, list) for one in values):
            raise JobError(f"{where} must hold a list for each of the {len(expected)} expected items")
        item = _item_in(kind)
        return [[self._other(item, one, f"{where}[{number}]") for one in each] for number, each in enumerate(values)]

    def _other(self, kind: Any, value: Any, where: str) -> Any:
        """An accepted value; of an object the keys that it names."""
        inner = self._model_in(kind)
        return inner.values(value, where) if inner and isinstance(value, Mapping) else self._value(kind, value, where)

    def _value(self, kind: Any, value: Any, where: str) -> Any:
        if value is None or value == "":
            return None
        adapter = self._adapters.get(kind)
        if adapter is None:
            adapter = self._adapters[kind] = TypeAdapter(kind)
        try:
            found = validate_type(adapter, _json(value))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
            # Keys that are left out or null only make them not labelled, or labelled as not there.
            if isinstance(value, Mapping) and (inner := self._model_in(kind)) is not None:
                return inner.values(value, where)
            item = _item_in(kind)
            if isinstance(value, list) and self._model_in(item) is not None and all(one["loc"] for one in problems):
                return [self._value(item, one, f"{where}[{number}]") for number, one in enumerate(value)]
            first = problems[0]
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise JobError(f"{where}{place}: {first['msg']} (given {_written(value)})") from error
        return self._labelled_part(
            kind, answer_value(found, adapter.dump_python(found, mode="json", by_alias=False)), value, where
        )

    def _kind(self, key: str) -> Any:
        info = self._model.model_fields[self._keys[key]]
        kind: Any = info.annotation
        for note in info.metadata:
            kind = Annotated[kind, note]
        return kind

    def _model_in(self, kind: Any) -> _Reader | None:
        """The reader of a type that is one model, or one or null. None too for a model that takes any key."""
        kind = _bare(kind)
        if not isinstance(kind, type) or not issubclass(kind, BaseModel) or kind.model_config.get("extra") == "allow":
            return None
        if kind not in self._inner:
            self._inner[kind] = _Reader(kind)
        return self._inner[kind]

    def _object(self, row: Mapping[str, Any], key: str, where: str) -> dict[str, Any] | None:
        value = row.get(key)
        if isinstance(value, str):
            try:
                value = loads_exact(value)
            except (ValueError, RecursionError) as error:
                raise JobError(f"{where}: `{key}` is text that is no JSON: {error}") from error
        if value is not None and not isinstance(value, dict):
            raise JobError(f"{where}: `{key}` must be an object, not {type(value).__name__}")
        return value


def _bare(kind: Any) -> Any:
    """A type without its notes, without null, and out of a root model."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _bare(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
        return _bare(arms[0]) if len(arms) == 1 else kind
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return _bare(kind.model_fields["root"].annotation)
    return kind


def _item_in(kind: Any) -> Any:
    """The type of a list's items."""
    kind = _bare(kind)
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    many = isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet)
    # A tuple of several types has no one type of items.
    return arms[0] if many and (len(arms) == 1 or (len(arms) == 2 and arms[1] is ...)) else Any


def _json(value: Any) -> str:
    """JSON with all digits, also of what Parquet may hold: dates are ISO texts, decimals texts of their digits."""
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:
        return dumps_exact(value)


def _written(value: Any) -> str:
    text = _json(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 200


def _id_of_text(row: Mapping[str, Any], id_column: str | None, where: str) -> str:
    if id_column is None and isinstance(row.get("text"), str):
        return f"c-{content_fingerprint(row['text'])[:16]}"
    if id_column is None:
        raise JobError(f"{where}: a labelled record needs `id`, or `text` to take its id from")
    raise JobError(f"{where} has no `{id_column}`, which the ids of the records are read from")


def golden_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines as objects, each with what to call it in messages. Raises ``JobError``."""
    if not path.is_file():
        raise JobError(f"there is no golden set {path}")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
                yield f"{path}, row {number}", row
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield f"{path}, line {number}", _object_of(line, f"{path}, line {number}")
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read as a golden set (JSON Lines or Parquet): {error}") from error


def _object_of(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = loads_exact(line.decode())
    except (ValueError, RecursionError) as error:
        raise JobError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise JobError(f"{where}: not an object")
    return row
