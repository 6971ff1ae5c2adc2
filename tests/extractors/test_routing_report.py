"""What routing cost: the tokens that are the final model's."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from pydantic import BaseModel

from extractors.routing_report import Routed, joined, sentences
from extractors.store.parts import Item
from schemas.ledger import CallRecord
from schemas.outcomes import Attempt, Extracted, Failed, Reason
from schemas.records import Record
from schemas.usage import Usage


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


def test_the_second_answer_of_a_draft_is_what_the_draft_costs_and_none_of_what_the_final_would() -> None:
    asked = [call("a", "extract", 100), call("a", "agree", 100), call("a", "route", 50)]
    found = Routed.of([], [replace(one, cost=Decimal(1)) for one in asked])
    assert (found.first_tokens, found.draft_cost, found.draft_seconds) == (100, 2.0, 2.0)
    assert (found.final_tokens, found.final_cost) == (50, 1.0)


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

    first, worth = sentences(told, "USD")
    assert first.text == "big was asked about 2 of 4 records: about 300 tokens less than asking it for all"
    assert (
        worth.text == "draft and final took 1.400000 USD, the final alone would have taken about 4.000000 USD"
        and not worth.warns
    )
    _, worth = sentences(free, "USD")
    assert "6.0 s of calls, the final alone would have taken about 4.0 s" in worth.text and worth.warns
    assert "did not pay" in worth.text and "--model big" in worth.text
    both = joined((told, None, told))
    assert both is not None and (both["draft_cost"], both["final"], both["calibrated"]) == (0.8, "big", False)


class _Value(BaseModel):
    what: str
    color: str


def _row(name: str, *tries: tuple[str, str | None]) -> Item:
    """A row whose color the final was asked about; ``tries`` are purposes with their errors."""
    attempts = [Attempt(n, purpose, "m", None, None, 0, 0, error) for n, (purpose, error) in enumerate(tries, start=1)]
    sure = {"what": 0.9, "color": 0.1}
    value = _Value(what="a", color="b")
    return Item(
        Record(name, name, name), Extracted(value, (), "m", attempts, Usage(), confidence=sure, routed=("color",))
    )


def test_a_final_that_failed_or_wrote_prose_is_told_of_and_its_doubtful_values_are_counted_as_kept() -> None:
    rows = [
        _row("a", ("extract", None), ("route", None)),
        _row("b", ("extract", None), ("route", "overloaded: busy")),
        _row("c", ("extract", None), ("route", "it holds no JSON")),
        _row("d", ("extract", None), ("route", "it holds no JSON"), ("reask", None)),
        _row("e", ("extract", None), ("route", None), ("extract", None), ("route", "busy"), ("extract", None), ("correct", None)),
    ]  # fmt: skip
    found = Routed.of(rows, [call(name, "route", 10) for name in "abcde"])
    assert (found.routed, found.unanswered, found.kept, round(found.doubt, 6)) == (5, 3, 8, 3.2)
    told = [one.text for one in sentences(found.as_dict("big"), "USD")]
    assert told[0] == "big was asked about 5 fields of 5 of 5 records", "what was not answered saves nothing"
    assert told[1].startswith("big gave no usable answer for 3 of these 5 records: the draft's values stand there")
    assert told[-1].startswith(
        "8 values are the draft's alone: about 3.2 of them are wrong by their own confidence, which"
    )
    assert sentences(found.as_dict("big", calibrated=True), "USD")[-1].text.endswith("by their own confidence")
    assert sentences(Routed().as_dict("big"), "USD") == [], "a run that decided nothing"
