"""The small JSON that makes a chunk's parts count."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa

from extractors.store import files
from schemas.usage import Usage

logger = logging.getLogger(__name__)
Verify = Literal["size", "full"]
KEYS = pa.schema(
    [
        ("record_id", pa.string()),
        ("occurrence", pa.int32()),
        ("fingerprint", pa.string()),
        ("sequence", pa.int64()),
        ("is_row", pa.bool_()),
        ("part", pa.string()),
    ]
)
"""What planning needs of a committed outcome; ``part`` is the path of its Parquet file."""
_KEYS_AT_ONCE = 20_000
_SEAL = b',"sha256":"'


@dataclass(frozen=True, slots=True)
class Part:
    """One file that a commit names; ``path`` is relative to the recipe's folder."""

    kind: str
    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Which records a commit decided, so that planning reads no Parquet: ids, occurrences and fingerprints, the
    rows' first, then the failures'."""

    record_ids: tuple[str, ...]
    occurrences: tuple[int, ...]
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """A chunk that counts. ``sequence`` orders outcomes: the later one of a record is the current one.

    ``committed_at`` is ISO 8601 in UTC; ``usage`` is what the chunk's own calls used (merged records none);
    ``kept`` names the kept columns of its parts with their types, ``columns`` the version of all the others
    (``schemas.ledger.COLUMNS``): parts in which both are equal have the same columns.
    """

    chunk: str
    sequence: int
    run_id: str
    committed_at: str
    records: int
    rows: int
    failures: int
    merged: int
    usage: Usage
    parts: tuple[Part, ...]
    kept: tuple[str, ...] = ()
    columns: int = 1

    def part(self, kind: str) -> Part | None:
        """The part of a kind (rows, failures, calls), if the chunk has one."""
        return next((part for part in self.parts if part.kind == kind), None)

    def to_json(self, keys: Keys) -> bytes:
        """The commit file's content; its last member is the SHA-256 of what stands before it."""
        usage = self.usage
        document: dict[str, Any] = {
            "chunk": self.chunk,
            "sequence": self.sequence,
            "run_id": self.run_id,
            "committed_at": self.committed_at,
            "records": self.records,
            "rows": self.rows,
            "failures": self.failures,
            "merged": self.merged,
            "calls": usage.calls,
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cost": None if usage.cost is None else format(usage.cost, "f"),
            "kept": self.kept,
            "columns": self.columns,
            "parts": [
                {"kind": p.kind, "path": p.path, "rows": p.rows, "bytes": p.bytes, "sha256": p.sha256}
                for p in self.parts
            ],
            "keys": {
                "record_ids": keys.record_ids,
                "occurrences": keys.occurrences,
                "fingerprints": keys.fingerprints,
            },
        }
        body = orjson.dumps(document)[:-1]
        return body + _SEAL + files.sha256(body).encode() + b'"}'


def read_commit(path: Path) -> Commit:
    """Read a commit file. Raises ``ValueError`` for one that is damaged."""
    told = _document(path)
    try:
        cost = told["cost"]
        return Commit(
            chunk=told["chunk"],
            sequence=told["sequence"],
            run_id=told["run_id"],
            committed_at=told["committed_at"],
            records=told["records"],
            rows=told["rows"],
            failures=told["failures"],
            merged=told["merged"],
            usage=Usage(
                told["calls"],
                told["input_tokens"],
                told["output_tokens"],
                told["cached_tokens"],
                told["reasoning_tokens"],
                None if cost is None else Decimal(cost),
            ),
            parts=tuple(Part(**part) for part in told["parts"]),
            kept=tuple(told["kept"]),
            columns=told.get("columns", 1),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a commit: {error}") from error


def read_keys(path: Path) -> Keys:
    """The keys of a commit file that ``read_commit`` could read."""
    told = _document(path)["keys"]
    return Keys(tuple(told["record_ids"]), tuple(told["occurrences"]), tuple(told["fingerprints"]))


def load_commits(folder: Path, *, verify: Verify, quarantine: Path | None = None) -> list[Commit]:
    """The commits of a recipe's folder whose parts are as they were written, by sequence.

    ``verify`` compares the parts' sizes, or also their SHA-256. A commit that is damaged itself or names a
    damaged part is left out with a warning that names the file, and moved with its parts to ``quarantine``
    when that is given: its records are then planned again.
    """
    read: list[tuple[Path, Commit]] = []
    for path in files.listed(folder / "commits", "*.json"):
        try:
            read.append((path, read_commit(path)))
        except (ValueError, OSError) as error:
            logger.warning("%s; its records are done again", error)
            if quarantine is not None:
                files.set_aside(path, quarantine / "commits")

    def damage(commit: Commit) -> str | None:
        checks = (
            files.differs(folder / part.path, size=part.bytes, sha256_hex=part.sha256 if verify == "full" else None)
            for part in commit.parts
        )
        return next((trouble for trouble in checks if trouble), None)

    found = []
    # Reading and hashing leave Python's lock: threads help, above all on disks that are far away.
    with ThreadPoolExecutor(4, thread_name_prefix="quarry-verify") as pool:
        troubles = list(pool.map(damage, [commit for _, commit in read]))
    for (path, commit), trouble in zip(read, troubles, strict=True):
        if trouble is None:
            found.append(commit)
            continue
        logger.warning("%s; the %d records of chunk %s are done again", trouble, commit.records, commit.chunk)
        if quarantine is not None:
            # The commit goes first: a part without a commit does not count, a commit without a part would.
            files.set_aside(path, quarantine / "commits")
            for part in commit.parts:
                files.set_aside(folder / part.path, quarantine / part.kind)
    return sorted(found, key=lambda commit: commit.sequence)


def commit_keys(folder: Path, commits: Sequence[Commit]) -> Iterator[pa.RecordBatch]:
    """The decided records of commits as batches of ``KEYS``, some thousands of rows each."""
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


def _document(path: Path) -> Mapping[str, Any]:
    data = files.read(path)
    body, _, seal = data.rpartition(_SEAL)
    if seal != files.sha256(body).encode() + b'"}':
        raise ValueError(f"{path} does not match its own checksum")
    document = orjson.loads(data)
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a commit")
    return document
