"""The store of one recipe in one output folder: parts, commits, journals, and who may write.

::

    OUT/quarry.json                         says that the folder is ours
    OUT/<name>/recipe=<id8>/recipe.json     columns.arrow rows/  failures/  calls/  commits/  journal/  quarantine/
    OUT/runs/<run-id>.json

A chunk is written part by part (temp, fsync, rename), its commit last. A part counts only when a commit
names it, so a crash between any two steps loses nothing but the calls in flight.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extractors.errors import OutputError
from extractors.store import files
from extractors.store.commits import Commit, Keys, Part, read_commit, read_keys
from extractors.store.journal import Journal, Replay
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
from extractors.store.plan import KEYS
from schemas.arrow import RowCodec
from schemas.ledger import CallRecord
from schemas.outcomes import Extracted, Outcome
from schemas.usage import Usage

logger = logging.getLogger(__name__)
FORMAT = 1
_KEYS_AT_ONCE = 20_000
MARKER = "quarry.json"
_FOLDERS = ("rows", "failures", "calls", "commits", "journal")


class Store:
    """Open for writing, by one process at a time. A context manager: leaving it gives the lock back."""

    def __init__(self, out: Path, folder: Path, schemas: PartSchemas, lock: Lock, *, ledger_text: str) -> None:
        self.out = out
        self.folder = folder
        self.scratch = out / ".scratch"
        self._schemas = schemas
        self._lock = lock
        self._ledger_text = ledger_text
        self._commits: list[Commit] | None = None
        self._sequence = 0

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
    ) -> Store:
        """Make the folders, take the lock, clean up after killed runs.

        Raises ``OutputBusy`` when another run writes there, ``OutputError`` for a folder that is not
        Quarry's, cannot be written or has another recipe under the same short id, and ``JobError`` for
        kept columns whose names are taken.
        """
        schemas = PartSchemas(codec, kept, recipe_id=recipe_id)
        root = Path(out)
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root} is a file; --out must name a folder")
        files.make_folder(root)
        _claim(root)
        lock = Lock(root)
        lock.take()
        try:
            folder = recipe_folder(root, name=name, recipe_id=recipe_id)
            for one in (root / "runs", *(folder / kind for kind in _FOLDERS)):
                files.make_folder(one)
                files.remove_stale(one)
            shutil.rmtree(root / ".scratch", ignore_errors=True)
            files.make_folder(root / ".scratch")
            _same_recipe(folder / "recipe.json", recipe_id, recipe)
            files.write_whole(folder / "columns.arrow", schemas.rows.serialize().to_pybytes())
        except BaseException:
            lock.release()
            raise
        return cls(root, folder, schemas, lock, ledger_text=ledger_text)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back and delete the scratch files."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    def commits(self) -> list[Commit]:
        """The commits that hold, by sequence. One whose parts are damaged is set aside with them, so that
        its records are planned again; a warning names the file."""
        if self._commits is None:
            self._commits = load_commits(self.folder, quarantine=self.folder / "quarantine")
            self._sequence = max((commit.sequence for commit in self._commits), default=0)
        return list(self._commits)

    def commit(
        self, chunk_id: str, items: Sequence[Item], calls: Sequence[CallRecord], *, run_id: str, at: datetime
    ) -> Commit:
        """Write a chunk's parts and make them count. Raises ``OutputError`` (a full disk, say); then
        nothing of the chunk counts. Not for several threads at once."""
        self.commits()
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
            committed_at=at.isoformat(timespec="milliseconds"),
            records=len(ordered),
            rows=len(rows),
            failures=len(failures),
            merged=sum(item.merged for item in ordered),
            usage=sum((_paid(item) for item in ordered), Usage()),
            parts=tuple(parts),
        )
        decided = [item.record for item in (*rows, *failures)]
        keys = Keys(
            tuple(clean_text(record.record_id) for record in decided),
            tuple(record.occurrence for record in decided),
            tuple(record.fingerprint for record in decided),
        )
        files.write_whole(self.folder / "commits" / f"{chunk_id}.json", commit.to_json(keys))
        return commit

    def keys(self) -> Iterator[pa.RecordBatch]:
        """What the commits decided, for planning."""
        return commit_keys(self.folder, self.commits())

    def read_outcome(self, part_path: str, fingerprint: str) -> Outcome:
        """An outcome as it was committed, for a new record with the same text. Raises ``KeyError``."""
        table = pq.read_table(part_path, filters=pc.field("fingerprint") == fingerprint, partitioning=None)
        if not table.num_rows:
            raise KeyError(f"{part_path} has no {fingerprint}")
        if "_meta" in table.column_names:
            return read_row(table.slice(0, 1), self._schemas.codec)
        return read_failure(table.slice(0, 1).to_pylist()[0])

    def journal(self, chunk_id: str) -> Journal:
        """The journal of a chunk in flight."""
        return Journal(self.folder / "journal" / f"{chunk_id}.jsonl")

    def replay(self) -> Replay:
        """The answers that interrupted runs left behind."""
        return Replay(sorted((self.folder / "journal").glob("*.jsonl")))

    def write_run(self, run_id: str, document: Mapping[str, Any]) -> None:
        """Keep a run's report."""
        data = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        files.write_whole(self.out / "runs" / f"{run_id}.json", data)

    def _write(self, kind: str, chunk_id: str, rows: int, data: bytes) -> Part:
        path = f"{kind}/part-{chunk_id}.parquet"
        files.write_whole(self.folder / path, data)
        return Part(kind, path, rows, len(data), files.sha256(data))


def recipe_folder(out: Path, *, name: str, recipe_id: str) -> Path:
    """Where a recipe's files lie."""
    return out / name / f"recipe={recipe_id[:8]}"


def read_keys_of(out: str | Path, *, name: str, recipe_id: str) -> Iterator[pa.RecordBatch]:
    """What a recipe's commits decided, without opening the store: nothing is locked or set aside."""
    folder = recipe_folder(Path(out), name=name, recipe_id=recipe_id)
    return commit_keys(folder, load_commits(folder, quarantine=None))


def load_commits(folder: Path, *, quarantine: Path | None) -> list[Commit]:
    """The commits of a recipe's folder whose parts are as they were written, by sequence.

    Every part's size and SHA-256 are checked (about 1 ms a part). Damaged ones are left out, and moved
    to ``quarantine`` with their commit when it is given.
    """
    found = []
    for path in sorted((folder / "commits").glob("*.json")):
        try:
            commit = read_commit(path)
        except ValueError as error:
            logger.warning("%s; its records are done again", error)
            if quarantine is not None:
                files.set_aside(path, quarantine)
            continue
        damage = next((trouble for part in commit.parts if (trouble := _damage(folder / part.path, part))), None)
        if damage is None:
            found.append(commit)
            continue
        logger.warning("%s; the %d records of chunk %s are done again", damage, commit.records, commit.chunk)
        if quarantine is not None:
            # The commit goes first: a part without a commit does not count, a commit without a part would.
            files.set_aside(path, quarantine)
            for part in commit.parts:
                files.set_aside(folder / part.path, quarantine)
    return sorted(found, key=lambda commit: commit.sequence)


def commit_keys(folder: Path, commits: Sequence[Commit]) -> Iterator[pa.RecordBatch]:
    """The decided records of commits as batches of ``plan.KEYS``, some thousands of rows each."""
    columns: list[list[Any]] = [[] for _ in KEYS]
    for commit in commits:
        keys = read_keys(folder / "commits" / f"{commit.chunk}.json")
        paths = {part.kind: str(folder / part.path) for part in commit.parts}
        columns[0] += keys.record_ids
        columns[1] += keys.occurrences
        columns[2] += keys.fingerprints
        columns[3] += [commit.sequence] * commit.records
        columns[4] += [True] * commit.rows + [False] * commit.failures
        columns[5] += [paths.get("rows")] * commit.rows + [paths.get("failures")] * commit.failures
        if len(columns[0]) >= _KEYS_AT_ONCE:
            yield _batch(columns)
            columns = [[] for _ in KEYS]
    if columns[0]:
        yield _batch(columns)


def _batch(columns: list[list[Any]]) -> pa.RecordBatch:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, KEYS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=KEYS)


def _damage(path: Path, part: Part) -> str | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return f"{path} is missing"
    if len(data) != part.bytes or files.sha256(data) != part.sha256:
        return f"{path} does not match its checksum"
    return None


def _paid(item: Item) -> Usage:
    return Usage() if item.merged else item.outcome.usage


def _claim(root: Path) -> None:
    """Mark the folder as ours, or refuse one that is not."""
    marker = root / MARKER
    if marker.is_file():
        try:
            version = int(orjson.loads(marker.read_bytes())["format"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(f"{marker} cannot be read ({error}); is {root} an output folder of quarry?") from error
        if version > FORMAT:
            raise OutputError(f"{root} was written by a newer Quarry (format {version}); this one reads up to {FORMAT}")
        return
    strangers = [path.name for path in root.iterdir() if path.name != ".lock"]
    if strangers:
        raise OutputError(
            f"{root} is not empty and not Quarry's (it holds {', '.join(sorted(strangers)[:3])}); give another --out"
        )
    files.write_whole(marker, orjson.dumps({"format": FORMAT, "made_by": "quarry"}))


def _same_recipe(path: Path, recipe_id: str, recipe: Mapping[str, Any]) -> None:
    if path.is_file():
        known = orjson.loads(path.read_bytes()).get("id")
        if known != recipe_id:
            raise OutputError(f"{path} belongs to recipe {known}, not {recipe_id}: give another --out")
        return
    files.write_whole(path, orjson.dumps({"id": recipe_id, **recipe}, option=orjson.OPT_INDENT_2))


__all__ = ["Commit", "Store", "load_commits", "read_keys_of", "recipe_folder"]
