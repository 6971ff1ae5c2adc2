"""The vectors of one model and length, kept in an output by the hash of their text and used again by it.

::

    OUT/vectors/<model>-<dimensions>/part-<hash>.parquet
        text_hash   SHA-256 of the text in UTF-8, in hex: DuckDB's ``sha256(text)``
        model, dimensions
        characters  of the text; ``embedded``: how many of them the model was sent
        vector      a fixed-size list of float32

Each part is written whole before its vectors count, and is named by what it holds. Small parts, one for each call, are
folded into larger ones; a kill between the two leaves a text in two parts, with the same vector.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extractors.store import files

logger = logging.getLogger(__name__)

FOLDER = "vectors"
_PART_BYTES = 8_000_000
"""Of the vectors of a folded part."""
_MOST_SMALL = 128
"""Parts that are not folded yet, at most."""
_OPEN = 4
"""Parts whose vectors are held in memory."""


@dataclass(frozen=True, slots=True)
class TextVector:
    """A text's vector (float32, little-endian) and how much of the text it is of, in characters."""

    text_hash: str
    characters: int
    embedded: int
    vector: bytes


def text_hash(text: str) -> str:
    """What a text's vector is found by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class StoredVectors:
    """The vectors in one folder. One writer at a time, which the output's lock sees to; not for several threads."""

    def __init__(self, out: Path, *, model: str, dimensions: int) -> None:
        """Reads which texts are there. A part that cannot be read is set aside, and its texts are embedded again.
        Raises ``OutputError``."""
        self.folder = out / FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', model)}-{dimensions}"
        self._model = model
        self._dimensions = dimensions
        self._rows_a_part = max(1, _PART_BYTES // (4 * dimensions))
        self._place: dict[str, Path] = {}
        self._counts: dict[Path, int] = {}
        self._open: OrderedDict[Path, dict[str, bytes]] = OrderedDict()
        self.schema = pa.schema(
            [
                pa.field("text_hash", pa.string(), nullable=False),
                pa.field("model", pa.string(), nullable=False),
                pa.field("dimensions", pa.int32(), nullable=False),
                pa.field("characters", pa.int64(), nullable=False),
                pa.field("embedded", pa.int64(), nullable=False),
                pa.field(
                    "vector", pa.list_(pa.field("item", pa.float32(), nullable=False), dimensions), nullable=False
                ),
            ]
        )
        files.make_folder(self.folder)
        files.remove_stale(self.folder)
        for path in files.listed(self.folder, "part-*.parquet"):
            self._learn(path)
        self.fold(most=1)

    def __contains__(self, text_hash: str) -> bool:
        return text_hash in self._place

    def __len__(self) -> int:
        return len(self._place)

    def keep(self, vectors: Sequence[TextVector]) -> None:
        """Write the vectors as one part; they count from then on. Raises ``OutputError``."""
        self._write({one.text_hash: one for one in vectors})
        self.fold(most=_MOST_SMALL)

    def load(self, hashes: Iterable[str]) -> dict[str, bytes]:
        """The vectors of those texts that are there. A part that turns out to be damaged is set aside."""
        found: dict[str, bytes] = {}
        wanted: dict[Path, list[str]] = {}
        for one in hashes:
            if (path := self._place.get(one)) is not None:
                wanted.setdefault(path, []).append(one)
        for path, inside in wanted.items():
            try:
                vectors = self._vectors(path)
            except (OSError, pa.ArrowException) as error:
                self._lose(path, error)
                continue
            found.update((one, vectors[one]) for one in inside)
        return found

    def fold(self, *, most: int) -> None:
        """Make larger parts of small ones, where there are more than ``most`` of those. Raises ``OutputError``."""
        small = [path for path, count in self._counts.items() if count < self._rows_a_part // 2]
        if len(small) <= most:
            return
        rows: dict[str, TextVector] = {}
        behind: list[Path] = []
        for path in small:
            try:
                table = files.read_table(path)
            except (OSError, pa.ArrowException) as error:
                self._lose(path, error)
                continue
            rows.update((one.text_hash, one) for one in _rows(table) if self._place.get(one.text_hash) == path)
            behind.append(path)
            if len(rows) >= self._rows_a_part:
                self._replace(behind, rows)
                rows, behind = {}, []
        if len(behind) > 1:
            self._replace(behind, rows)

    def _replace(self, old: Sequence[Path], rows: Mapping[str, TextVector]) -> None:
        new = self._write(rows) if rows else None
        for path in old:
            if path != new:
                self._counts.pop(path, None)
                self._open.pop(path, None)
                files.remove(path)

    def _write(self, rows: Mapping[str, TextVector]) -> Path:
        ordered = [rows[key] for key in sorted(rows)]
        name = hashlib.sha256("".join(one.text_hash for one in ordered).encode()).hexdigest()[:16]
        path = self.folder / f"part-{name}.parquet"
        files.write_whole(path, self._bytes(ordered))
        self._counts[path] = len(ordered)
        self._place.update((one.text_hash, path) for one in ordered)
        return path

    def _bytes(self, rows: Sequence[TextVector]) -> bytes:
        count = len(rows)
        numbers = pa.Array.from_buffers(
            pa.float32(),
            count * self._dimensions,
            [None, pa.py_buffer(b"".join(one.vector for one in rows))],
        )
        columns = [
            pa.array([one.text_hash for one in rows], pa.string()),
            pa.array([self._model] * count, pa.string()),
            pa.array([self._dimensions] * count, pa.int32()),
            pa.array([one.characters for one in rows], pa.int64()),
            pa.array([one.embedded for one in rows], pa.int64()),
            pa.FixedSizeListArray.from_arrays(numbers, type=self.schema.field("vector").type),
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(columns, schema=self.schema), sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def _learn(self, path: Path) -> None:
        try:
            # A part that was cut short has no footer; one of another shape is not ours.
            table = files.read_table(path, columns=["text_hash", "dimensions"])
            hashes = table.column("text_hash").to_pylist()
            if any(one != self._dimensions for one in table.column("dimensions").unique().to_pylist()):
                raise pa.ArrowInvalid("its vectors have another length")
        except (OSError, pa.ArrowException, KeyError) as error:
            self._lose(path, error)
            return
        self._counts[path] = len(hashes)
        self._place.update((one, path) for one in hashes)

    def _lose(self, path: Path, error: Exception) -> None:
        logger.warning("%s cannot be read (%s); its texts are embedded again", path, error)
        files.set_aside(path, self.folder / "quarantine")
        self._counts.pop(path, None)
        self._place = {one: place for one, place in self._place.items() if place != path}

    def _vectors(self, path: Path) -> dict[str, bytes]:
        found = self._open.get(path)
        if found is None:
            table = files.read_table(path, columns=["text_hash", "vector"])
            found = dict(zip(table.column("text_hash").to_pylist(), _vectors_of(table), strict=True))
            self._open[path] = found
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return found


def _rows(table: pa.Table) -> Iterable[TextVector]:
    columns = (table.column(name).to_pylist() for name in ("text_hash", "characters", "embedded"))
    return (TextVector(*row) for row in zip(*columns, _vectors_of(table), strict=True))


def _vectors_of(table: pa.Table) -> list[bytes]:
    column = table.column("vector").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    size = 4 * column.type.list_size
    data = column.flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False).tobytes()
    return [data[at : at + size] for at in range(0, size * len(column), size)]
