"""Batches that are under way or not used up, the requests in them, and the chunks that wait for them.

A million requests are held in sixteen megabytes: the first 64 bits of each digest, sorted, and the number of its batch. Two
requests that share them (once in tens of millions of runs) wait for each other's batch as well, and are asked after it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from extractors.batch.ledger import BatchEntry

_PREFIX = 8


class Pending:
    """The batches of a run, by a number of its own for each."""

    def __init__(self) -> None:
        self.entries: dict[int, BatchEntry] = {}
        self._prefixes = np.empty(0, np.uint64)
        self._numbers = np.empty(0, np.uint32)
        self._waiting: dict[int, set[int]] = {}

    def add(self, entry: BatchEntry, digests: Iterable[bytes], *, chunks: Iterable[int] = ()) -> int:
        """Take up a batch; its number. ``chunks`` wait for it."""
        number = len(self.entries)
        self.entries[number] = entry
        self._waiting[number] = set(chunks)
        fresh = np.frombuffer(b"".join(digest[:_PREFIX] for digest in digests), np.uint64)
        if len(fresh):
            prefixes = np.concatenate([self._prefixes, fresh])
            numbers = np.concatenate([self._numbers, np.full(len(fresh), number, np.uint32)])
            # Stable: of a request that is in several batches, the last one's comes last.
            order = np.argsort(prefixes, kind="stable")
            self._prefixes, self._numbers = prefixes[order], numbers[order]
        return number

    def waits(self, digest: bytes, chunk: int) -> bool:
        """Whether a batch is to answer this request; then ``chunk`` waits for that batch."""
        if not len(self._prefixes):
            return False
        prefix = np.frombuffer(digest[:_PREFIX], np.uint64)[0]
        place = int(np.searchsorted(self._prefixes, prefix, side="right")) - 1
        if place < 0 or self._prefixes[place] != prefix:
            return False
        self._waiting.setdefault(int(self._numbers[place]), set()).add(chunk)
        return True

    def ended(self, number: int) -> set[int]:
        """A batch answers nothing any more; the chunks that waited for it."""
        others = self._numbers != number
        self._prefixes, self._numbers = self._prefixes[others], self._numbers[others]
        return self._waiting.pop(number, set())

    def under_way(self) -> list[int]:
        """The numbers of the batches that the service has."""
        return [number for number, entry in self.entries.items() if entry.state.under_way]
