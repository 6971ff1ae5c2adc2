"""What the readers written in Python share: rows in bounded batches, handed to DuckDB as an Arrow stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.encodings import without_surrogates
from extractors.sources.pictures import FROM_TEXT
from extractors.sources.source import RAW_COLUMNS, Source

BATCH_ROWS = 8192
BATCH_CHARACTERS = 4_000_000


@dataclass(slots=True)
class Batch:
    """Rows as lists. ``kept`` has a list for each kept column, of text (CSV) or JSON text (JSON).

    ``images`` are the cells of the picture column, where there is one, else empty. ``lines`` are the rows' line numbers where a reader wants to judge them once more, else empty.
    """

    kept: list[list[str | None]]
    ids: list[str | None] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    images: list[str | None] = field(default_factory=list)
    troubles: dict[int, tuple[str, str]] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, width: int) -> Batch:
        """An empty batch with ``width`` kept columns."""
        return cls([[] for _ in range(width)])

    def problem(self, record_id: str, problem: str, raw: str) -> None:
        """Add a record that cannot be asked; ``raw`` is what could be read of it."""
        self.troubles[len(self.ids)] = (problem, raw)
        self.ids.append(record_id)
        self.texts.append(None)
        self.images.append(None)
        for column in self.kept:
            column.append(None)

    def arrow(self) -> pa.RecordBatch:
        """The batch with ``RAW_COLUMNS`` and k0, k1, ..., lone surrogates replaced. The text of a record
        with a problem is what could be read."""
        problems: list[str | None] = [None] * len(self.ids)
        raws: list[str | None] = [None] * len(self.ids)
        for place, (problem, raw) in self.troubles.items():
            problems[place], raws[place] = problem, raw
            self.texts[place] = raw
        # Where no picture is asked for there are none but those of broken rows.
        self.images.extend([None] * (len(self.ids) - len(self.images)))
        columns = [_strings(values) for values in (self.ids, self.texts, problems, raws, self.images, *self.kept)]
        names = [*RAW_COLUMNS, "image", *(f"k{number}" for number in range(len(self.kept)))]
        return pa.RecordBatch.from_arrays(columns, names=names)


def _strings(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else without_surrogates(value) for value in values], pa.string())


class RowSource(Source):
    """A source whose rows a generator yields; ``conversions`` are SQL expressions over k0, k1, ... that give
    the kept columns their types."""

    def __init__(self, place: str, kept: pa.Schema, conversions: Sequence[str]) -> None:
        self.place = place
        self.kept = kept
        self._conversions = tuple(conversions)
        self._trouble: Exception | None = None

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """The rows; may raise ``SourceError``."""

    def select(self, con: duckdb.DuckDBPyConnection) -> str:
        self._trouble = None
        con.register("quarry_rows", stream(self._watched(), len(self.kept)))
        kept = "".join(f", {sql} as k{number}" for number, sql in enumerate(self._conversions))
        image = "" if self.pictures is None else f", {FROM_TEXT}(image) as image"
        return f"select id, text, problem, raw{image}{kept} from quarry_rows"

    def stage(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        try:
            super().stage(con, table)
        except Exception as error:
            if self._trouble is not None:
                raise self._trouble from error
            raise
        finally:
            con.unregister("quarry_rows")

    def _watched(self) -> Iterator[Batch]:
        # An Arrow stream carries an error as text only, so it is remembered on the way.
        try:
            yield from self.batches()
        except (SourceError, MemoryError) as error:
            self._trouble = error
            raise
        except (OSError, EOFError) as error:
            self._trouble = SourceError(f"{self.place} cannot be read: {error}")
            raise


def stream(batches: Iterator[Batch], width: int) -> pa.RecordBatchReader:
    """The batches as an Arrow stream with ``width`` kept columns."""
    names = [*RAW_COLUMNS, "image", *(f"k{number}" for number in range(width))]
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.arrow() for batch in batches))


def file_labels(files: Sequence[Path]) -> dict[Path, str]:
    """What to call each file in record ids: its name, or its path below the folder that all share."""
    if len({file.name for file in files}) == len(files):
        return {file: file.name for file in files}
    root = files[0].parent
    while not all(file.is_relative_to(root) for file in files):
        root = root.parent
    return {file: file.relative_to(root).as_posix() for file in files}
