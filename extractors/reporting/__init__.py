"""One static HTML file that shows an output folder: counts, cost, plots, fields, failures, and every record.

``write_report`` reads the Parquet parts through DuckDB, a few hundred records in Python's memory at a time. The page
loads nothing from anywhere and opens from disk; what came from records is in it as packed data or as escaped text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from extractors.errors import JobError
from extractors.reporting import desk as desks
from extractors.reporting.failing import groups
from extractors.reporting.fields import profiles
from extractors.reporting.figures import add_up
from extractors.reporting.page import beginning, ending, pieces
from extractors.reporting.records import Index, Sample, choose_records, stream_records
from extractors.reporting.scope import Scope, choose
from extractors.reporting.sections import Story
from extractors.reporting.texts import find_texts
from extractors.sources import Source
from extractors.store import files

logger = logging.getLogger(__name__)
LIMIT = 10_000
"""Records in the page by default."""
Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many records are (0 of 0 where that is not known)."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written: its file, what it is about, how many records it holds, its bytes."""

    path: Path
    scope: Scope
    sample: Sample
    bytes: int


def write_report(
    out: str | Path,
    file: str | Path | None = None,
    *,
    schema: str | None = None,
    recipe: str | None = None,
    run: str | None = None,
    limit: int = LIMIT,
    texts: bool = True,
    source: Source | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the report of ``out`` to ``file`` (default: ``OUT/report.html``).

    ``schema``, ``recipe`` and ``run`` say what to report; default is the recipe of the latest run. ``limit``: records
    in the page; of more, a sample with all failures. ``texts=False`` leaves the source texts out; ``source`` is where
    to read them when the job's own source is not (a data frame). Raises ``OutputError`` and ``JobError``.
    """
    if limit < 1:
        raise JobError(f"--limit {limit}: give 1 or more")
    tell = progress or (lambda what, done, total: None)
    if files.is_remote(out if file is None else file):
        raise JobError(
            f"the report is a file on a disk, and {file or out} is on an object store: name one with -o FILE"
        )
    scope = choose(out, schema=schema, recipe=recipe, run=run)
    target = Path(file) if file is not None else Path(out) / "report.html"
    temp = files.temporary(target)
    made_at = f"{(now or datetime.now(UTC)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    try:
        for memory in desks.MEMORY:
            tell("reading the tables", 0, 0)
            try:
                with desks.opened(scope, memory=memory) as desk:
                    sample = _written(
                        desk, scope, temp, limit=limit, texts=texts, source=source, made_at=made_at, tell=tell
                    )
                break
            except duckdb.OutOfMemoryException:
                if memory == desks.MEMORY[-1]:
                    raise
                logger.info("the report of %s needs more than %s of memory", out, memory)
        files.rename(temp, target)
    except OSError as error:
        raise files.explained(error, target) from error
    finally:
        files.remove(temp)
    return Report(target, scope, sample, target.stat().st_size)


def _written(
    desk: desks.Desk,
    scope: Scope,
    temp: Path,
    *,
    limit: int,
    texts: bool,
    source: Source | None,
    made_at: str,
    tell: Progress,
) -> Sample:
    """Write the page to ``temp``."""
    figures = add_up(desk, scope)
    tell("measuring the fields", 0, 0)
    measured, failing = profiles(desk), groups(desk)
    sample = choose_records(desk, limit=limit)
    tell("reading the source texts", 0, 0)
    missing = find_texts(desk, scope, read=texts, source=source)
    story = Story(scope, figures, measured, failing, sample, made_at, missing)
    index, sizes = Index(), list[int]()
    with temp.open("w", encoding="utf-8", newline="\n") as sink:
        sink.write(beginning(story))
        for piece in pieces(stream_records(desk, index), sizes):
            sink.write(piece)
            tell("writing the records", sum(sizes), sample.records)
        sink.write(ending(story, desk, index, sizes))
    return sample


__all__ = ["LIMIT", "Report", "write_report"]
