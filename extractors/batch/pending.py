"""Batches that are under way or not used up, the requests in them, and the chunks that wait for them."""

from __future__ import annotations

from collections.abc import Iterable

from extractors.batch.ledger import BatchEntry


class Pending:
    """The batches of a run, by a number of its own for each."""

    def __init__(self) -> None:
        self.entries: dict[int, BatchEntry] = {}
        self._asked: dict[bytes, int] = {}
        self._waiting: dict[int, set[int]] = {}

    def add(self, entry: BatchEntry, digests: Iterable[bytes], *, chunks: Iterable[int] = ()) -> int:
        """Take up a batch; its number. ``chunks`` wait for it."""
        number = len(self.entries)
        self.entries[number] = entry
        self._waiting[number] = set(chunks)
        for digest in digests:
            self._asked[digest] = number
        return number

    def waits(self, digest: bytes, chunk: int) -> bool:
        """Whether a batch is to answer this request; then ``chunk`` waits for that batch."""
        number = self._asked.get(digest)
        if number is not None:
            self._waiting.setdefault(number, set()).add(chunk)
        return number is not None

    def ended(self, number: int, digests: Iterable[bytes]) -> set[int]:
        """A batch answers nothing any more; the chunks that waited for it."""
        for digest in digests:
            if self._asked.get(digest) == number:
                del self._asked[digest]
        return self._waiting.pop(number, set())

    def under_way(self) -> list[int]:
        """The numbers of the batches that the service has."""
        return [number for number, entry in self.entries.items() if entry.state.under_way]
