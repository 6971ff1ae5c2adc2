"""The records' source texts: a row does not keep its text, so it is read from the run's source again.

What is read is known by its fingerprint, so a text is shown with a row only when it is the very text that was
asked: a source that has changed since gives no wrong evidence, it gives none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
from pydantic import ValidationError

from extractors.errors import QuarryError
from extractors.reporting.desk import Desk
from extractors.reporting.scope import Scope
from extractors.sources import Source, open_source
from extractors.sources.text_template import sql_text
from schemas.job import ExtractionJob

logger = logging.getLogger(__name__)
IN_MEMORY = "<in memory>"
_SOURCE_FIELDS = ("source", "duckdb", "sql", "id", "text", "image", "image_root", "image_hosts", "scanned_pages")
_HASH = "text like 'sha256:%' and length(text) = 71"


def find_texts(desk: Desk, scope: Scope, *, read: bool = True, source: Source | None = None) -> list[str]:
    """Make ``desk.texts`` (fingerprint, text, image: its picture's name) for the records of ``desk.chosen``.

    The ledger's texts first, then those of ``source``, then the sources of the recipe's jobs, newest first, until
    none is missing. Returns why some are missing, in sentences; nothing when none is. ``read=False`` takes no text
    from anywhere.
    """
    desk.con.execute("create table desk.texts (fingerprint varchar, text varchar, image varchar)")
    if not read:
        return ["The report was made with --no-text: evidence is shown by its quotes alone."]
    desk.con.execute(
        "insert into desk.texts select distinct on (fingerprint) fingerprint, text, null from desk.failures "
        f"where text is not null and not ({_HASH})"
    )
    troubles: list[str] = []
    if source is not None and _missing(desk):
        _take(desk, source, troubles)
    jobs = _jobs(scope)
    if not jobs and _missing(desk):
        troubles.append("No run has left its job in the folder, so the source is not known.")
    for job in jobs:
        if not _missing(desk):
            break
        _reread(desk, job, troubles)
    missing = _missing(desk)
    if not missing:
        return []
    return troubles or [
        f"The source was read again, but {missing:,} of the records shown are no longer in it as they were when they "
        "were asked: those are shown with their quotes alone."
    ]


def _reread(desk: Desk, job: Mapping[str, Any], troubles: list[str]) -> None:
    if job.get("source") == IN_MEMORY:
        troubles.append(
            "The records came from a data frame in memory, which is gone: evidence is shown by its quotes alone. "
            "Write the report from the same Python process (Extraction.write_report) to have the texts."
        )
        return
    try:
        with open_source(ExtractionJob.model_validate(job)) as source:
            _take(desk, source, troubles)
    except (QuarryError, ValidationError, OSError) as error:
        told = str(error).splitlines()[0]
        troubles.append(
            f"The source cannot be read again ({told}), so evidence is shown by its quotes alone. A relative path is "
            "looked for from the folder in which the report is made."
        )


def _take(desk: Desk, source: Source, troubles: list[str]) -> None:
    """Add the texts that are missing, from a copy of the source."""
    path = desk.folder / "source.duckdb"
    if source.pictures is not None:
        source.pictures.scratch = desk.folder / "pictures"
    desk.con.execute(f"attach {sql_text(str(path))} as quarry_copy")
    try:
        source.stage(desk.con, "quarry_copy.staged")
        desk.con.execute(
            "insert into desk.texts select distinct on (s.fingerprint) s.fingerprint, s.text, s.image::json ->> '$.name' from quarry_copy.staged s "
            "semi join desk.chosen c on s.fingerprint = c.fingerprint "
            "anti join desk.texts t on s.fingerprint = t.fingerprint"
        )
    except duckdb.OutOfMemoryException:
        raise
    except (QuarryError, duckdb.Error) as error:
        logger.warning("%s cannot be read again: %s", source.place, error)
        troubles.append(f"The source cannot be read again: {str(error).splitlines()[0]}.")
    finally:
        desk.con.execute("use memory; detach quarry_copy")
        path.unlink(missing_ok=True)


def _missing(desk: Desk) -> int:
    """Records of the report without a text."""
    found = desk.one("select count(*) as n from desk.chosen c anti join desk.texts t on c.fingerprint = t.fingerprint")
    return int(found["n"])


def _jobs(scope: Scope) -> Sequence[Mapping[str, Any]]:
    """The recipe's jobs that differ in where their records come from, newest first; a run's own when one is shown."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in scope.runs:
        if (scope.run is None or run["run_id"] == scope.run) and isinstance(job := run.get("job"), Mapping):
            found.setdefault(repr([job.get(name) for name in _SOURCE_FIELDS]), job)
    return list(found.values())
