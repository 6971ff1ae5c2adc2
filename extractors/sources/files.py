"""From a path, a folder or a glob to the files and the reader for them."""

from __future__ import annotations

import difflib
import errno
import glob
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from extractors.documents import SUFFIXES as DOCUMENTS
from extractors.errors import SourceError
from extractors.sources.columns import Wanted
from extractors.sources.csv_rows import CsvSource
from extractors.sources.documents import DocumentsSource
from extractors.sources.image_files import ImageFilesSource
from extractors.sources.json_rows import JsonSource
from extractors.sources.pictures import SUFFIXES
from extractors.sources.source import Source
from extractors.sources.tables import parquet_source
from extractors.sources.text_files import TextFilesSource
from extractors.sources.text_template import listed

logger = logging.getLogger(__name__)
_KINDS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".parquet": "parquet", ".pq": "parquet", **dict.fromkeys(SUFFIXES, "image"),
    **dict.fromkeys(DOCUMENTS, "document"),
}  # fmt: skip
_ELSEWHERE = {
    ".duckdb": "give it as --duckdb FILE with a table name or --sql",
    ".db": "give a DuckDB database as --duckdb FILE with a table name or --sql",
    ".sqlite": "read it with --sql \"select * from sqlite_scan('FILE', 'TABLE')\"",
    ".xlsx": "save the sheet as CSV first",
    ".xls": "save the sheet as CSV first",
    ".zip": "unpack it first",
}


def open_files(source: str, wanted: Wanted) -> Source:
    """The source at a path, in a folder (subfolders too, hidden files not) or under a glob.

    Raises ``SourceError`` that says what was looked for.
    """
    path = Path(source).expanduser()
    if not _can_be(path):
        raise SourceError(
            f"there is no file or folder {source[:60]}... ({len(source):,} characters): no name is so long"
        )
    if path.is_file():
        return _reader([path], wanted, root=path.parent, place=source)
    if path.is_dir():
        files = _visible((each for each in path.rglob("*")), path)
        if not files:
            raise SourceError(f"the folder {source} holds no files")
        return _reader(files, wanted, root=path, place=f"the folder {source}")
    if glob.has_magic(source):
        root = _root(path)
        files = _visible((Path(each) for each in glob.glob(str(path), recursive=True)), root)  # noqa: PTH207 - patterns may be absolute
        if not files:
            raise SourceError(f"no file matches {source} (looked from {Path.cwd()}); quote the pattern in a shell")
        return _reader(files, wanted, root=root, place=source)
    raise SourceError(f"there is no file or folder {source} (looked from {Path.cwd()}){_near(path)}")


def _reader(files: list[Path], wanted: Wanted, *, root: Path, place: str) -> Source:
    kinds = {_kind(path) for path in files}
    if kinds == {"document", "text"}:
        # Beside documents, a file of another name is a document as well: its content says of what kind.
        kinds = {"document"}
    if len(kinds) > 1:
        examples = {_kind(path): path.name for path in reversed(files)}
        told = ", ".join(f"{kind} ({name})" for kind, name in sorted(examples.items()))
        raise SourceError(f"{place} mixes kinds of files: {told}; choose one kind with a glob such as '{root}/*.csv'")
    [kind] = kinds
    if kind == "text":
        if wanted.image is not None:
            raise SourceError(f"{place} is text files, which have no column {wanted.image!r}; leave --image out")
        for path in files:
            if hint := _ELSEWHERE.get(path.suffix.lower()):
                raise SourceError(f"{path} is not a text file: {hint}")
        return TextFilesSource(files, wanted, root=root, place=place)
    if kind == "document":
        if wanted.image is not None:
            raise SourceError(f"{place} is documents, which have no column {wanted.image!r}; leave --image out")
        return DocumentsSource(files, wanted, root=root, place=place)
    if kind == "image":
        return ImageFilesSource(files, wanted, root=root, place=place)
    if len(files) > 1:
        files = _not_empty(files, place)
    source: Source
    if kind == "csv":
        source = CsvSource(files, wanted, place=place)
    elif kind == "json":
        source = JsonSource(files, wanted, place=place)
    else:
        source = parquet_source(files, wanted, place=place)
    source.pictures = wanted.pictures(root)
    return source


def is_pictures(source: str) -> bool:
    """Whether the source at a path, in a folder or under a glob is files of pictures, by the first one's name."""
    return _first_kind(source) == "image"


def has_documents(source: str) -> bool:
    """Whether there are documents at a path, in a folder or under a glob, by the names of its files."""
    return any(_kind(each) == "document" for each in _named(source))


def _can_be(path: Path) -> bool:
    """Whether the system takes this for a name: a text that was given in the place of a path may be too long for one."""
    try:
        path.stat()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def _first_kind(source: str) -> str | None:
    return next((_kind(each) for each in _named(source)), None)


def _named(source: str) -> Iterator[Path]:
    """The files of a source, hidden ones left out, in no order."""
    path = Path(source).expanduser()
    if not _can_be(path):
        return
    if path.is_dir():
        found: Iterable[Path] = path.rglob("*")
        root = path
    elif glob.has_magic(source) and not path.exists():
        found, root = (Path(each) for each in glob.iglob(str(path), recursive=True)), _root(path)  # noqa: PTH207
    else:
        yield path
        return
    for each in found:
        if each.is_file() and not any(part.startswith(".") for part in each.relative_to(root).parts):
            yield each


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix, "text")


def _visible(paths: Iterable[Path], root: Path) -> list[Path]:
    """Files in path order, those that are hidden or lie in a hidden folder left out."""
    return sorted(
        path for path in paths if path.is_file() and not any(p.startswith(".") for p in path.relative_to(root).parts)
    )


def _not_empty(files: list[Path], place: str) -> list[Path]:
    """Of several table files an empty one holds no record; it is told of and passed over."""
    full = [path for path in files if path.stat().st_size]
    if not full:
        raise SourceError(f"all {len(files)} files of {place} are empty (0 bytes): check what wrote them")
    if len(full) < len(files):
        empty = [str(path) for path in files if not path.stat().st_size]
        logger.warning("%d of %d files are empty and hold no record: %s", len(empty), len(files), listed(empty, most=5))
    return full


def _root(pattern: Path) -> Path:
    """The folder above the first part of a glob that is not a plain name."""
    parts = pattern.parts
    plain = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:plain]) if plain else Path()


def _near(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return f"; its folder {path.parent} does not exist either"
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
