"""From a job's ``source``, ``duckdb`` and ``sql`` to the source that reads them."""

from __future__ import annotations

import glob
from pathlib import Path

from extractors.errors import SourceError
from extractors.sources.base import Source, quoted, quoted_text
from extractors.sources.csv_files import CsvFiles
from extractors.sources.jsonl import JsonLines
from extractors.sources.tables import TableSource, database_setup
from extractors.sources.texts import TextFiles
from schemas.job import ExtractionJob

_KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}


def open_any(job: ExtractionJob) -> Source:
    """Raises ``SourceError``."""
    if job.duckdb is not None:
        if not Path(job.duckdb).is_file():
            raise SourceError(f"there is no DuckDB file {job.duckdb}")
        body = f"({job.sql.rstrip().rstrip(';')})" if job.sql else _table(job.source or "")
        where = f"the query on {job.duckdb}" if job.sql else f"{job.source} in {job.duckdb}"
        return TableSource(body, where=where, id=job.id, text=job.text, keep=job.keep, setup=database_setup(job.duckdb))
    if job.sql is not None:
        body = f"({job.sql.rstrip().rstrip(';')})"
        return TableSource(body, where="the query", id=job.id, text=job.text, keep=job.keep)
    return _files(job, job.source or "")


def _files(job: ExtractionJob, source: str) -> Source:
    path = Path(source)
    if path.is_dir():
        paths, base = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")), path
        if not paths:
            raise SourceError(f"the folder {source} holds no files")
        return TextFiles(paths, base=base, id=job.id, text=job.text, keep=job.keep)
    if path.is_file():
        paths = [path]
    elif glob.has_magic(source):
        paths = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())  # noqa: PTH207 - patterns may be absolute
        if not paths:
            raise SourceError(f"no file matches {source}")
    else:
        near = [p.name for p in path.parent.iterdir() if p.is_file()][:5] if path.parent.is_dir() else []
        raise SourceError(
            f"there is no file or folder {source}" + (f"; {path.parent} holds {', '.join(near)}" if near else "")
        )
    kinds = {_KINDS.get(p.suffix.lower(), "text") for p in paths}
    if len(kinds) > 1:
        raise SourceError(
            f"{source} matches files of several kinds ({', '.join(sorted(kinds))}); give a pattern for one"
        )
    kind = kinds.pop()
    if kind == "text":
        return TextFiles(paths, base=_common(paths), id=job.id, text=job.text, keep=job.keep)
    if kind in ("csv", "tsv"):
        return CsvFiles(
            paths, where=source, id=job.id, text=job.text, keep=job.keep, delimiter="\t" if kind == "tsv" else None
        )
    empty = next((p for p in paths if p.stat().st_size == 0), None)
    if empty is not None:
        raise SourceError(f"{empty} is empty (0 bytes)")
    if kind == "jsonl" or (kind == "json" and not _is_array(paths[0])):
        return JsonLines(paths, where=source, id=job.id, text=job.text, keep=job.keep)
    files = ", ".join(quoted_text(str(p)) for p in paths)
    reader = "read_parquet" if kind == "parquet" else "read_json"
    options = (
        ", union_by_name = true"
        if kind == "parquet"
        else ", format = 'array', union_by_name = true, maximum_object_size = 67108864"
    )
    return TableSource(f"{reader}([{files}]{options})", where=source, id=job.id, text=job.text, keep=job.keep)


def _table(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))


def _common(paths: list[Path]) -> Path:
    first = paths[0].parent
    while not all(path.is_relative_to(first) for path in paths):
        first = first.parent
    return first


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"[")
