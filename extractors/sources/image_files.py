"""Files of pictures: a record a file, with the columns ``path`` (relative) and ``name``. The default id is the path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from extractors.sources.columns import Wanted, choose
from extractors.sources.pictures import PictureFinder
from extractors.sources.rows import BATCH_ROWS, Batch, RowSource

_COLUMNS = ("path", "name")


class ImageFilesSource(RowSource):
    """One record for each of ``files``, in their order; ``root`` is what their paths are relative to."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, *, root: Path, place: str) -> None:
        self._files = tuple(files)
        self._root = root
        chosen = Wanted(wanted.id, wanted.text, wanted.keep, image=wanted.image or "path")
        self._columns = choose(chosen, _COLUMNS, texts=[], place=place)
        kept = pa.schema([pa.field(name, pa.string()) for _, name in self._columns.keep])
        super().__init__(place, kept, [f"k{number}" for number in range(len(kept))])
        # The files were named by the user, not by data: a link among them may lead anywhere.
        self.pictures = PictureFinder(base=root, root=Path(root.absolute().anchor))

    def batches(self) -> Iterator[Batch]:
        columns = self._columns
        batch = Batch.of(len(columns.keep))
        for path in self._files:
            values = {"path": path.relative_to(self._root).as_posix(), "name": path.name}
            batch.ids.append(values[columns.id or "path"])
            batch.texts.append(columns.text.render(values.get))
            batch.images.append(str(path.absolute()))
            for column, (name, _) in zip(batch.kept, columns.keep, strict=True):
                column.append(values[name])
            if len(batch.ids) >= BATCH_ROWS:
                yield batch
                batch = Batch.of(len(columns.keep))
        yield batch
