"""Whether a final model behind a draft pays, and from which confidence on: the two's answers to the same labelled records,
each asked alone, put together at several thresholds (``extractors.evaluate.replay``). Nobody is asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel

from extractors.evaluate.evaluation import Evaluation, counted
from extractors.evaluate.outcomes import Given
from extractors.evaluate.replay import Replay, Replayed, replays
from extractors.evaluate.statistics import Interval, paired, scores

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Route:
    """A draft with a final behind it. ``below`` is the confidence below which a field is routed, None where the draft stands
    alone; ``routed`` the share of the records of which the final is asked; ``difference`` F1 less that of the final alone,
    with its paired interval by record; ``cost`` what it takes, as a share of what the final alone takes, None where that is
    not known."""

    below: float | None
    routed: float
    f1: Interval
    difference: Interval
    cost: float | None

    def within(self, loss: float) -> bool:
        """Whether F1 is at most so much lower than the final's."""
        return self.difference.value is not None and self.difference.value >= -loss


@dataclass(frozen=True, slots=True)
class Routes:
    """The draft alone, then with the final behind it from the lowest threshold to the highest; ``final_f1`` is of the final
    alone on the same ``records``. ``unit`` is what ``cost`` is a share of."""

    draft: str
    final: str
    records: int
    final_f1: Interval
    unit: Literal["money", "seconds"] | None
    routes: Sequence[Route]
    max_loss: float

    @property
    def best(self) -> Route | None:
        """The cheapest way whose F1 is within ``max_loss`` of the final's, where it costs less than the final alone. None where
        neither model has anything right: every way is as good as every other then."""
        if not self._any_right:
            return None
        fit = [one for one in self.routes if one.within(self.max_loss) and (one.cost is None or one.cost < 1)]
        return min(fit, key=lambda one: (one.cost if one.cost is not None else one.routed, one.routed), default=None)

    @property
    def distinct(self) -> list[tuple[str, Route]]:
        """The ways with their names; thresholds between which nothing changes are one."""
        found = []
        for _, group in groupby(self.routes, key=lambda one: (one.below is None, one.routed, one.f1, one.cost)):
            first, *more = group
            name = "draft alone" if first.below is None else f"{first.below:g}"
            found.append((f"{name} to {more[-1].below:g}" if more else name, first))
        return found

    @property
    def verdict(self) -> str:
        """What to do, in a sentence or two."""
        if self.final_f1.value is None:
            return (
                f"F1 is not defined: no value is labelled or given in the {self.records} labelled records, so nothing tells "
                f"whether to ask {self.final}. Label values of records that have some."
            )
        if not self._any_right:
            return (
                f"Neither {self.draft} nor {self.final} has a value right in the {self.records} labelled records (F1 is 0 "
                "for both), so nothing tells whether routing pays. Look at the failures (`quarry failures`) and at the "
                "wrong values on the pages of the two evaluations."
            )
        best = self.best
        if best is None:
            near = [one for one in self.routes if one.within(self.max_loss)]
            if not near:
                return (
                    f"No threshold comes within {self.max_loss:g} of the F1 that {self.final} has alone: ask it alone, "
                    "or take more of a loss (--max-loss)."
                )
            cheapest = min(near, key=lambda one: one.cost or 0)
            return (
                f"Routing does not pay here: {self._named(cheapest)} is within {self.max_loss:g} of the F1 that {self.final} "
                f"has alone, at {cheapest.cost:.0%} of its {self.unit}. Ask {self.final} alone."
            )
        gap = best.difference
        told = f"F1 {best.f1.value:.3f}, {gap.value:+.3f} against {self.final} alone"
        if gap.low is not None and gap.high is not None:
            told += f" (95 % interval {gap.low:+.3f} to {gap.high:+.3f})"
        else:
            told += " (too few records for an interval)"
        if best.cost is not None:
            told += f", at {best.cost:.0%} of its {self.unit}"
        text = f"{self._named(best)}: {told}; {best.routed:.0%} of the records routed."
        if gap.low is None or gap.low < -self.max_loss:
            loss = "any size" if gap.low is None else f"up to {-gap.low:.3f}"
            text += f" A loss of {loss} may be hidden in so few records ({self.records})."
        return text

    @property
    def _any_right(self) -> bool:
        return bool(self.final_f1.value) or any(one.f1.value for one in self.routes)

    def _named(self, route: Route) -> str:
        return f"{self.draft} alone" if route.below is None else f"--route-below {route.below:g}"

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        best = self.best
        return {
            "draft": self.draft,
            "final": self.final,
            "records": self.records,
            "final_f1": _told(self.final_f1),
            "cost_in": self.unit,
            "max_loss": self.max_loss,
            "routes": [
                {
                    "route_below": one.below,
                    "routed": round(one.routed, 4),
                    "f1": _told(one.f1),
                    "difference": _told(one.difference),
                    "cost": None if one.cost is None else round(one.cost, 4),
                }
                for one in self.routes
            ],
            "best": None if best is None else {"route_below": best.below},
            "verdict": self.verdict,
        }


def routes(
    draft: Evaluation,
    final: Evaluation,
    model: type[BaseModel],
    *,
    max_loss: float = 0.01,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Routes:
    """Put the answers of two evaluations of one golden set together. ``thresholds`` are of the draft's confidence as its
    rows have it. Raises the errors of ``replays``."""
    both = replays(draft, final, model)
    alone = counted([one.final.cells for one in both], draft.fields)
    costs = _Costs.of(draft, final, both)

    def route(below: float | None, replayed: Sequence[Replayed]) -> Route:
        asked = [one.asked for one in replayed]
        counts = counted([one.cells for one in replayed], draft.fields)
        # One round: the p-value is not used.
        difference = paired(alone, counts, rounds=1)[0].difference
        return Route(below, sum(asked) / len(asked), scores(counts)[0].f1, difference, costs.share(asked))

    found = [route(None, [Replayed(False, one.draft.cells) for one in both])]
    found += [route(below, [one.at(below) for one in both]) for below in sorted(thresholds)]
    return Routes(draft.model, final.model, len(both), scores(alone)[0].f1, costs.unit, tuple(found), max_loss)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What each record took of the draft and of the final, in ``unit``; None where neither is known."""

    unit: Literal["money", "seconds"] | None
    draft: Sequence[float]
    final: Sequence[float]

    @classmethod
    def of(cls, draft: Evaluation, final: Evaluation, both: Sequence[Replay]) -> _Costs:
        """In money where both have a price in one currency, else in seconds of the calls."""
        priced = draft.cost is not None and final.cost and draft.currency == final.currency
        unit: Literal["money", "seconds"] = "money" if priced else "seconds"

        def price(given: Given) -> float:
            return float((given.cost if unit == "money" else given.seconds) or 0)

        of_final = [price(one.final.given) for one in both]
        return cls(unit if sum(of_final) else None, [price(one.draft.given) for one in both], of_final)

    def share(self, asked: Sequence[bool]) -> float | None:
        """The draft for all records and the final for those ``asked``, as a share of the final for all."""
        if self.unit is None:
            return None
        routed = sum(price for price, needed in zip(self.final, asked, strict=True) if needed)
        return (sum(self.draft) + routed) / sum(self.final)


def _told(figure: Interval) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, 4)
        for name, value in (("value", figure.value), ("low", figure.low), ("high", figure.high))
    }
