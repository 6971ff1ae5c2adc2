"""Where records come from: files, pictures, folders, globs, DuckDB tables and queries, data frames, the ledger.

``open_source`` looks at the source (does it exist, which columns has it, what are the types of the kept
ones) and reads nothing else; ``Source.stage`` then reads it once, in order, into a DuckDB table on disk.

* An id that occurs again is another occurrence of it, never merged.
* What cannot be asked (a broken line, a null or blank text, bytes that are not UTF-8, a null id) becomes a
  record with a ``problem``; a source that cannot be read at all is a ``SourceError``.
* A table file of 0 bytes is an error; a header without rows, or ``[]``, is a source of no records.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from extractors.documents.converted import DocumentLimits
from extractors.sources.columns import Wanted
from extractors.sources.files import has_documents, is_pictures, open_files
from extractors.sources.ledger import LedgerSource, ledger_source
from extractors.sources.source import Source
from extractors.sources.tables import QuerySource, checked, database_source, frame_source
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LedgerSource",
    "Source",
    "has_pictures",
    "ledger_source",
    "open_dataframe",
    "open_source",
    "reads_documents",
]


def open_source(job: ExtractionJob) -> Source:
    """The job's records. Raises ``SourceError``."""
    wanted = Wanted(
        job.id,
        job.text,
        tuple(job.keep),
        image=job.image,
        image_root=job.image_root,
        image_hosts=job.image_hosts,
        documents=DocumentLimits(
            file_bytes=job.document_max_mb * 1_000_000, pages=job.document_max_pages, seconds=job.document_timeout
        ),
        page_pictures=job.scanned_pages == "pictures",
    )
    if job.duckdb is not None:
        return database_source(Path(job.duckdb).expanduser(), table=job.source, sql=job.sql, wanted=wanted)
    if job.sql is not None:
        return QuerySource(checked(job.sql), wanted, place="the query")
    assert job.source is not None
    return open_files(job.source, wanted)


def has_pictures(job: ExtractionJob) -> bool:
    """Whether the job's records come with pictures. Looks at no more than names."""
    if job.image is not None:
        return True
    if job.source is None or job.duckdb is not None:
        return False
    return is_pictures(job.source) or (job.scanned_pages == "pictures" and has_documents(job.source))


def reads_documents(job: ExtractionJob) -> bool:
    """Whether the job's records are documents that are there. Looks at no more than names."""
    if job.source is None or job.duckdb is not None:
        return False
    path = Path(job.source).expanduser()
    return has_documents(job.source) and (path.exists() or glob.has_magic(job.source))


def open_dataframe(
    frame: pa.Table | pd.DataFrame,
    *,
    id: str | None = None,
    text: str | None = None,
    keep: Sequence[str] = (),
    image: str | None = None,
    image_root: str | None = None,
    image_hosts: Sequence[str] = (),
) -> Source:
    """The rows of a pandas DataFrame or an Arrow table; the options mean what they mean in the job."""
    pictures = {"image": image, "image_root": image_root, "image_hosts": tuple(image_hosts)}
    return frame_source(frame, Wanted(id, text, tuple(keep), **pictures))  # type: ignore[arg-type]
