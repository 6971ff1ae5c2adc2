"""Sources: files, folders, DuckDB tables and queries, data frames, the ledger; all as one stream of records.

A source gives DuckDB one SELECT with the columns of ``COLUMNS`` and the kept columns after them, in source
order. What cannot be asked is a row with ``problem`` set; a source never drops a record in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from extractors.sources.base import Source
from extractors.sources.opening import open_any
from extractors.sources.tables import FrameSource, LedgerSource
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Source", "ledger_source", "open_dataframe", "open_source"]


def open_source(job: ExtractionJob) -> Source:
    """The job's source. Raises ``SourceError`` naming the file, what was looked for and what there is."""
    return open_any(job)


def open_dataframe(frame: pa.Table | pd.DataFrame, *, id: str | None, text: str | None, keep: Sequence[str]) -> Source:
    """A pandas DataFrame or an Arrow table as a source. Raises ``SourceError``."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    return FrameSource(table, id=id, text=text, keep=tuple(keep))


def ledger_source(failures: pa.Table) -> Source:
    """Open failures (with their full text) as records to ask again, each with its own occurrence."""
    return LedgerSource(failures)
