"""A folder or glob of text files: a record a file, its path the id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.base import Source, kept_columns, one_of

_BATCH = 200
_BATCH_BYTES = 16 * 1024**2
_COLUMNS = ("path", "name", "text")
_READ = pa.schema(
    [("rid", pa.string()), ("name", pa.string()), ("txt", pa.string()), ("problem", pa.string()), ("raw", pa.string())]
)


class TextFiles(Source):
    """Files of UTF-8 text (or UTF-16 with a byte-order mark). ``path`` and ``name`` may be kept."""

    def __init__(
        self, paths: Sequence[Path], *, base: Path, id: str | None, text: str | None, keep: Sequence[str]
    ) -> None:
        self.description = f"{base} ({len(paths)} files)"
        self._paths, self._base = list(paths), base
        if text is not None and text != "text":
            raise SourceError(f"{base} is a folder of text files: their text is the record, --text does not apply")
        if id is not None:
            one_of(id, ("path", "name"), where=self.description, option="--id")
        self._id = id or "path"
        self._kept = kept_columns(keep, _COLUMNS[:2], where=self.description)
        self.kept = pa.schema([(one.name, pa.string()) for one in self._kept])

    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """See ``Source.relation``."""
        con.register("quarry_files", pa.RecordBatchReader.from_batches(_READ, self._batches()))
        columns = {"path": "rid", "name": "name"}
        carried = "".join(f', {columns[one.column]} as "k_{one.name}"' for one in self._kept)
        return f"select {columns[self._id]} as rid, null::integer as occ, txt, problem, raw{carried} from quarry_files"

    def _batches(self) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[str, str, str | None, str | None, str | None]] = []
        size = 0
        for path in self._paths:
            relative = path.relative_to(self._base).as_posix() if path.is_relative_to(self._base) else path.as_posix()
            text, problem, raw = read_text(path)
            rows.append((relative, path.name, text, problem, raw))
            size += len(text or "")
            if len(rows) >= _BATCH or size >= _BATCH_BYTES:
                yield _batch(rows)
                rows, size = [], 0
        if rows:
            yield _batch(rows)


def read_text(path: Path) -> tuple[str | None, str | None, str | None]:
    """A file's text, or None, what is wrong with it, and what can be read of it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}", None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding), None, None
    except UnicodeDecodeError as error:
        readable = data[:2000].decode("utf-8", "replace")
        return (
            None,
            f"{path} is not {encoding.removesuffix('-sig').upper()}: byte {error.start} is 0x{data[error.start]:02x}; convert the file",
            readable,
        )


def _batch(rows: list[tuple[str, str, str | None, str | None, str | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], schema=_READ
    )
