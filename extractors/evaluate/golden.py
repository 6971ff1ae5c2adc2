"""A golden set: JSON Lines or Parquet with a line for each labelled record.

``id``        the record's id; without it, ``c-`` and the start of the hash of its text, as a source gives it
``expected``  the right values under the keys of the JSON answer (an object, or its JSON text); null, "" and [] mean that
              the record does not say. A key that is not there is not labelled, and not scored
``accept``    per field, other right values: a list of them; for a list field a list for each expected item, in order
``free``      fields that everybody would word differently, not scored
``draft``     true while the expected values still have to be put right: the set is refused until then

In Parquet, a struct has all its keys in every row, so each of them is labelled; JSON text leaves that open.

Anything else is the record itself: ``text``, or the columns that the job's text template names. Where the set holds
only labels, the records come from another source and are found by their ids.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter, ValidationError

from extractors.errors import JobError
from schemas.answer_values import answer_keys, answer_value, answer_values
from schemas.records import content_fingerprint

_OWN = ("expected", "accept", "free", "draft")


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

    Raises ``JobError`` naming the line and what is wrong: no such file, no labels, an id twice, a key or a value
    that the schema does not have.
    """
    found: dict[str, Labelled] = {}
    reader = _Reader(model)
    for where, row in _rows(path):
        record_id = _id_of(row, id_column, where)
        if record_id in found:
            raise JobError(f"{where}: the id {record_id!r} stands twice in the golden set; one label a record")
        found[record_id] = reader.labelled(record_id, row, where)
    if not found:
        raise JobError(f"{path} holds no labelled records")
    return found


def record_columns(path: Path) -> list[str]:
    """What the first line of a golden set has besides its label: ``id`` and the record itself, if it is there."""
    return next(([key for key in row if key not in _OWN] for _, row in _rows(path)), [])


class _Reader:
    """Validates labels with one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._keys = {key: name for name, key in answer_keys(model).items()}
        self._adapters: dict[str, TypeAdapter[Any]] = {}

    def labelled(self, record_id: str, row: Mapping[str, Any], where: str) -> Labelled:
        if row.get("draft"):
            raise JobError(f"{where}: record {record_id!r} is a draft: put `expected` right and take `draft` out")
        expected = self._object(row, "expected", where)
        if expected is None:
            raise JobError(f"{where}: record {record_id!r} has no `expected`")
        accept, free = self._object(row, "accept", where) or {}, row.get("free") or ()
        if not isinstance(free, list | tuple):
            raise JobError(f"{where}: `free` must be a list of fields")
        for key in (*expected, *accept, *free):
            if key not in self._keys:
                raise JobError(
                    f"{where}: {self._model.__name__} has no field {key!r}; its fields are {', '.join(self._keys)}"
                )
        return Labelled(
            record_id,
            expected=self._expected(expected, where),
            accept={
                key: self._accepted(key, values, expected.get(key), where)
                for key, values in accept.items()
                if values is not None
            },
            free=frozenset(free),
        )

    def _expected(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        if given.keys() >= self._keys.keys():
            try:
                whole = self._model.model_validate_json(_json(given))
            except ValidationError:
                # A rule over several fields does not make the labels wrong one by one.
                pass
            else:
                told = answer_values(whole)
                return {key: told.get(key) for key in given}
        return {key: self._value(key, value, f"{where}: expected") for key, value in given.items()}

    def _accepted(self, key: str, values: Any, expected: Any, where: str) -> list[Any]:
        if not isinstance(values, list):
            raise JobError(f"{where}: accept.{key} must be a list of right values")
        if not isinstance(expected, list):
            return [self._value(key, value, f"{where}: accept") for value in values]
        if len(values) != len(expected) or not all(isinstance(one, list) for one in values):
            raise JobError(f"{where}: accept.{key} must hold a list for each of the {len(expected)} expected items")
        return values

    def _value(self, key: str, value: Any, where: str) -> Any:
        if value is None or value == "":
            return None
        adapter = self._adapters.get(key)
        if adapter is None:
            info = self._model.model_fields[self._keys[key]]
            kind: Any = info.annotation
            for note in info.metadata:
                kind = Annotated[kind, note]
            adapter = self._adapters[key] = TypeAdapter(kind)
        try:
            found = adapter.validate_json(_json(value))
            return answer_value(found, adapter.dump_python(found, mode="json", by_alias=False))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise JobError(f"{where}.{key}: {first['msg']} (given {value!r})") from error

    def _object(self, row: Mapping[str, Any], key: str, where: str) -> dict[str, Any] | None:
        value = row.get(key)
        if isinstance(value, str):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise JobError(f"{where}: `{key}` is text that is no JSON: {error}") from error
        if value is not None and not isinstance(value, dict):
            raise JobError(f"{where}: `{key}` must be an object, not {type(value).__name__}")
        return value


def _json(value: Any) -> bytes:
    """JSON of what Parquet may hold as well: dates are ISO texts, decimals texts of their digits."""
    return orjson.dumps(value, default=str)


def _id_of(row: Mapping[str, Any], id_column: str | None, where: str) -> str:
    value = row.get(id_column or "id")
    if value is not None and value != "":
        return str(value)
    if id_column is None and isinstance(row.get("text"), str):
        return f"c-{content_fingerprint(row['text'])[:16]}"
    raise JobError(f"{where}: a labelled record needs `{id_column or 'id'}`, or `text` to take its id from")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JobError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise JobError(f"{where}: not an object")
    return row
