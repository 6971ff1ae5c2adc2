"""JSON: one object a line (JSONL, NDJSON), an array of objects, or objects one after the other.

A broken line costs that line only. A broken array cannot be picked up again, so it is a ``SourceError``
before anything is asked.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.columns import Wanted, choose
from extractors.sources.encodings import bad_byte, is_utf8, open_bytes, probe, without_surrogates
from extractors.sources.rows import BATCH_CHARACTERS, BATCH_ROWS, Batch, RowSource, file_labels, stream
from extractors.sources.text_template import sql_text, value_text

logger = logging.getLogger(__name__)
_SAMPLE = 1000
_BLOCK = 1 << 20
_LONGEST = 1 << 28
_LOSSY = 2.0**53


class JsonSource(RowSource):
    """One or more JSON or JSONL files; records of several files follow one another."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, *, place: str) -> None:
        self._files = [(path, probe(path, header=False)) for path in files]
        self._labels = file_labels(files)
        sample = list(islice((row for row in self._objects() if isinstance(row, dict)), _SAMPLE))
        columns: dict[str, bool] = {}
        for row in sample:
            for key, value in row.items():
                columns[key] = columns.get(key, False) or isinstance(value, str)
        self._columns = choose(
            wanted,
            list(columns),
            texts=[name for name, text in columns.items() if text],
            place=place,
            exists=lambda name: not columns or any(name in row for row in self._objects() if isinstance(row, dict)),
        )
        if self._columns.id is not None:
            self.id_null_problem = f"the id ({self._columns.id!r}) is null"
        self._keys = [column for column, _ in self._columns.keep]
        super().__init__(place, pa.schema([]), [])
        if self._keys:
            self._conversions, self.kept = self._kept_types()

    def batches(self) -> Iterator[Batch]:
        for path, encoding in self._files:
            reader = self._lines if _is_lines(path, encoding) else self._elements
            yield from reader(path, encoding)

    def _objects(self) -> Iterator[Any]:
        """The rows' values, broken lines left out: for looking at the columns."""
        for path, encoding in self._files:
            if not _is_lines(path, encoding):
                yield from (value for _, value in _values(path, encoding))
                continue
            for line in _byte_lines(path, encoding):
                try:
                    yield _loads(line)
                except (ValueError, RecursionError):
                    continue

    def _lines(self, path: Path, encoding: str) -> Iterator[Batch]:
        label, identity, template, keys = self._labels[path], self._columns.id, self._columns.text, self._keys
        image = self._columns.image
        single = template.single
        batch, size = Batch.of(len(keys)), 0
        ids, texts, loads = batch.ids, batch.texts, orjson.loads
        for number, line in enumerate(_byte_lines(path, encoding), start=1):
            try:
                row = loads(line)
            except ValueError:
                if not line.strip():
                    continue
                row = _read_again(line, number)
            if type(row) is dict:
                text = row.get(single) if single is not None else template.render(_lookup(row))
                record_id = None if identity is None else row.get(identity)
                ids.append(record_id if type(record_id) is str else _text(record_id, line, identity))
                texts.append(text if type(text) is str else _text(text, line, single))
                if image is not None:
                    batch.images.append(_text(row.get(image)))
                for column, key in zip(batch.kept, keys, strict=True):
                    column.append(_dumps(row.get(key)))
            else:
                problem = row if isinstance(row, _Broken) else f"line {number} is JSON but not an object"
                batch.problem(f"{label}:{number}", f"{problem}", line.decode("utf-8", "replace").rstrip("\r\n"))
            size += len(line)
            if len(ids) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = Batch.of(len(keys)), 0
                ids, texts = batch.ids, batch.texts
        yield batch

    def _elements(self, path: Path, encoding: str) -> Iterator[Batch]:
        batch, size = Batch.of(len(self._keys)), 0
        for number, value in _values(path, encoding):
            if isinstance(value, dict):
                record_id = None if self._columns.id is None else _text(value.get(self._columns.id))
                text = self._columns.text.render(_lookup(value))
                batch.ids.append(record_id)
                batch.texts.append(text)
                if self._columns.image is not None:
                    batch.images.append(_text(value.get(self._columns.image)))
                for column, key in zip(batch.kept, self._keys, strict=True):
                    column.append(_dumps(value.get(key)))
                size += len(text or "")
            else:
                raw = json.dumps(value, ensure_ascii=False)
                batch.problem(f"{self._labels[path]}#{number}", f"element {number} is not a JSON object", raw)
                size += len(raw)
            if len(batch.ids) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = Batch.of(len(self._keys)), 0
        yield batch

    def _kept_types(self) -> tuple[tuple[str, ...], pa.Schema]:
        """The kept columns' conversions and Arrow types, from every value there is: a later one fits too."""
        numbers = range(len(self._keys))
        with duckdb.connect() as con:
            con.execute("set memory_limit = '256MB'")
            con.register("quarry_rows", stream(self.batches(), len(self._keys)))
            found = con.execute(
                "select "
                + ", ".join(
                    f"json_group_structure(k{n}::json), max(try_cast(k{n} as uhugeint)) > 9223372036854775807"
                    for n in numbers
                )
                + " from quarry_rows"
            ).fetchall()[0]
            conversions, empty = [], []
            for n in numbers:
                conversion = _conversion(f"k{n}", found[2 * n], huge=bool(found[2 * n + 1]))
                conversions.append(conversion)
                empty.append(f"{conversion} as k{n}")
            nulls = ", ".join(f"null::varchar as k{n}" for n in numbers)
            schema = con.sql(f"select {', '.join(empty)} from (select {nulls}) where false").to_arrow_table().schema
        names = [name for _, name in self._columns.keep]
        return tuple(conversions), pa.schema(
            [pa.field(name, field.type) for name, field in zip(names, schema, strict=True)]
        )


class _Broken(str):
    """Why a line cannot be read."""


def _conversion(column: str, structure: str | None, *, huge: bool) -> str:
    """SQL that gives JSON text the type that all values of the column have; VARCHAR when they have none."""
    if (
        structure is None
        or structure in ('"NULL"', '"VARCHAR"', '"JSON"')
        or "JSON" in structure
        or "NULL" in structure
    ):
        return f"({column}::json ->> '$')"
    if structure == '"UBIGINT"' and not huge:
        structure = '"BIGINT"'
    return f"json_transform_strict({column}, {sql_text(structure)})"


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:
        return json.loads(line.decode())


def _read_again(line: bytes, number: int) -> Any:
    """The second look at a line that orjson refuses: it may hold lone surrogates or NaN, or say what is wrong."""
    if not is_utf8(line):
        at = bad_byte(line)
        return _Broken(f"line {number} is not UTF-8: byte 0x{line[at]:02x} at byte {at} of the line")
    try:
        return json.loads(line.decode())
    except json.JSONDecodeError as error:
        return _Broken(f"line {number} is not JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:
        return _Broken(f"line {number} is not readable JSON: {str(error)[:100]}")


def _text(value: Any, line: bytes = b"", key: str | None = None) -> str | None:
    """A JSON value as text. Numbers past what a double holds exactly are read again from the line."""
    if value is None or type(value) is str:
        return value
    if type(value) is float:
        if line and key is not None and abs(value) >= _LOSSY:
            value = json.loads(line.decode(), parse_float=str)[key]
        return value_text(value)
    if isinstance(value, dict | list):
        return _dumps(value)
    return value_text(value)


def _lookup(row: dict[str, Any]) -> Callable[[str], str | None]:
    return lambda key: _text(row.get(key))


def _dumps(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Lone surrogates, or an integer past 64 bits.
        return without_surrogates(json.dumps(value, ensure_ascii=False))


def _is_lines(path: Path, encoding: str) -> bool:
    """Whether the file has a value a line: by its name, else because its first line is a whole object."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".jsonl" in suffixes or ".ndjson" in suffixes:
        return True
    for line in _byte_lines(path, encoding):
        if stripped := line.strip():
            if stripped.startswith(b"["):
                return False
            try:
                return isinstance(_loads(stripped), dict)
            except (ValueError, RecursionError):
                return False
    return True


def _byte_lines(path: Path, encoding: str) -> Iterator[bytes]:
    """The file's lines as UTF-8, byte order mark and all other encodings removed."""
    with open_bytes(path) as file:
        if encoding == "utf-8-sig":
            file.read(len(codecs.BOM_UTF8))
        if encoding in ("utf-8", "utf-8-sig"):
            yield from file
            return
        with io.TextIOWrapper(file, encoding, "replace", newline="\n") as text:
            for line in text:
                yield line.encode("utf-8", "surrogatepass")


def _values(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of an array's elements, or of values one after the other; never whole in memory."""
    decoder, buffer, number, ended = json.JSONDecoder(), "", 0, False
    with open_bytes(path) as file:
        bytes_to_text = codecs.getincrementaldecoder(encoding)()
        place, want, consumed, array = 0, _BLOCK, 0, None

        def more() -> bool:
            """Read on: twice as much each time that a value was not complete, so that long ones stay linear."""
            nonlocal buffer, place, want, consumed, ended
            if ended or len(buffer) - place > _LONGEST:
                return False
            data = file.read(want)
            ended = not data
            try:
                new = bytes_to_text.decode(data, final=ended)
            except UnicodeDecodeError as error:
                raise SourceError(f"{path} is not {encoding}: {error.reason} near byte {file.tell()}") from error
            consumed += place
            buffer, place = buffer[place:] + new, 0
            want = min(want * 2, _LONGEST)
            return not ended

        def skip(characters: str) -> str:
            """Go past white space and ``characters``; the next character, or an empty string at the end."""
            nonlocal place
            while True:
                while place < len(buffer) and buffer[place] in characters:
                    place += 1
                if place < len(buffer):
                    return buffer[place]
                if not more() and place >= len(buffer):
                    return ""

        white = " \t\r\n"
        array = skip(white) == "["
        if array:
            place += 1
        comma = False
        while True:
            follows = skip(white)
            if not follows and not array:
                return
            if array and follows == "]" and not comma:
                place += 1
                if skip(white):
                    raise _broken(path, consumed + place, "text follows the end of the array")
                return
            try:
                value, end = decoder.raw_decode(buffer, place)
            except (ValueError, RecursionError) as error:
                if isinstance(error, json.JSONDecodeError) and more():
                    continue
                raise _broken(path, consumed + place, str(error)) from error
            if end == len(buffer) and more():
                continue
            place, want, number = end, _BLOCK, number + 1
            yield number, value
            if array:
                follows = skip(white)
                comma = follows == ","
                if comma:
                    place += 1
                elif follows != "]":
                    raise _broken(path, consumed + place, "a comma or ] is missing")


def _broken(path: Path, character: int, why: str) -> SourceError:
    return SourceError(
        f"{path} is broken near character {character}: {why}. A broken array cannot be read on; mend it, or write the "
        "records one a line (.jsonl), where a broken line costs one record"
    )
