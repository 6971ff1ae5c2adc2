"""Whether a run cost more, or less, for a record than the earlier runs of its recipe.

The rule is Iglewicz & Hoaglin's modified z-score (*How to Detect and Handle Outliers*, 1993): with the earlier runs'
median ``m`` and the median ``MAD`` of their distances from it, a run is far off when ``0.6745 |x - m| / MAD > 3.5``. A
few runs that went wrong move neither median. ``MAD`` is taken as 3 % of ``m`` at least, because runs that are nearly
equal would make an alarm of any difference. Less than ``LEAST_RUNS`` earlier runs of ``LEAST_ASKED`` asked records
say nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from extractors.report import RunReport

LEAST_RUNS = 5
LEAST_ASKED = 20
_LAST = 50
_FAR = 3.5
_SCALE = 0.6745
_FLOOR = 0.03

Measure = Literal["cost", "tokens"]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A run's ``value`` for each asked record, against the ``median`` of ``runs`` earlier ones. ``measure`` is cost,
    or tokens where calls cost nothing or their price is unknown; ``score`` is the modified z-score."""

    measure: Measure
    value: float
    median: float
    score: float
    runs: int

    @property
    def higher(self) -> bool:
        """Whether it is more than usual."""
        return self.value > self.median

    def __str__(self) -> str:
        ratio = self.value / self.median if self.median else float("inf")
        return (
            f"{self.measure} for a record {self.value:.6g}, {ratio:.2f} times the median {self.median:.6g} of {self.runs} "
            f"earlier runs of this recipe (modified z-score {self.score:.1f}, limit {_FAR})"
        )


def find_anomaly(report: RunReport, earlier: Iterable[Mapping[str, Any]]) -> Anomaly | None:
    """Compare a run with the run files of its recipe (``extractors.history``), latest first; its own is left out."""
    measure: Measure = "cost" if report.cost else "tokens"
    value = _each(report.as_dict(), measure)
    if value is None:
        return None
    known: list[float] = []
    for told in earlier:
        if told["run_id"] != report.run_id and (each := _each(told, measure)) is not None:
            known.append(each)
        if len(known) == _LAST:
            break
    return judge(value, known, measure=measure)


def judge(value: float, known: Sequence[float], *, measure: Measure) -> Anomaly | None:
    """The rule itself."""
    if len(known) < LEAST_RUNS:
        return None
    median = statistics.median(known)
    mad = max(statistics.median(abs(one - median) for one in known), _FLOOR * median)
    if mad == 0:
        return None
    score = _SCALE * abs(value - median) / mad
    return Anomaly(measure, value, median, score, len(known)) if score > _FAR else None


def _each(told: Mapping[str, Any], measure: Measure) -> float | None:
    """A run's cost or tokens for each record that was asked; None where it asked few, or has no price."""
    asked: int = told["rows"] + told["failures"] - told["merged"]
    if asked < LEAST_ASKED or (measure == "cost" and told["cost"] is None):
        return None
    total = float(told["cost"]) if measure == "cost" else float(told["input_tokens"] + told["output_tokens"])
    return total / asked
