"""Text files: a record a file, with the columns ``text``, ``path`` (relative) and ``name``.

A file that is not UTF-8 (nor UTF-16 or UTF-32 with a byte order mark) is a record with a problem that names
the first wrong byte. The default id is the path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from extractors.sources.columns import Wanted, choose
from extractors.sources.encodings import bad_byte, encoding_of, open_bytes
from extractors.sources.rows import BATCH_CHARACTERS, BATCH_ROWS, Batch, RowSource

_COLUMNS = ("path", "name", "text")


class TextFilesSource(RowSource):
    """One record for each of ``files``, in their order; ``root`` is what their paths are relative to."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, *, root: Path, place: str) -> None:
        self._files = tuple(files)
        self._root = root
        self._columns = choose(wanted, _COLUMNS, texts=["text"], place=place)
        kept = pa.schema([pa.field(name, pa.string()) for _, name in self._columns.keep])
        super().__init__(place, kept, [f"k{number}" for number in range(len(kept))])
        if self._columns.id is not None:
            self.id_null_problem = f"the id ({self._columns.id!r}) is empty"

    def batches(self) -> Iterator[Batch]:
        columns = self._columns
        batch, size = Batch.of(len(columns.keep)), 0
        for path in self._files:
            label = path.relative_to(self._root).as_posix()
            text, problem = _read(path)
            values: dict[str, str] = {"path": shown_name(label), "name": shown_name(path.name), "text": text}
            if problem is not None:
                batch.troubles[len(batch.ids)] = (f"{shown_name(label)} {problem}", text)
            batch.ids.append(values[columns.id or "path"])
            batch.texts.append(columns.text.render(values.get))
            for column, (name, _) in zip(batch.kept, columns.keep, strict=True):
                column.append(values[name])
            size += len(text)
            if len(batch.ids) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = Batch.of(len(columns.keep)), 0
        yield batch


def _read(path: Path) -> tuple[str, str | None]:
    """The file's text, and what is wrong with it."""
    try:
        with open_bytes(path) as file:
            data = file.read()
    except (OSError, EOFError) as error:
        return "", f"cannot be read: {error}"
    encoding = encoding_of(data[:4])
    try:
        return data.decode(encoding), None
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            return data.decode(
                encoding, "replace"
            ), f"is not {encoding}, as its byte order mark says: byte {error.start}"
        at = bad_byte(data)
        return data.decode("utf-8", "replace"), f"is not UTF-8: byte 0x{data[at]:02x} at offset {at}"


def shown_name(name: str) -> str:
    """A file name that is not UTF-8 has lone surrogates in it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
