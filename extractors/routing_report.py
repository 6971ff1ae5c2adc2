"""What routing did in a chunk or a run: how much the final was asked, what that saved, and what it may have missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.qwen.requests import Purpose
from extractors.store.parts import Item
from schemas.ledger import CallRecord
from schemas.outcomes import Attempt, Extracted

_FOLLOWING = {one.value for one in (Purpose.CORRECT, Purpose.REASK, Purpose.CONTINUE, Purpose.LOOK)}
"""Whoever was asked last is asked these."""
_PUT_RIGHT = {one.value for one in (Purpose.CORRECT, Purpose.REASK, Purpose.CONTINUE)}
_USABLE = (None, "invalid")
"""The errors of an attempt that was read; any other is a call that failed, or a reply that is no JSON."""


@dataclass(frozen=True, slots=True)
class Routed:
    """Counts that add with ``+``. ``first_tokens`` are those of the drafts' first answers: about what the final would
    have used for answering every record whole. Seconds and money are those of the calls, the draft's being all that are
    not the final's: its corrections, second looks and failed tries too. Money is 0 without a price."""

    records: int = 0
    routed: int = 0
    fields: int = 0
    first_tokens: int = 0
    draft_seconds: float = 0.0
    final_tokens: int = 0
    final_seconds: float = 0.0
    unanswered: int = 0
    """Records that the final was asked about in vain, since its calls failed or it wrote no JSON: the draft stands, or the
    record failed."""
    kept: int = 0
    """Values of the drafts that were left alone, those that the final was asked about in vain among them."""
    draft_cost: float = 0.0
    final_cost: float = 0.0
    doubt: float = 0.0
    """The sum of what their confidence lacks to 1: with a calibration, about how many of them are wrong."""

    @classmethod
    def of(cls, items: Sequence[Item], calls: Sequence[CallRecord]) -> Routed:
        """The counts of a chunk."""
        asked = {call.fingerprint for call in calls if call.purpose == Purpose.ROUTE.value}
        first = [call for call in calls if call.purpose == Purpose.EXTRACT.value and call.status == "ok"]
        draft, final = _by_model(calls)
        own = [item.outcome for item in items if not item.merged]
        vain = [_in_vain(outcome.attempts) for outcome in own]
        left = [
            sure
            for outcome, unheard in zip(own, vain, strict=True)
            if isinstance(outcome, Extracted)
            for path, sure in outcome.confidence.items()
            if unheard or not any(path == one or path.startswith(f"{one}/") for one in outcome.routed)
        ]
        return cls(
            records=len(own),
            routed=len(asked),
            fields=sum(len(outcome.routed) for outcome in own if isinstance(outcome, Extracted)),
            first_tokens=sum(call.input_tokens + call.output_tokens for call in first),
            draft_seconds=sum(call.latency for call in draft),
            final_tokens=sum(call.input_tokens + call.output_tokens for call in final),
            final_seconds=sum(call.latency for call in final),
            unanswered=sum(vain),
            kept=len(left),
            draft_cost=sum(float(call.cost or 0) for call in draft),
            final_cost=sum(float(call.cost or 0) for call in final),
            doubt=sum(1 - sure for sure in left),
        )

    def __add__(self, other: Routed) -> Routed:
        return Routed(
            self.records + other.records,
            self.routed + other.routed,
            self.fields + other.fields,
            self.first_tokens + other.first_tokens,
            self.draft_seconds + other.draft_seconds,
            self.final_tokens + other.final_tokens,
            self.final_seconds + other.final_seconds,
            self.unanswered + other.unanswered,
            self.kept + other.kept,
            self.draft_cost + other.draft_cost,
            self.final_cost + other.final_cost,
            self.doubt + other.doubt,
        )

    def as_dict(self, final: str, *, calibrated: bool = False) -> dict[str, Any]:
        """JSON values for the run's report; ``final`` is the final model's name, ``calibrated`` whether confidence is a
        probability. What the final alone would have used is reckoned: each record as long as a routed one, and its price
        by the token for the drafts' tokens."""
        alone = self.final_cost / self.final_tokens * self.first_tokens if self.final_tokens else 0.0
        return {
            "final": final,
            "records": self.records,
            "routed_records": self.routed,
            "routed_fields": self.fields,
            "final_tokens": self.final_tokens,
            "final_tokens_if_all": self.first_tokens,
            "final_tokens_saved": self.first_tokens - self.final_tokens,
            "draft_seconds": round(self.draft_seconds, 3),
            "final_seconds": round(self.final_seconds, 3),
            "final_seconds_if_all": round(self.final_seconds / self.routed * self.records, 3) if self.routed else 0.0,
            "draft_cost": round(self.draft_cost, 10),
            "final_cost": round(self.final_cost, 10),
            "final_cost_if_all": round(alone, 10),
            "final_unanswered": self.unanswered,
            "values_kept": self.kept,
            "values_kept_expected_wrong": round(self.doubt, 1),
            "calibrated": calibrated,
        }


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line of what routing did. ``warns``: something is to be done about it."""

    text: str
    warns: bool = False


def sentences(routing: Mapping[str, Any], currency: str) -> list[Sentence]:
    """What a run's report tells of routing (``as_dict``), for people; nothing where no record was decided."""
    told = {**Routed().as_dict(""), **routing}
    final, asked, vain = told["final"], told["routed_records"], told["final_unanswered"]
    if not told["records"]:
        return []
    fields = f"{told['routed_fields']:,} fields of " if told["routed_fields"] or not asked else ""
    text = f"{final} was asked about {fields}{asked:,} of {told['records']:,} records"
    if not vain:
        saved = told["final_tokens_saved"]
        text += f": about {abs(saved):,} tokens {'less' if saved >= 0 else 'more'} than asking it for all"
    found = [Sentence(text)]
    if vain:
        found.append(
            Sentence(
                f"{final} gave no usable answer for {vain:,} of these {asked:,} records: the draft's values stand there, or "
                "the record failed. Its calls (purpose route) say why",
                warns=True,
            )
        )
    if asked > vain:
        found.append(_worth(told, currency))
    if told["values_kept"]:
        how = "" if told["calibrated"] else ", which is no probability without a calibration (quarry calibrate)"
        found.append(
            Sentence(
                f"{told['values_kept']:,} values are the draft's alone: about {told['values_kept_expected_wrong']:,.1f} of "
                f"them are wrong by their own confidence{how}"
            )
        )
    return found


def joined(parts: Iterable[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """What was routed in several runs of one recipe: every figure is a sum, the final's name is the same. None where
    nothing was."""
    whole: Mapping[str, Any] | None = None
    for part in parts:
        if part is None or whole is None:
            whole = whole or part
            continue
        whole = {key: _sum(value, part.get(key, 0)) for key, value in whole.items()}
    return whole


def _sum(one: Any, other: Any) -> Any:
    return one if isinstance(one, str | bool) else round(one + other, 10)


def _worth(told: Mapping[str, Any], currency: str) -> Sentence:
    """What draft and final used together, beside the final alone: in money where it has a price, else in time."""
    priced = bool(told["final_cost"])
    kind = "cost" if priced else "seconds"
    both, alone = told[f"draft_{kind}"] + told[f"final_{kind}"], told[f"final_{kind}_if_all"]

    def said(amount: float) -> str:
        return f"{amount:.6f} {currency}" if priced else f"{amount:,.1f} s of calls"

    text = f"draft and final took {said(both)}, the final alone would have taken about {said(alone)}"
    if both <= alone:
        return Sentence(text)
    return Sentence(
        f"{text}: routing did not pay. A lower --route-below asks the final less; --model {told['final']} without a draft "
        "asks it alone",
        warns=True,
    )


def _in_vain(attempts: Iterable[Attempt]) -> bool:
    """Whether the final was asked about a record, or about a window of it, and nothing that it said could be read."""
    heard: list[bool] = []
    asked = False
    for attempt in attempts:
        usable = attempt.error in _USABLE
        if attempt.purpose == Purpose.ROUTE.value:
            asked = True
            heard.append(usable)
        elif attempt.purpose not in _PUT_RIGHT:
            asked = False
        elif asked:
            heard[-1] = heard[-1] or usable
    return not all(heard)


def _by_model(calls: Sequence[CallRecord]) -> tuple[list[CallRecord], list[CallRecord]]:
    """The calls of the draft and those of the final model: the routed ones, and what followed from their answers, up to
    the next first question, which is a draft's (that of a window, say). A record's calls come in their order. Look-ups
    are no calls of a model."""
    handed: set[str] = set()
    draft: list[CallRecord] = []
    final: list[CallRecord] = []
    for call in calls:
        if call.tool is not None:
            continue
        if call.purpose == Purpose.ROUTE.value:
            handed.add(call.fingerprint)
        elif call.purpose not in _FOLLOWING:
            handed.discard(call.fingerprint)
        (final if call.fingerprint in handed else draft).append(call)
    return draft, final
