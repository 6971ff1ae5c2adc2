"""Documents: a record a file, with the columns ``text``, ``path`` (relative), ``name``, ``kind``, ``pages`` and ``title``.

A PDF page that is a picture without text is asked about as a picture where the model reads those. The default id is
the path.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa

from extractors.documents import Converted, DocumentWorkers
from extractors.sources.columns import Wanted, choose
from extractors.sources.pictures import PictureFinder, as_json
from extractors.sources.rows import BATCH_CHARACTERS, BATCH_ROWS, Batch, RowSource
from extractors.sources.text_files import shown_name
from extractors.sources.text_template import listed

logger = logging.getLogger(__name__)
_COLUMNS = ("path", "name", "text", "kind", "pages", "title")


class DocumentsSource(RowSource):
    """One record for each of ``files``, in their order; ``root`` is what their paths are relative to."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, *, root: Path, place: str) -> None:
        self._files = tuple(files)
        self._root = root
        self._limits = wanted.documents
        self._as_pictures = wanted.page_pictures
        self._columns = choose(wanted, _COLUMNS, texts=["text"], place=place)
        kinds = {"pages": pa.int32()}
        kept = pa.schema([pa.field(name, kinds.get(column, pa.string())) for column, name in self._columns.keep])
        casts = {"pages": "::integer"}
        super().__init__(
            place, kept, [f"k{number}{casts.get(column, '')}" for number, (column, _) in enumerate(self._columns.keep)]
        )
        if self._columns.id is not None:
            self.id_null_problem = f"the id ({self._columns.id!r}) is empty"
        self.pictures = _Pages(base=root)

    def batches(self) -> Iterator[Batch]:
        columns = self._columns
        batch, size = Batch.of(len(columns.keep)), 0
        left_out: list[str] = []
        with DocumentWorkers() as workers:
            paths = {str(path.absolute()): path for path in self._files}
            for place, made in workers.converted(paths, self._limits):
                path = paths[place]
                label = shown_name(path.relative_to(self._root).as_posix())
                text, problem, image = self._record(place, label, made, left_out)
                found = made if isinstance(made, Converted) else Converted("", "")
                values: dict[str, str | None] = {
                    "path": label,
                    "name": shown_name(path.name),
                    "text": text,
                    "kind": found.kind or None,
                    "pages": str(found.pages) if found.pages else None,
                    "title": found.title,
                }
                if problem is not None:
                    batch.troubles[len(batch.ids)] = (f"{label} {problem}", text)
                batch.ids.append(values[columns.id or "path"])
                batch.texts.append(columns.text.render(values.get))
                batch.images.append(image)
                for column, (name, _) in zip(batch.kept, columns.keep, strict=True):
                    column.append(values[name])
                size += len(text)
                if len(batch.ids) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                    yield batch
                    batch, size = Batch.of(len(columns.keep)), 0
        if left_out:
            logger.warning(
                "%d documents have pages that are pictures without text, which were left out: %s. With --scanned-pages "
                "pictures a model that reads those is shown them",
                len(left_out),
                listed(left_out, most=5),
            )
        yield batch

    def _record(
        self, place: str, label: str, made: Converted | str, left_out: list[str]
    ) -> tuple[str, str | None, str | None]:
        """The record's text, its problem, and what its pictures and boxes are read from."""
        if isinstance(made, str):
            return "", made, None
        if not made.pages:
            return made.text, None if made.text.strip() else "holds no text", None
        blank = not made.text.strip()
        if made.pictures and self._as_pictures:
            numbers = list(made.pictures)
            try:
                digest = hashlib.sha256(Path(place).read_bytes()).hexdigest()
            except OSError as error:
                return "", f"cannot be read any more: {error.strerror or error}", None
            told = {"place": as_json(place), "name": label, "sha256": digest, "pages": numbers}
            return "" if blank else made.text, None, orjson.dumps(told).decode()
        if blank and made.pictures:
            why = (
                f"has no text: {len(made.pictures)} of its {made.pages} pages are pictures. Ask about them as pictures (--scanned-pages "
                "pictures) with a model that reads those, such as qwen3-vl-plus, or run OCR over it first"
            )
            return "", why, None
        if blank:
            return "", f"holds no text on its {made.pages} pages", None
        if made.pictures:
            left_out.append(f"{label} (page {', '.join(map(str, made.pictures[:5]))})")
        return made.text, None, orjson.dumps({"document": as_json(place)}).decode()


class _Pages(PictureFinder):
    """The cells of ``image`` are JSON already: they were written here, not by data."""

    def from_text(self, cell: str | None) -> str | None:
        return cell
