"""The store of one recipe in one output folder: parts, commits, journals, and who may write.

A chunk is written part by part (temp, fsync, rename), its commit last. A part counts only when a commit
names it, so a crash between any two steps loses nothing but the calls in flight. A part that a commit names
is never written again: a chunk that is done once more, by a retry say, gets another name (``layout`` has the
folders).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from extractors.store import files, layout
from extractors.store.commits import Commit, Keys, Part, Verify, commit_keys, load_commits
from extractors.store.journal import RETRY, Journal, Replay
from extractors.store.layout import recipe_folder
from extractors.store.lock import Lock
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
from schemas.arrow import RowCodec
from schemas.ledger import CallRecord
from schemas.outcomes import Extracted, Outcome
from schemas.usage import Usage

logger = logging.getLogger(__name__)


class Store:
    """Open for writing, by one process at a time. A context manager: leaving it gives the lock back."""

    def __init__(
        self, out: Path, folder: Path, schemas: PartSchemas, lock: Lock, *, ledger_text: str, retrying: bool = False
    ) -> None:
        self.out = out
        self.folder = folder
        self.scratch = out / layout.SCRATCH
        self._schemas = schemas
        self._lock = lock
        self._ledger_text = ledger_text
        self._retrying = retrying
        self._commits: list[Commit] | None = None
        self._sequence = 0
        self._donor: tuple[str, pa.Table, dict[str, int]] | None = None

    @classmethod
    def open(
        cls,
        out: str | Path,
        *,
        name: str,
        recipe_id: str,
        recipe: Mapping[str, Any],
        codec: RowCodec,
        kept: pa.Schema,
        ledger_text: Literal["none", "hash", "full"] = "full",
        retrying: bool = False,
    ) -> Store:
        """Make the folders, take the lock, clean up after killed runs. ``retrying`` names the journals as a retry's.

        Raises ``OutputBusy`` when another run writes there, ``OutputError`` for a folder that is not
        Quarry's, cannot be written or has another recipe under the same short id, and ``JobError`` for
        kept columns whose names are taken.
        """
        layout.check_name(name)
        schemas = PartSchemas(codec, kept, recipe_id=recipe_id)
        root = Path(out)
        layout.check_ours(root)
        files.make_folder(root)
        lock = Lock(root)
        lock.take()
        try:
            layout.mark(root)
            for leftover in (f"{layout.MARKER}.*", f"{layout.CATALOG}.*"):
                files.remove_stale(root, leftover)
            files.make_folder(root / layout.RUNS)
            files.remove_stale(root / layout.RUNS)
            files.remove_folder(root / layout.SCRATCH)
            files.make_folder(root / layout.SCRATCH)
            folder = recipe_folder(root, name=name, recipe_id=recipe_id)
            layout.make_recipe_folder(folder, recipe_id, recipe)
            files.write_whole(folder / layout.COLUMNS, schemas.rows.serialize().to_pybytes())
        except BaseException:
            lock.release()
            raise
        return cls(root, folder, schemas, lock, ledger_text=ledger_text, retrying=retrying)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back and delete the scratch files."""
        files.remove_folder(self.scratch)
        self._lock.release()

    def commits(self, *, verify: Verify = "full") -> list[Commit]:
        """The commits that hold, by sequence; read from disk once.

        One whose parts are damaged is set aside with them, so that its records are planned again; a warning
        names the file. ``verify`` "full" reads every part and compares its SHA-256, "size" looks at sizes.
        """
        if self._commits is None:
            self._commits = load_commits(self.folder, verify=verify, quarantine=self.folder / layout.QUARANTINE)
            self._sequence = max((commit.sequence for commit in self._commits), default=0)
        return list(self._commits)

    def commit(
        self, chunk_id: str, items: Sequence[Item], calls: Sequence[CallRecord], *, run_id: str, at: datetime
    ) -> Commit:
        """Write a chunk's parts and make them count. Raises ``OutputError`` (a full disk, say); then
        nothing of the chunk counts. Not for several threads at once.

        The commit's ``chunk`` is ``chunk_id``, or ``chunk_id-2`` and so on when that one is committed already.
        """
        self.commits()
        assert self._commits is not None
        chunk_id = self._free(chunk_id)
        ordered = sorted(items, key=lambda item: item.order)
        rows = [item for item in ordered if isinstance(item.outcome, Extracted)]
        failures = [item for item in ordered if not isinstance(item.outcome, Extracted)]
        parts = []
        if rows:
            parts.append(self._write("rows", chunk_id, len(rows), rows_part(rows, self._schemas)))
        if failures:
            data = failures_part(failures, self._schemas, ledger_text=self._ledger_text)
            parts.append(self._write("failures", chunk_id, len(failures), data))
        if calls:
            data = calls_part(calls, self._schemas, chunk=chunk_id, run_id=run_id)
            parts.append(self._write("calls", chunk_id, len(calls), data))
        self._sequence += 1
        commit = Commit(
            chunk=chunk_id,
            sequence=self._sequence,
            run_id=run_id,
            committed_at=at.astimezone(UTC).isoformat(timespec="milliseconds"),
            records=len(ordered),
            rows=len(rows),
            failures=len(failures),
            merged=sum(item.merged for item in ordered),
            usage=sum((_paid(item) for item in ordered), Usage()),
            parts=tuple(parts),
            kept=tuple(f"{field.name}: {field.type}" for field in self._schemas.kept),
        )
        decided = [item.record for item in (*rows, *failures)]
        keys = Keys(
            tuple(clean_text(record.record_id) for record in decided),
            tuple(record.occurrence for record in decided),
            tuple(record.fingerprint for record in decided),
        )
        files.write_whole(self.folder / "commits" / f"{chunk_id}.json", commit.to_json(keys))
        self._commits.append(commit)
        return commit

    def keys(self) -> Iterator[pa.RecordBatch]:
        """What the commits decided, for planning."""
        return commit_keys(self.folder, self.commits())

    def read_outcome(self, part_path: str, fingerprint: str) -> Outcome:
        """An outcome as it was committed, for a new record with the same text: its value and evidence exactly;
        of a row's attempts their number. Raises ``KeyError``. Not for several threads at once."""
        if self._donor is None or self._donor[0] != part_path:
            # The records of a plan that share a donor come one after the other.
            table = pq.read_table(part_path, partitioning=None)
            places = {one: place for place, one in enumerate(table.column("fingerprint").to_pylist())}
            self._donor = (part_path, table, places)
        _, table, places = self._donor
        if fingerprint not in places:
            raise KeyError(f"{part_path} has no {fingerprint}")
        row = table.slice(places[fingerprint], 1)
        if "_meta" in table.column_names:
            return read_row(row, self._schemas.codec)
        return read_failure(row.to_pylist()[0])

    def journal(self, chunk_id: str) -> Journal:
        """The journal of a chunk in flight."""
        self.commits()
        name = f"{RETRY if self._retrying else ''}{chunk_id}.jsonl"
        return Journal(self.folder / "journal" / name, after=self._sequence)

    def replay(self) -> Replay:
        """The answers that interrupted runs left behind and that no commit has used.

        A run that was stopped commits a part of a chunk and keeps its journal. What that commit decided is
        not replayed: a retry of its failures must ask anew.
        """
        replay = Replay(files.listed(self.folder / "journal", "*.jsonl"))
        if len(replay):
            for commit in self.commits():
                if commit.sequence > replay.after and (part := commit.part("calls")) is not None:
                    used = pq.read_table(self.folder / part.path, columns=["request"], partitioning=None)
                    replay.forget(used.column("request").to_pylist())
        return replay

    def used_requests(self, after: int) -> dict[bytes, int]:
        """The requests whose answers commits after a sequence have used, each with the last such commit."""
        used: dict[bytes, int] = {}
        for commit in self.commits():
            if commit.sequence > after and (part := commit.part("calls")) is not None:
                table = pq.read_table(self.folder / part.path, columns=["request"], partitioning=None)
                for request in table.column("request").to_pylist():
                    used[bytes.fromhex(request)] = commit.sequence
        return used

    def write_run(self, run_id: str, document: Mapping[str, Any]) -> None:
        """Keep a run's report."""
        data = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        files.write_whole(self.out / layout.RUNS / f"{run_id}.json", data)

    def write_metrics(self, run_id: str, data: bytes) -> None:
        """Replace a run's metrics file, which another process may be reading."""
        files.write_whole(self.out / layout.RUNS / f"{run_id}.prom", data)

    def _free(self, chunk_id: str) -> str:
        name, number = chunk_id, 1
        while (self.folder / "commits" / f"{name}.json").exists():
            number += 1
            name = f"{chunk_id}-{number}"
        return name

    def _write(self, kind: str, chunk_id: str, rows: int, data: bytes) -> Part:
        path = f"{kind}/part-{chunk_id}.parquet"
        files.write_whole(self.folder / path, data)
        return Part(kind, path, rows, len(data), files.sha256(data))


def read_keys_of(out: str | Path, *, name: str, recipe_id: str) -> Iterator[pa.RecordBatch]:
    """What a recipe's commits decided, without opening the store: nothing is locked or set aside."""
    folder = recipe_folder(Path(out), name=name, recipe_id=recipe_id)
    return commit_keys(folder, load_commits(folder, verify="full"))


def _paid(item: Item) -> Usage:
    return Usage() if item.merged else item.outcome.usage


__all__ = ["Commit", "Store", "load_commits", "read_keys_of", "recipe_folder"]
