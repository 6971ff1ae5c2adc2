"""Confidence against labels: which pairs a calibration and a routing threshold are fitted on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from extractors.calibration import (
    Bin,
    Calibration,
    Kind,
    Pair,
    brier_score,
    error_by_chance,
    expected_calibration_error,
    fit_both,
    held_out_both,
    reliability,
)
from extractors.endpoint import Endpoint
from extractors.evaluate.evaluation import Evaluation
from extractors.evaluate.scoring import Verdict
from extractors.pipeline import model_of
from extractors.recipe import compile_recipe
from extractors.routing import threshold_for
from schemas.job import ExtractionJob

_SEED = 20_260_101
KINDS: tuple[Kind, ...] = ("isotonic", "platt")


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well confidence tells right values from wrong ones. ``before`` is the expected calibration error of the
    confidences as they are, ``after`` that of a calibration, by folds; ``chance`` is what as many values would show of a
    perfect one. ``bins`` are those of ``before``.
    ``wrong`` counts the values that are: without any nothing tells a low confidence from a high one.
    ``threshold`` is the confidence from which values may stand with at most ``max_error`` wrong (95 % sure), on the
    calibrated scale."""

    pairs: int
    before: float
    after: float
    chance: float
    bins: list[Bin]
    calibration: Calibration
    max_error: float
    threshold: float
    wrong: int

    @property
    def route_below(self) -> float:
        """The threshold as ``route_below`` takes it: never above it, since many values have just this confidence, with
        the four digits that rows have."""
        return math.floor(self.threshold * 10_000) / 10_000

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "pairs": self.pairs,
            "wrong": self.wrong,
            "ece_before": round(self.before, 4),
            "ece_after": round(self.after, 4),
            "ece_by_chance": round(self.chance, 4),
            "kind": self.calibration.kind,
            "max_error": self.max_error,
            "threshold": self.route_below,
            "bins": [
                {
                    "low": one.low,
                    "high": one.high,
                    "count": one.count,
                    "confidence": round(one.confidence, 4),
                    "right": round(one.right, 4),
                }
                for one in self.bins
            ],
        }


class ConfidencePairs(NamedTuple):
    """(confidence, right) of every value that was given, and of every null that has a confidence; ``records`` is the number of
    the record of each value, then of each null, in an order that means nothing."""

    values: list[Pair]
    nulls: list[Pair]
    records: list[int]


def draft_alone(job: ExtractionJob, pair: Endpoint) -> ExtractionJob:
    """The job with the draft of its ``pair`` alone, asked as it is in front of the final: both leave nulls out, and order
    fields, in one way, and scores count by it. A job without a final stays as it is."""
    if pair.final is None:
        return job
    alone = job.model_copy(update={"draft": None, "final": None, "high_accuracy": False, "model": pair.model})
    model = model_of(job)
    before = compile_recipe(job, model, pair.policy).shape
    by_itself = compile_recipe(alone, model, replace(pair.policy, final=None)).shape
    if (before.omit_nulls, before.text_order) == (by_itself.omit_nulls, by_itself.text_order):
        return alone
    order = "text" if before.text_order else "schema"
    return alone.model_copy(update={"omit_nulls": before.omit_nulls, "field_order": order})


def confidence_pairs(evaluation: Evaluation) -> ConfidencePairs:
    """What a calibration of an evaluation's confidences is fitted on."""
    records = list(evaluation.records)
    random.Random(_SEED).shuffle(records)
    values: list[Pair] = []
    nulls: list[Pair] = []
    of_values: list[int] = []
    of_nulls: list[int] = []
    for number, record in enumerate(records):
        for cell in record.cells:
            sure = record.given.confidence.get(cell.path)
            if sure is not None:
                nothing = cell.verdict in (Verdict.MISSING, Verdict.ABSENT)
                (nulls if nothing else values).append((sure, cell.verdict in (Verdict.RIGHT, Verdict.ABSENT)))
                (of_nulls if nothing else of_values).append(number)
    return ConfidencePairs(values, nulls, [*of_values, *of_nulls])


def reliability_of(
    evaluation: Evaluation,
    *,
    kind: Kind | Literal["auto"] = "auto",
    max_error: float = 0.05,
    agreement: bool = False,
) -> Reliability:
    """Fit a calibration on an evaluation's values, those of one model (``draft_alone`` of a pair); ``auto`` takes the kind that
    has the lower Brier score by folds. ``agreement``: the evaluation's job asks twice, so that its scores are others. Raises
    ``JobError`` where there are too few."""
    values, nulls, records = confidence_pairs(evaluation)
    pairs = [*values, *nulls]
    # What the map makes of the values that it was fitted on would flatter a threshold too.
    kinds = KINDS if kind == "auto" else (kind,)
    tried = {one: held_out_both(values, nulls, kind=one, records=records) for one in kinds}
    chosen = min(tried, key=lambda one: brier_score(tried[one]))
    calibration = replace(fit_both(values, nulls, kind=chosen, records=records), agreement=agreement)
    fresh = tried[chosen]
    return Reliability(
        pairs=len(pairs),
        before=expected_calibration_error(pairs),
        after=expected_calibration_error(fresh),
        chance=error_by_chance(fresh),
        bins=reliability(pairs),
        calibration=replace(calibration, model=evaluation.model, schema=evaluation.name),
        max_error=max_error,
        threshold=threshold_for(fresh, max_error=max_error, records=records),
        wrong=sum(not right for _, right in pairs),
    )
