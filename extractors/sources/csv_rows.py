"""CSV and TSV: the first row names the columns; a broken row costs that row only.

Quotes are ``"``, doubled inside a quoted field. The delimiter is the one of comma, semicolon, tab and bar
that cuts the start of the file into the most even columns. An empty field is null.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.columns import Wanted, choose
from extractors.sources.encodings import open_bytes, probe
from extractors.sources.rows import BATCH_CHARACTERS, BATCH_ROWS, Batch, RowSource, file_labels, stream

logger = logging.getLogger(__name__)
_SAMPLE = 1000
_LONGEST = 1 << 26
_NUMBER = "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?"
_NOT_TEXT = re.compile(f"{_NUMBER}|true|false|\\d{{4}}-\\d\\d-\\d\\d([ T][\\d:.]+(Z|[-+][\\d:]+)?)?", re.IGNORECASE)
_TYPES = (
    ("bigint", "regexp_full_match({c}, '-?(0|[1-9][0-9]{{0,18}})') and try_cast({c} as bigint) is not null", pa.int64()),
    ("double", f"length({{c}}) <= 17 and regexp_full_match({{c}}, '{_NUMBER.replace('{', '{{').replace('}', '}}')}')", pa.float64()),
    ("boolean", "lower({c}) in ('true', 'false')", pa.bool_()),
    ("date", "regexp_full_match({c}, '\\d{{4}}-\\d\\d-\\d\\d') and try_cast({c} as date) is not null", pa.date32()),
    ("timestamp", "regexp_full_match({c}, '\\d{{4}}-\\d\\d-\\d\\d[ T][\\d:]+(\\.\\d{{1,6}})?') and try_cast({c} as timestamp) is not null",
     pa.timestamp("us")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    encoding: str
    delimiter: str
    header: tuple[str, ...]


class CsvSource(RowSource):
    """One or more CSV files; several are united by column name."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, *, place: str) -> None:
        # The csv module's limit is one for the process; its default of 128 KB would refuse long texts.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
        self._files = [_look(path) for path in files]
        self._labels = file_labels(files)
        present = list(dict.fromkeys(name for file in self._files for name in file.header))
        texts = set()
        for file in self._files:
            for _, row, _ in islice(_rows(file), _SAMPLE):
                if row is not None:
                    texts |= {
                        name
                        for name, cell in zip(file.header, row, strict=True)
                        if cell and not _NOT_TEXT.fullmatch(cell)
                    }
        self._columns = choose(wanted, present, texts=[name for name in present if name in texts], place=place)
        if self._columns.id is not None:
            self.id_null_problem = f"the id ({self._columns.id!r}) is null"
        super().__init__(place, pa.schema([]), [])
        if self._columns.keep:
            self._conversions, self.kept = self._kept_types()

    def batches(self) -> Iterator[Batch]:
        for file in self._files:
            yield from self._batches(file)

    def _batches(self, file: _File) -> Iterator[Batch]:
        columns, label = self._columns, self._labels[file.path]
        places = {name: place for place, name in enumerate(file.header)}
        identity = None if columns.id is None else places.get(columns.id, -1)
        single = None if columns.text.single is None else places.get(columns.text.single, -1)
        kept = [places.get(column, -1) for column, _ in columns.keep]
        image = None if columns.image is None else places.get(columns.image, -1)
        # A column that this file lacks is read from the end of the row, where a null is put.
        batch, size = Batch.of(len(kept)), 0
        for line, row, problem in _rows(file):
            if row is None:
                assert problem is not None
                batch.problem(f"{label}:{line}", f"line {line}: {problem[0]}", _readable(problem[1]))
                batch.lines.append(line)
                size += len(problem[1])
            else:
                row.append("")
                text = row[single] if single is not None else columns.text.render(_lookup(row, places))
                batch.ids.append(None if identity is None else row[identity])
                batch.texts.append(text or None)
                if image is not None:
                    batch.images.append(row[image] or None)
                batch.lines.append(line)
                for column, place in zip(batch.kept, kept, strict=True):
                    column.append(row[place] or None)
                size += len(text or "")
            if len(batch.ids) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield _judged(batch, label)
                batch, size = Batch.of(len(kept)), 0
        yield _judged(batch, label)

    def _kept_types(self) -> tuple[tuple[str, ...], pa.Schema]:
        """A kept column has a type only where every value of the file fits it and loses nothing (007 stays text)."""
        tests = [f"bool_and({test.format(c=f'k{n}')})" for n in range(len(self._columns.keep)) for _, test, _ in _TYPES]
        with duckdb.connect() as con:
            con.execute("set memory_limit = '256MB'")
            con.register("quarry_rows", stream(self.batches(), len(self._columns.keep)))
            found = con.execute(f"select {', '.join(tests)} from quarry_rows").fetchall()[0]
        conversions, fields = [], []
        for n, (_, name) in enumerate(self._columns.keep):
            fits = found[n * len(_TYPES) : (n + 1) * len(_TYPES)]
            kind, arrow = next(
                ((kind, arrow) for (kind, _, arrow), fit in zip(_TYPES, fits, strict=True) if fit),
                ("varchar", pa.string()),
            )
            conversions.append(f"cast(k{n} as {kind})")
            fields.append(pa.field(name, arrow))
        return tuple(conversions), pa.schema(fields)


def _lookup(row: Sequence[str], places: Mapping[str, int]) -> Callable[[str], str | None]:
    return lambda column: row[places.get(column, -1)]


def _judged(batch: Batch, label: str) -> Batch:
    """Rows with bytes that were not UTF-8 become problems; they carry lone surrogates until here."""
    try:
        for values in (batch.ids, batch.texts, *batch.kept):
            "".join(value for value in values if value is not None).encode()
    except UnicodeEncodeError:
        for place, line in enumerate(batch.lines):
            cells = [column[place] for column in (batch.ids, batch.texts, *batch.kept)]
            if place not in batch.troubles and any(cell is not None and _readable(cell) != cell for cell in cells):
                raw = _readable(batch.texts[place] or "")
                batch.troubles[place] = (f"line {line} is not UTF-8", raw)
                batch.ids[place] = f"{label}:{line}"
                for column in batch.kept:
                    column[place] = None if column[place] is None else _readable(column[place] or "")
    return batch


def _readable(text: str) -> str:
    """Bytes that were not UTF-8, carried as lone surrogates, shown as U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _look(path: Path) -> _File:
    """The file's encoding, delimiter and header. Raises ``SourceError``."""
    encoding = probe(path, header=True)
    with _text_lines(path, encoding) as lines:
        start = list(islice(lines, 200))
    if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        delimiter = "\t"
    else:
        delimiter = max((",", ";", "\t", "|"), key=lambda candidate: _evenness(start, candidate))
    try:
        names = next((row for row in csv.reader(start, delimiter=delimiter, strict=True) if row), [])
    except csv.Error as error:
        raise SourceError(f"{path}: its first row, which names the columns, is broken: {error}") from error
    if not any(names):
        raise SourceError(f"{path} has no columns: its first row must name them")
    header: list[str] = []
    for number, name in enumerate(names):
        base = unique = name.strip() or f"column{number}"
        while unique in header:
            unique = f"{base}_{header.count(base) + number}"
        header.append(unique)
    return _File(path, encoding, delimiter, tuple(header))


def _evenness(lines: Sequence[str], delimiter: str) -> float:
    """How evenly a delimiter cuts the lines: the share of rows as wide as the first, if that is over 1 column."""
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0
    if not widths or widths[0] < 2:
        return 0.0
    return Counter(widths)[widths[0]] / len(widths) + widths[0] / 10_000


def _text_lines(path: Path, encoding: str) -> io.TextIOWrapper:
    """A file's lines with their endings, bytes that are not UTF-8 kept as lone surrogates."""
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    return io.TextIOWrapper(open_bytes(path), encoding, errors, newline="")


def _rows(file: _File) -> Iterator[tuple[int, list[str] | None, tuple[str, str] | None]]:
    """(line number, row, None) for good rows and (line number, None, (problem, raw line)) for broken ones.

    A quote that is never closed swallows the lines after it; so after an error in the quotes only the first
    line is given up and reading goes on with the next.
    """
    width = len(file.header)
    with _text_lines(file.path, file.encoding) as lines:
        waiting: deque[str] = deque()
        taken: list[str] = []

        def feed() -> Iterator[str]:
            size = 0
            while True:
                if waiting:
                    line = waiting.popleft()
                else:
                    found = next(lines, None)
                    if found is None:
                        return
                    line = found
                size = size + len(line) if taken else len(line)
                taken.append(line)
                if size > _LONGEST:
                    raise csv.Error(f"a row of more than {_LONGEST} characters")
                yield line

        number, first = 1, True
        reader = csv.reader(feed(), delimiter=file.delimiter, strict=True)
        while True:
            taken.clear()
            try:
                row = next(reader, None)
            except csv.Error as error:
                again = taken[1:]
                yield number, None, (f"its quotes are broken ({error})", taken[0].rstrip("\r\n"))
                waiting.extendleft(reversed(again))
                reader = csv.reader(feed(), delimiter=file.delimiter, strict=True)
                number, first = number + 1, False
                continue
            if row is None:
                return
            if row and not first:
                if len(row) == width:
                    yield number, row, None
                else:
                    raw = "".join(taken).rstrip("\r\n")
                    yield number, None, (f"{len(row)} columns where the header has {width}", raw)
            first = first and not row
            number += len(taken)
