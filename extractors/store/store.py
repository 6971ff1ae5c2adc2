"""The store of one recipe in one output folder: parts, commits, journals, and who may write.

A chunk is written part by part (temp, fsync, rename), its commit last. A part counts only when a commit
names it, so a crash between any two steps loses nothing but the calls in flight. A part that a commit names
is never written again: a chunk that is done once more, by a retry say, gets another name (``layout`` has the
folders).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa

from extractors.store import files, layout
from extractors.store.commits import Commit, Part, Verify, commit_keys, load_commits
from extractors.store.journal import RETRY, Journal, Replay
from extractors.store.layout import recipe_folder
from extractors.store.lock import Lock
from extractors.store.object_lock import ObjectLock, lock_of
from extractors.store.parts import Item, PartSchemas
from extractors.store.prepared import Donors, Prepared, prepare, replay_of, requests_of
from extractors.store.segments import journal_at, journals_in
from schemas.arrow import RowCodec
from schemas.ledger import CallRecord
from schemas.outcomes import Outcome

logger = logging.getLogger(__name__)


class Store:
    """Open for writing, by one process at a time. A context manager: leaving it gives the lock back."""

    def __init__(
        self,
        out: Path,
        folder: Path,
        schemas: PartSchemas,
        lock: Lock | ObjectLock,
        *,
        ledger_text: str,
        retrying: bool = False,
    ) -> None:
        self.out = out
        self.folder = folder
        # DuckDB plans on a disk of this machine, wherever the output is.
        self.scratch = Path(tempfile.mkdtemp(prefix="quarry-")) if files.is_remote(out) else out / layout.SCRATCH
        self._schemas = schemas
        self._lock = lock
        self._ledger_text = ledger_text
        self._retrying = retrying
        self._commits: list[Commit] | None = None
        self._sequence = 0
        self._donors = Donors(schemas.codec)

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
        root = files.place(out)
        layout.check_ours(root)
        files.make_folder(root)
        lock = lock_of(root)
        lock.take()
        try:
            layout.mark(root)
            for leftover in (f"{layout.MARKER}.*", f"{layout.CATALOG}.*"):
                files.remove_stale(root, leftover)
            files.make_folder(root / layout.RUNS)
            files.remove_stale(root / layout.RUNS)
            if not files.is_remote(root):
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
        self.commits()  # what is damaged is set aside, and its name is free again
        prepared = prepare(
            self._free(chunk_id), items, calls, self._schemas, ledger_text=self._ledger_text, run_id=run_id
        )
        return self.keep(prepared, run_id=run_id, at=at)

    def keep(self, prepared: Prepared, *, run_id: str, at: datetime) -> Commit:
        """Make a chunk count that was prepared here or by a worker: its parts are written, then its commit, which
        gets the next sequence. Raises ``OutputError``. Not for several threads at once."""
        self.commits()
        self._lock.check()
        assert self._commits is not None
        name = self._free(prepared.chunk)
        parts = tuple(self._write(kind, name, rows, data) for kind, rows, data in prepared.parts)
        self._sequence += 1
        commit = replace(
            prepared.commit,
            chunk=name,
            sequence=self._sequence,
            run_id=run_id,
            committed_at=at.astimezone(UTC).isoformat(timespec="milliseconds"),
            parts=parts,
        )
        files.write_whole(self.folder / "commits" / f"{name}.json", commit.to_json(prepared.keys))
        self._commits.append(commit)
        return commit

    def keys(self) -> Iterator[pa.RecordBatch]:
        """What the commits decided, for planning."""
        return commit_keys(self.folder, self.commits())

    def read_outcome(self, part_path: str, fingerprint: str) -> Outcome:
        """An outcome as it was committed, for a new record with the same text: its value and evidence exactly;
        of a row's attempts their number. Raises ``KeyError``. Not for several threads at once."""
        return self._donors.outcome(part_path, fingerprint)

    @property
    def sequence(self) -> int:
        """That of the last commit."""
        self.commits()
        return self._sequence

    @property
    def kept(self) -> pa.Schema:
        """The kept columns."""
        return self._schemas.kept

    def journal(self, chunk_id: str) -> Journal:
        """The journal of a chunk in flight."""
        self.commits()
        name = f"{RETRY if self._retrying else ''}{chunk_id}.jsonl"
        return journal_at(self.folder / "journal" / name, after=self._sequence)

    def replay(self) -> Replay:
        """The answers that interrupted runs left behind and that no commit has used.

        A run that was stopped commits a part of a chunk and keeps its journal. What that commit decided is
        not replayed: a retry of its failures must ask anew.
        """
        return replay_of(self.folder, self.commits)

    def used_requests(self, after: int) -> dict[bytes, int]:
        """The requests whose answers commits after a sequence have used, each with the last such commit."""
        used: dict[bytes, int] = {}
        for commit in self.commits():
            if commit.sequence > after and (part := commit.part("calls")) is not None:
                for request in requests_of(self.folder / part.path):
                    used[bytes.fromhex(request)] = commit.sequence
        return used

    def discard_journals(self, chunk_id: str) -> None:
        """A chunk that workers answered is committed: their journals of it have done their work."""
        prefix = RETRY if self._retrying else ""
        for path in journals_in(self.folder / "journal", f"{prefix}{chunk_id}.*jsonl"):
            files.remove(path)

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
    folder = recipe_folder(files.place(out), name=name, recipe_id=recipe_id)
    return commit_keys(folder, load_commits(folder, verify="full"))


__all__ = ["Commit", "Store", "load_commits", "read_keys_of", "recipe_folder"]
