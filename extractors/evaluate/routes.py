"""Whether a final model behind a draft pays, and from which confidence on: their answers to the same labelled records, each
asked alone, put together as a routed run does it (``extractors.routing``), at several thresholds. Nobody is asked for it.

Where a routed run asks the final about some fields only, the values are those of the final's whole answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ValidationError

from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation, Scored, counted
from extractors.evaluate.fields import Compared, compared_fields
from extractors.evaluate.outcomes import Given
from extractors.evaluate.scoring import Cell, score_record
from extractors.evaluate.statistics import Interval, paired, scores
from extractors.grounding import ground
from extractors.parsing import dumps_exact
from extractors.routing import SHORT_ANSWER, Draft, asked_whole, completed, doubtful_fields, merged
from extractors.store import layout
from extractors.tokens import estimate_tokens
from schemas.jsonschema import answer_schema

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
        """The cheapest way whose F1 is within ``max_loss`` of the final's, where it costs less than the final alone."""
        fit = [one for one in self.routes if one.within(self.max_loss) and (one.cost is None or one.cost < 1)]
        return min(fit, key=lambda one: (one.cost if one.cost is not None else one.routed, one.routed), default=None)

    @property
    def verdict(self) -> str:
        """What to do, in a sentence or two."""
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
        if best.cost is not None:
            told += f", at {best.cost:.0%} of its {self.unit}"
        text = f"{self._named(best)}: {told}; {best.routed:.0%} of the records routed."
        if gap.low is not None and gap.low < -self.max_loss:
            text += f" A loss of up to {-gap.low:.3f} may be hidden in so few records ({self.records})."
        return text

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
    rows have it. Raises ``JobError`` where they share no record, where the two are one recipe, and for pictures."""
    if (draft.out, draft.recipe) == (final.out, final.recipe):
        raise JobError(f"the draft and the final are both recipe {draft.recipe}: give two models, --model and --final")
    others = {one.given.key: one for one in final.records}
    pairs = [(one, others[one.given.key]) for one in draft.records if one.given.key in others]
    if not pairs:
        raise JobError("the two models have no labelled record in common: there is nothing to put together")
    if not any(one.text.strip() for one, _ in pairs):
        raise JobError(
            "the records are pictures without text, whose values no evidence is found for here: compare the two models with "
            "`quarry compare`, and a routed run with either of them"
        )
    putting = Putting(model, compared_fields(model, draft.rules), exemplified=shows_examples(draft))
    costs = _Costs.of(draft, final, pairs)
    alone = counted([other.cells for _, other in pairs], draft.fields)

    def route(below: float | None, asked: Sequence[bool], cells: Iterable[Sequence[Cell]]) -> Route:
        counts = counted(cells, draft.fields)
        # One round: the p-value is not used.
        difference = paired(alone, counts, rounds=1)[0].difference
        return Route(below, sum(asked) / len(asked), scores(counts)[0].f1, difference, costs.share(asked))

    found = [route(None, [False] * len(pairs), [one.cells for one, _ in pairs])]
    for below in sorted(thresholds):
        made = [putting.together(one, other, below) for one, other in pairs]
        cells = [
            one.cells if values is None else score_record(putting.root, one.label, values[0])
            for (one, _), values in zip(pairs, made, strict=True)
        ]
        found.append(route(below, [values is not None for values in made], cells))
    return Routes(draft.model, final.model, len(pairs), scores(alone)[0].f1, costs.unit, tuple(found), max_loss)


class Putting:
    """Puts a record's two answers together. ``exemplified``: the models were shown examples of whole answers."""

    def __init__(self, model: type[BaseModel], root: Compared, *, exemplified: bool) -> None:
        self.root = root
        self._model = model
        self._schema = answer_schema(model)
        self._exemplified = exemplified

    def together(self, one: Scored, other: Scored, below: float) -> tuple[Mapping[str, Any] | None] | None:
        """The values of a routed run; None where it would not ask the final."""
        given = one.given
        if given.value is None:
            return (other.given.value,)
        value = self._model.model_validate(given.value)
        evidence = ground(value, one.text)
        paths = doubtful_fields(evidence, given.confidence, self._schema, below=below, nulled=given.nulled)
        if not paths:
            return None
        if other.given.value is None:
            return (given.value,)
        draft = Draft(given.value, value, evidence, paths, given.nulled)
        answer: Any = other.given.value
        if self._exemplified and estimate_tokens(dumps_exact(given.value)) <= SHORT_ANSWER:
            draft = asked_whole(draft, self._schema, given.confidence)
            answer = completed(answer, self._schema, draft.open)
        made = merged(draft, answer, validated=self._validated, grounded=lambda whole: ground(whole, one.text))
        return (made.data,)

    def _validated(self, data: Any) -> BaseModel | None:
        try:
            return self._model.model_validate(data)
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class _Costs:
    """What each record took of the draft and of the final, in ``unit``; None where neither is known."""

    unit: Literal["money", "seconds"] | None
    draft: Sequence[float]
    final: Sequence[float]

    @classmethod
    def of(cls, draft: Evaluation, final: Evaluation, pairs: Sequence[tuple[Scored, Scored]]) -> _Costs:
        """In money where both have a price, else in seconds of the calls."""
        unit: Literal["money", "seconds"] = "money" if draft.cost is not None and final.cost else "seconds"

        def price(given: Given) -> float:
            return float((given.cost if unit == "money" else given.seconds) or 0)

        of_final = [price(other.given) for _, other in pairs]
        return cls(unit if sum(of_final) else None, [price(one.given) for one, _ in pairs], of_final)

    def share(self, asked: Sequence[bool]) -> float | None:
        """The draft for all records and the final for those ``asked``, as a share of the final for all."""
        if self.unit is None:
            return None
        routed = sum(price for price, needed in zip(self.final, asked, strict=True) if needed)
        return (sum(self.draft) + routed) / sum(self.final)


def shows_examples(evaluation: Evaluation) -> bool:
    """Whether the evaluated recipe shows the model examples, labelled or made up."""
    folder = layout.recipe_folder(Path(evaluation.out), name=evaluation.name, recipe_id=evaluation.recipe)
    return "examples" in orjson.loads((folder / "recipe.json").read_bytes())


def _told(figure: Interval) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, 4)
        for name, value in (("value", figure.value), ("low", figure.low), ("high", figure.high))
    }
