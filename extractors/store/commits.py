"""The small JSON that makes a chunk's parts count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from schemas.usage import Usage


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
    """A chunk that counts. ``sequence`` orders outcomes: the later one of a record is the current one."""

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

    def part(self, kind: str) -> Part | None:
        """The part of a kind (rows, failures, calls), if the chunk has one."""
        return next((part for part in self.parts if part.kind == kind), None)

    def to_json(self, keys: Keys) -> bytes:
        """The commit file's content."""
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
            "parts": [
                {"kind": p.kind, "path": p.path, "rows": p.rows, "bytes": p.bytes, "sha256": p.sha256}
                for p in self.parts
            ],
        }
        document["keys"] = {
            "record_ids": keys.record_ids,
            "occurrences": keys.occurrences,
            "fingerprints": keys.fingerprints,
        }
        return orjson.dumps(document)


def read_commit(path: Path) -> Commit:
    """Read a commit file. Raises ``ValueError`` for one that is damaged."""
    try:
        told: Mapping[str, Any] = orjson.loads(path.read_bytes())
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
        )
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a commit: {error}") from error


def read_keys(path: Path) -> Keys:
    """The keys of a commit file that ``read_commit`` could read."""
    told = orjson.loads(path.read_bytes())["keys"]
    return Keys(tuple(told["record_ids"]), tuple(told["occurrences"]), tuple(told["fingerprints"]))
