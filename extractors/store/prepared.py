"""A chunk's parts before they are written, wherever they were made; and what is read back of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from extractors.store import files
from extractors.store.commits import Commit, Keys
from extractors.store.journal import PACKED, Replay
from extractors.store.parts import (
    Item,
    PartSchemas,
    calls_part,
    clean_text,
    failures_part,
    read_failure,
    read_row,
    rows_part,
)
from extractors.store.segments import journals_in
from schemas.arrow import RowCodec
from schemas.ledger import COLUMNS, CallRecord
from schemas.outcomes import Extracted, Outcome
from schemas.usage import Usage

_WITH_PACKS = 3
"""The version of the columns (``schemas.ledger.COLUMNS``) since which calls have packs."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk's parts as (kind, rows, bytes), and its commit without a place in the sequence, a time and files: those
    are given by who writes it. It can be sent from one process to another."""

    commit: Commit
    keys: Keys
    parts: tuple[tuple[str, int, bytes], ...]

    @property
    def chunk(self) -> str:
        """The chunk's name."""
        return self.commit.chunk


def prepare(
    chunk_id: str,
    items: Sequence[Item],
    calls: Sequence[CallRecord],
    schemas: PartSchemas,
    *,
    ledger_text: str,
    run_id: str,
) -> Prepared:
    """The parts of a chunk; the same outcomes give the same bytes. Nothing is written."""
    ordered = sorted(items, key=lambda item: item.order)
    rows = [item for item in ordered if isinstance(item.outcome, Extracted)]
    failures = [item for item in ordered if not isinstance(item.outcome, Extracted)]
    parts = []
    if rows:
        parts.append(("rows", len(rows), rows_part(rows, schemas)))
    if failures:
        parts.append(("failures", len(failures), failures_part(failures, schemas, ledger_text=ledger_text)))
    if calls:
        parts.append(("calls", len(calls), calls_part(calls, schemas, chunk=chunk_id, run_id=run_id)))
    commit = Commit(
        chunk=chunk_id,
        sequence=0,
        run_id=run_id,
        committed_at="",
        records=len(ordered),
        rows=len(rows),
        failures=len(failures),
        merged=sum(item.merged for item in ordered),
        usage=sum((_paid(item) for item in ordered), Usage()),
        parts=(),
        kept=tuple(f"{field.name}: {field.type}" for field in schemas.kept),
        columns=COLUMNS,
    )
    decided = [item.record for item in (*rows, *failures)]
    keys = Keys(
        tuple(clean_text(record.record_id) for record in decided),
        tuple(record.occurrence for record in decided),
        tuple(record.fingerprint for record in decided),
    )
    return Prepared(commit, keys, tuple(parts))


class Donors:
    """Committed outcomes that new records with the same text get a copy of."""

    def __init__(self, codec: RowCodec) -> None:
        self._codec = codec
        self._last: tuple[str, pa.Table, dict[str, int]] | None = None

    def outcome(self, part_path: str, fingerprint: str) -> Outcome:
        """An outcome as it was committed. Raises ``KeyError``. Not for several threads at once."""
        if self._last is None or self._last[0] != part_path:
            # The records of a plan that share a donor come one after the other.
            table = files.read_table(files.place(part_path))
            places = {one: place for place, one in enumerate(table.column("fingerprint").to_pylist())}
            self._last = (part_path, table, places)
        _, table, places = self._last
        if fingerprint not in places:
            raise KeyError(f"{part_path} has no {fingerprint}")
        row = table.slice(places[fingerprint], 1)
        if "_meta" in table.column_names:
            return read_row(row, self._codec)
        return read_failure(row.to_pylist()[0])


def replay_of(folder: Path, commits: Callable[[], Sequence[Commit]]) -> Replay:
    """The answers in a recipe's journals that no commit has used. ``commits`` is asked when there are any."""
    replay = Replay(journals_in(folder / "journal"))
    if len(replay):
        for commit in commits():
            if commit.sequence > replay.after and (part := commit.part("calls")) is not None:
                replay.forget(requests_of(folder / part.path))
                if commit.columns >= _WITH_PACKS:
                    replay.forget(_packed(folder / part.path))
    return replay


def requests_of(part: Path) -> list[str]:
    """The digests of the requests in a part of calls."""
    found: list[str] = files.read_table(part, columns=["request"]).column("request").to_pylist()
    return found


def _packed(part: Path) -> list[str]:
    """The journal's names of the shares in a part of calls. A call about one record that was given up has the same
    request and no pack, and uses up no share."""
    table = files.read_table(part, columns=["request", "pack"])
    return [f"{row['request']}{PACKED}" for row in table.to_pylist() if row["pack"] is not None]


def _paid(item: Item) -> Usage:
    return Usage() if item.merged else item.outcome.usage
