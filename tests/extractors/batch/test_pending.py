"""Which batch a request waits for."""

from __future__ import annotations

import hashlib
from decimal import Decimal

from extractors.batch.ledger import BatchEntry, State
from extractors.batch.pending import Pending
from extractors.budget import Amount


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def entry(name: str) -> BatchEntry:
    return BatchEntry(
        name=name, run_id="r", round=1, model="m", url="", window="24h", address="", lines=1, size=1, worst=Amount(Decimal(1), 1),
        worst_line=Amount(Decimal(1), 1), after=0, written_at="", state=State.RUNNING,
    )  # fmt: skip


def test_a_request_waits_for_the_batch_that_it_is_in() -> None:
    pending = Pending()
    first = pending.add(entry("a"), [digest(n) for n in range(100)], chunks=[0])
    second = pending.add(entry("b"), [digest(n) for n in range(100, 200)])
    assert all(pending.waits(digest(n), n) for n in (0, 99, 100, 199))
    assert not any(pending.waits(digest(n), 5) for n in range(200, 300))
    assert pending.under_way() == [first, second]
    assert pending.ended(first) == {0, 99}
    assert not pending.waits(digest(0), 0)
    assert pending.waits(digest(150), 7)
    assert pending.ended(second) == {100, 199, 7}


def test_a_request_that_is_asked_again_waits_for_the_later_batch() -> None:
    pending = Pending()
    first = pending.add(entry("a"), [digest(1)])
    second = pending.add(entry("b"), [digest(1)])
    assert pending.waits(digest(1), 3)
    assert (pending.ended(second), pending.ended(first)) == ({3}, set())


def test_without_batches_nothing_waits() -> None:
    pending = Pending()
    assert not pending.waits(digest(1), 0)
    number = pending.add(entry("a"), ())
    assert not pending.waits(digest(1), 0)
    assert pending.ended(number) == set()
