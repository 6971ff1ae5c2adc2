"""What routing cost: the tokens that are the final model's."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from extractors.routing_report import Routed
from extractors.store.parts import Item
from flows.cli.terminal import _worth
from schemas.ledger import CallRecord
from schemas.outcomes import Failed, Reason
from schemas.records import Record


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
    assert found.draft_seconds == 6.0, "all that is not the final's is the draft's"


def test_what_draft_and_final_took_is_all_that_was_paid() -> None:
    """Corrections, second looks, rests and failed tries of a draft are money and time too; look-ups are no model's."""
    purposes = ("lookup", "extract", "correct", "reask", "look", "continue", "route", "correct")
    paid = [replace(call("a", one, 10), cost=Decimal("0.1")) for one in purposes]
    late = replace(call("b", "extract", 0), status="overloaded", latency=30.0)
    looked_up = replace(call("a", "tool", 0), tool="find", latency=100.0)
    found = Routed.of([], [*paid, late, looked_up])
    assert round(found.draft_cost + found.final_cost, 6) == float(sum(one.cost or 0 for one in paid))
    assert (round(found.draft_cost, 6), found.draft_seconds, found.final_seconds) == (0.6, 36.0, 2.0)
    assert found.first_tokens == 10, "what the final would be asked for is a first answer alone"


def test_what_the_final_alone_would_have_used_is_told_beside_what_both_did() -> None:
    """Two of four records went to the final: alone it would have answered all four, of which each took it a second."""
    priced = [
        replace(call(name, purpose, tokens), cost=Decimal(tokens) * rate)
        for purpose, names, tokens, rate in (
            ("extract", "abcd", 100, Decimal("0.001")),
            ("route", "ab", 50, Decimal("0.01")),
        )
        for name in names
    ]
    items = [Item(Record(name, name, name), Failed(Reason.INVALID, "", "m")) for name in "abcd"]
    told = Routed.of(items, priced).as_dict("big")
    assert (told["draft_seconds"], told["final_seconds"], told["final_seconds_if_all"]) == (4.0, 2.0, 4.0)
    assert (told["draft_cost"], told["final_cost"], told["final_cost_if_all"]) == (0.4, 1.0, 4.0)
    twice = (Routed.of(items, priced) + Routed.of(items, priced)).as_dict("big")
    assert (twice["final_seconds_if_all"], twice["final_cost_if_all"]) == (8.0, 8.0)
    assert Routed().as_dict("big")["final_cost_if_all"] == 0
    free = Routed.of(items, [replace(one, cost=None) for one in priced]).as_dict("big")

    assert (
        _worth(told, "USD") == "draft and final took 1.400000 USD, the final alone would have taken about 4.000000 USD"
    )
    assert "6.0 s of calls, the final alone would have taken about 4.0 s" in _worth(free, "USD")
    assert "did not pay" in _worth(free, "USD") and "--model big" in _worth(free, "USD")
