"""What routing cost: the tokens that are the final model's."""

from __future__ import annotations

from decimal import Decimal

from extractors.routing_report import Routed
from schemas.ledger import CallRecord


def call(fingerprint: str, purpose: str, tokens: int) -> CallRecord:
    return CallRecord(
        record_id=fingerprint, fingerprint=fingerprint, request="", model="m", dialect="chat", mode="prompted",
        purpose=purpose, attempt=1, try_number=1, status="ok", http_status=200, started_at=0.0, latency=1.0,
        input_tokens=tokens, cached_tokens=0, output_tokens=0, reasoning_tokens=0, cost=Decimal(0), finish_reason="stop",
        raw="", error=None,
    )  # fmt: skip


def test_corrections_of_the_final_model_are_its_own_and_those_of_a_draft_are_not() -> None:
    asked = [("a", "extract", 1), ("a", "correct", 2), ("a", "route", 10), ("a", "correct", 20), ("b", "correct", 4)]
    windows = [
        ("a", "lookup", 8),
        ("a", "extract", 16),
        ("a", "reask", 32),
        ("a", "route", 100),
        ("a", "continue", 200),
    ]
    found = Routed.of([], [call(*one) for one in (*asked, *windows)])
    assert (found.first_tokens, found.final_tokens, found.final_seconds, found.routed) == (17, 330, 4.0, 1)
