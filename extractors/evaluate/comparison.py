"""Two ways of asking, on the same records: what differs, by how much, and whether it can be shown.

Only records that both have an outcome for are compared, and only fields that both schemas have under the same rule's
path. Tests and their sources are in ``extractors.evaluate.statistics``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation, Outlook, Scored, counted
from extractors.evaluate.outcomes import Given, Key
from extractors.evaluate.results import figures
from extractors.evaluate.statistics import CONFIDENCE, Difference, Interval, mcnemar, paired, paired_ratio


@dataclass(frozen=True, slots=True)
class Changed:
    """A record and a field that one side has right and the other has not."""

    record_id: str
    field: str
    better: str
    a: Sequence[Any]
    b: Sequence[Any]
    expected: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A. ``only_a`` and ``only_b`` are records that only one of them has wholly right, ``whole_p`` McNemar's
    p-value for them. ``tokens_ratio`` (input and output), ``seconds_ratio`` (records that both were asked themselves) and
    ``cost_ratio`` (where both have a price in one currency) are means of B over those of A, with intervals by record."""

    a: Evaluation
    b: Evaluation
    names: tuple[str, str]
    records: int
    f1: Difference
    by_field: Mapping[str, Difference]
    only_a: int
    only_b: int
    whole_p: float
    tokens_ratio: Interval
    seconds_ratio: Interval
    cost_ratio: Interval
    changed: Sequence[Changed]

    @property
    def verdict(self) -> str:
        """The answer in one or two sentences."""
        gap = self.f1.difference
        name_a, name_b = self.names
        fields = [field for field, one in self.by_field.items() if one.shown()]
        if gap.value is None:
            return "No difference can be shown: F1 is not defined for one of the two."
        few = gap.low is None or gap.high is None
        bounds = "too few records for an interval" if few else f"95 % interval {gap.low:+.3f} to {gap.high:+.3f}"
        records = "1 record" if self.records == 1 else f"{self.records} records"
        told = f"F1 {gap.value:+.3f} for {name_b} against {name_a}, {bounds}, p = {self.f1.p:.3g}, {records}"
        if self.f1.shown():
            better = name_b if gap.value > 0 else name_a
            first = f"{better} is better: {told}."
        else:
            first = f"No difference can be shown: {told}."
            hidden = "any size" if gap.low is None or gap.high is None else f"up to {max(-gap.low, gap.high):.3f}"
            first += f" One of {hidden} may be hidden in so few records."
        if fields:
            first += f" A difference is shown in {', '.join(fields)}."
        return first

    def taken(self, whose: str) -> str:
        """What B takes of what A takes, which is called ``whose``; what is not known is left out."""
        ratios = (("tokens", self.tokens_ratio), ("seconds", self.seconds_ratio), ("cost", self.cost_ratio))
        return ", ".join(f"{name} {one.of(whose)}" for name, one in ratios if one.value is not None)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "a": {"name": self.names[0], **figures(self.a)},
            "b": {"name": self.names[1], **figures(self.b)},
            "records": self.records,
            "verdict": self.verdict,
            "shown": self.f1.shown(),
            "f1": _told(self.f1),
            "whole": {"only_a": self.only_a, "only_b": self.only_b, "p": round(self.whole_p, 6)},
            "ratios": {
                "tokens": _bounds(self.tokens_ratio),
                "seconds": _bounds(self.seconds_ratio),
                "cost": _bounds(self.cost_ratio),
            },
            "fields": {field: _told(one) for field, one in self.by_field.items()},
        }


def compare(a: Evaluation, b: Evaluation, *, names: tuple[str, str] = ("A", "B"), seed: int = 0) -> Comparison:
    """Compare two evaluations of one golden set. Raises ``JobError`` where they share no record or no field,
    and where they are one and the same."""
    fields = check_pair(a, b)
    of_a, of_b = ({one.given.key: one for one in each.records} for each in (a, b))
    keys = [key for key in of_a if key in of_b]
    if not keys:
        raise JobError("the two have no labelled record in common: there is nothing to compare")
    counts_a, counts_b = (_counts([each[key] for key in keys], fields) for each in (of_a, of_b))
    micro, differences = paired(counts_a, counts_b, seed=seed)
    whole_a, whole_b = (np.array([bool(each[key].whole) for key in keys]) for each in (of_a, of_b))
    only_a, only_b = int((whole_a & ~whole_b).sum()), int((whole_b & ~whole_a).sum())
    tokens, seconds, cost = _ratios(a, b, [(of_a[key].given, of_b[key].given) for key in keys], seed)
    return Comparison(
        a,
        b,
        names,
        records=len(keys),
        f1=micro,
        by_field=dict(zip(fields, differences, strict=True)),
        only_a=only_a,
        only_b=only_b,
        whole_p=mcnemar(only_a, only_b),
        tokens_ratio=tokens,
        seconds_ratio=seconds,
        cost_ratio=cost,
        changed=_changed(keys, of_a, of_b, fields),
    )


def check_pair(a: Evaluation | Outlook, b: Evaluation | Outlook) -> list[str]:
    """The fields that two evaluations have in common. Raises ``JobError`` where they are one and the same, share no field,
    or compare one by different rules."""
    if (a.out, a.recipe) == (b.out, b.recipe):
        raise JobError(
            f"both are recipe {a.recipe}: they differ in nothing that a recipe is made of (schema, prompt, model, "
            "instructions, parameters), so the second would be the first one's rows again"
        )
    fields = [field for field in a.rules if field in b.rules]
    if not fields:
        raise JobError("the two have no field in common: there is nothing to compare")
    for field in fields:
        if a.rules[field] != b.rules[field]:
            raise JobError(f"{field!r} is compared by {a.rules[field]} in one and {b.rules[field]} in the other")
    return fields


def _counts(records: Sequence[Scored], fields: Sequence[str]) -> Any:
    known = set(fields)
    return counted([[cell for cell in one.cells if cell.field in known] for one in records], fields)


def _ratios(
    a: Evaluation, b: Evaluation, pairs: Sequence[tuple[Given, Given]], seed: int
) -> tuple[Interval, Interval, Interval]:
    """Of tokens, seconds and cost."""
    timed = [(one.seconds, other.seconds) for one, other in pairs if None not in (one.seconds, other.seconds)]
    costs = [(one.cost, other.cost) for one, other in pairs if None not in (one.cost, other.cost)]
    # Where a record has no price, the others' would stand for it.
    priced = len(costs) == len(pairs) and a.currency is not None and a.currency == b.currency
    tokens = [tuple(each.input_tokens + each.output_tokens for each in pair) for pair in pairs]
    return _ratio(tokens, seed), _ratio(timed, seed), _ratio(costs if priced else (), seed)


def _ratio(pairs: Sequence[Sequence[Any]], seed: int) -> Interval:
    of_a, of_b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    return paired_ratio(of_a, of_b, seed=seed)


def _changed(
    keys: Sequence[Key], a: Mapping[Key, Scored], b: Mapping[Key, Scored], fields: Sequence[str]
) -> list[Changed]:
    found = []
    for key in keys:
        for field in fields:
            mine, others = ([cell for cell in each[key].cells if cell.field == field] for each in (a, b))
            wrong_a, wrong_b = (sum(sum(cell.verdict.counts[1:]) for cell in cells) for cells in (mine, others))
            if wrong_a == wrong_b:
                continue
            expected = [cell.expected for cell in mine if cell.expected not in (None, [])]
            got_a, got_b = ([cell.got for cell in cells if cell.got not in (None, [])] for cells in (mine, others))
            found.append(Changed(key[0], field, "b" if wrong_b < wrong_a else "a", got_a, got_b, expected))
    return found


def _told(one: Difference) -> dict[str, Any]:
    gap: Interval = one.difference
    return {
        "a": _rounded(one.a),
        "b": _rounded(one.b),
        "difference": _rounded(gap.value),
        "low": _rounded(gap.low),
        "high": _rounded(gap.high),
        "confidence": CONFIDENCE,
        "p": round(one.p, 6),
        "p_adjusted": round(one.p_adjusted, 6),
        "shown": one.shown(),
    }


def _bounds(interval: Interval) -> list[float | None]:
    """[value, low, high]"""
    return [_rounded(interval.value), _rounded(interval.low), _rounded(interval.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)
