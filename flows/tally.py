"""What the artifacts tell of a run's rows and failures, added up chunk by chunk in bounded memory. No Prefect here."""

from __future__ import annotations

import io
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extractors.engine import ChunkDone
from extractors.store import files
from extractors.store.commits import Commit

EXAMPLES = 3
_LATENCIES = 10_000
_FRONT, _TAIL = ("record_id", "fingerprint"), ("_evidence", "_confidence", "_meta")


@dataclass(frozen=True, slots=True)
class Example:
    """A failure as it is shown: its record, what was said of it, the beginning of its text."""

    record_id: str
    message: str
    text: str


@dataclass(slots=True)
class Tally:
    """Rows, failures, how many rows have a value in each field, three failures for each reason, latencies.

    ``fields`` maps a field to its rows with a value: not null, not an empty text, not an empty list. Beyond 10,000
    latencies it keeps a random sample of them (Vitter's reservoir, *ACM TOMS* 11, 1985)."""

    rows: int = 0
    failures: int = 0
    tries: int = 0
    calls: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    _latencies: list[float] = field(default_factory=list)
    _seen: int = 0
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, done: ChunkDone, folder: Path) -> None:
        """Count a chunk; its parts lie in the recipe's ``folder``. Raises ``OSError``."""
        self.tries += done.tries
        for latency in done.latencies:
            self._keep(latency)
        for reason, count in done.failures_by_reason.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        if (commit := done.commit) is None:
            return
        self.rows += commit.rows
        self.failures += commit.failures
        self.calls += commit.usage.calls
        if (rows := _read(commit, "rows", folder)) is not None:
            self._fill(rows, kept=len(commit.kept))
        wanted = any(len(self.examples.get(one, ())) < EXAMPLES for one in done.failures_by_reason)
        if wanted and (failures := _read(commit, "failures", folder)) is not None:
            self._exemplify(failures.select(["record_id", "reason", "message", "text"]).to_pylist())

    def latency(self) -> tuple[float | None, float | None]:
        """The median and the 95th percentile, in seconds."""
        known = self._latencies
        if len(known) < 2:
            return (known[0] if known else None), None
        return statistics.median(known), statistics.quantiles(known, n=20)[18]

    def _fill(self, rows: pa.Table, *, kept: int) -> None:
        names = rows.column_names[len(_FRONT) + kept : -len(_TAIL)]
        for name in names:
            self.fields[name] = self.fields.get(name, 0) + filled(rows.column(name))

    def _exemplify(self, failures: Sequence[dict[str, Any]]) -> None:
        for one in failures:
            shown = self.examples.setdefault(one["reason"], [])
            if len(shown) < EXAMPLES:
                shown.append(Example(one["record_id"], one["message"][:1000], (one["text"] or "")[:1000]))

    def _keep(self, latency: float) -> None:
        self._seen += 1
        if len(self._latencies) < _LATENCIES:
            self._latencies.append(latency)
        elif (place := self._draw.randrange(self._seen)) < _LATENCIES:
            self._latencies[place] = latency


def filled(column: pa.ChunkedArray) -> int:
    """How many values say something."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        size = pc.binary_length(column)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        size = pc.list_value_length(column)
    else:
        return len(column) - int(column.null_count)
    return int(pc.sum(pc.greater(size, 0)).as_py() or 0)


def _read(commit: Commit, kind: str, folder: Path) -> pa.Table | None:
    part = commit.part(kind)
    return None if part is None else pq.read_table(io.BytesIO(files.read(folder / part.path)))
