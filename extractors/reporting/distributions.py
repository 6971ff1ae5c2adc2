"""How values are spread: histograms with round edges, and the most frequent values. DuckDB counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from extractors.reporting.desk import Desk

Unit = Literal["", "s", "tokens", "day", "hour", "characters", "items"]
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_DAYS = (1.0, 2.0, 7.0, 14.0, 30.4375, 91.3125, 182.625, 365.25, 730.5, 1826.25, 3652.5, 9131.25, 36525.0)
_BINS = 28
_TOP = 12
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts[i]`` values lie in [low + i * step, low + (i + 1) * step); ``below`` and ``above`` are the few that lie
    outside, so that they do not squeeze the others. ``quantiles`` are exact: p5, p50, p95, p99. Days since 1970
    where ``unit`` is day."""

    low: float
    step: float
    counts: tuple[int, ...]
    unit: Unit
    total: int
    minimum: float
    maximum: float
    mean: float
    quantiles: Mapping[str, float]
    below: int = 0
    above: int = 0
    single: bool = False
    """Whether each column is one whole number."""


@dataclass(frozen=True, slots=True)
class Categories:
    """The most frequent values; ``rest`` counts the values that are not listed, ``distinct`` is how many differ
    (about, from some thousands on)."""

    top: tuple[tuple[str, int], ...]
    rest: int
    distinct: int
    examples: tuple[str, ...] = field(default=())

    @property
    def all_differ(self) -> bool:
        """Whether no value is frequent enough to be worth a bar."""
        total = sum(count for _, count in self.top) + self.rest
        return total > _TOP and self.top[0][1] <= max(2, total // 200)


def histogram(
    desk: Desk, relation: str, value: str, *, unit: Unit = "", whole: bool = False, bins: int = _BINS
) -> Histogram | None:
    """Of the finite values of a SQL expression; None without any. ``whole`` values get whole steps."""
    spread = (
        f"(select x from (select try_cast({value} as double) as x from {relation}) where x is not null and isfinite(x))"
    )
    told = desk.one(
        "select count(*) as n, min(x) as low, max(x) as high, avg(x) as mean, "
        f"quantile_cont(x, [0.01, 0.05, 0.5, 0.95, 0.99]) as q from {spread}"
    )
    if not told["n"]:
        return None
    p1, p5, p50, p95, p99 = told["q"]
    margin = (p99 - p1) / 2
    low, high = told["low"], told["high"]
    if margin > 0:
        low, high = max(low, p1 - margin), min(high, p99 + margin)
    step = _step(high - low, bins, unit=unit, whole=whole)
    start = math.floor(low / step) * step
    count = max(1, math.floor((high - start) / step) + 1)
    counts = [0] * (count + 2)
    for row in desk.ask(
        f"select greatest(-1, least({count}, floor((x - {start!r}) / {step!r})))::integer as place, count(*) as n "
        f"from {spread} group by place"
    ):
        counts[row["place"] + 1] = row["n"]
    return Histogram(
        low=start,
        step=step,
        counts=tuple(counts[1:-1]),
        unit=unit,
        total=told["n"],
        minimum=told["low"],
        maximum=told["high"],
        mean=told["mean"],
        quantiles={"p5": p5, "p50": p50, "p95": p95, "p99": p99},
        below=counts[0],
        above=counts[-1],
        single=whole and step == 1,
    )


def categories(desk: Desk, relation: str, value: str, *, top: int = _TOP) -> Categories | None:
    """The most frequent values of a SQL expression as text; None where all are null."""
    values = f"(select cast({value} as varchar) as x from {relation})"
    told = desk.one(f"select count(x) as n, approx_count_distinct(x) as distinct_values from {values}")
    if not told["n"]:
        return None
    most: Sequence[Mapping[str, Any]] = desk.ask(
        f"select x[:{_SHOWN}] as x, length(x) as characters, n from (select x, count(*) as n from {values} where x is not null group by x "
        f"order by n desc, x limit {top + 1})"
    )
    listed = tuple(
        (row["x"] + ("…" if row["characters"] > _SHOWN else ""), row["n"])
        for row in (most if len(most) <= top else most[:top])
    )
    distinct = len(most) if len(most) <= top else max(told["distinct_values"], top + 1)
    return Categories(listed, told["n"] - sum(count for _, count in listed), distinct, tuple(x for x, _ in listed[:3]))


def _step(width: float, bins: int, *, unit: Unit, whole: bool) -> float:
    """The smallest round step with which ``bins`` steps cover ``width``."""
    if unit == "day":
        return next((days for days in _DAYS if days * bins >= width), _DAYS[-1] * math.ceil(width / bins / _DAYS[-1]))
    if unit == "hour":
        return 1.0
    wanted = width / bins
    if wanted <= 0 or not math.isfinite(wanted):
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(wanted))
    step = next(factor * magnitude for factor in _ROUND if factor * magnitude >= wanted * (1 - 1e-9))
    return max(1.0, float(math.ceil(step))) if whole else step
