"""Precision, recall and F1 with intervals by record, and tests of two outputs on the same records.

Intervals: the percentile bootstrap over records (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): all of a record's values stay together, since they are right or wrong together. Two outputs: approximate
randomisation, which swaps a record's counts between the two at random (Noreen 1989; Yeh, COLING 2000), and for whole
records the exact test of McNemar (1947). Several fields are tested at once, so their p-values are Holm's (1979).

Where all records say the same, as at 0 and at 1, every draw is the same too and the bootstrap has no width. Records that
say otherwise may still be missing from those at hand: with confidence c they are at most 1 - (1 - c)^(1/n) of all, the
bound of Clopper and Pearson (Biometrika 26, 1934) for none of n, about 3/n at 95 % (Hanley and Lippman-Hand, "If nothing
goes wrong, is everything all right?", JAMA 249, 1983). The interval has what that share of records could do at most; where
they could go either way, each side has half of 1 - c. Below five records no interval says anything, and there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""records x fields x (true positives, false positives, false negatives)"""
Floats = NDArray[np.float64]

ROUNDS = 2_000
CONFIDENCE = 0.95
FEWEST = 5
"""Records that say something about a figure: with fewer it has no interval."""
_NO_WIDTH = 1e-12
_AT_ONCE = 4_000_000
"""Numbers in an array of random draws at most."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % bounds. None where it is not defined; bounds None where the records are too few for any."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (too few records)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def of(self, whose: str) -> str:
        """The text of a ratio, such as "0.46 of A's (0.41 to 0.52)"."""
        if self.value is None:
            return "-"
        bounds = "" if self.low is None or self.high is None else f" ({_short(self.low)} to {_short(self.high)})"
        return f"{_short(self.value)} of {whose}'s{bounds}"

    @property
    def signed(self) -> str:
        """The text of a difference, such as "+0.012 (-0.003 to +0.027)"."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:+.3f} (too few records)"
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 of some counts. Precision is undefined where nothing was given, recall where nothing was
    expected, F1 where neither was."""

    true_positives: int
    false_positives: int
    false_negatives: int
    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """B less A. ``p`` is the chance of a difference at least as large if the two were interchangeable."""

    a: float | None
    b: float | None
    difference: Interval
    p: float
    p_adjusted: float

    def shown(self, alpha: float = 1 - CONFIDENCE) -> bool:
        """Whether a difference is shown, the number of tests taken into account."""
        return self.p_adjusted < alpha


def scores(counts: Counts, *, rounds: int = ROUNDS, seed: int = 0) -> tuple[Score, list[Score]]:
    """The micro-average over all fields, and each field's score."""
    draws = np.concatenate([_ratios(drawn) for drawn in _resampled(counts, rounds, seed)]) if len(counts) else None
    every = _with_all(counts.sum(axis=0))
    said = _said(_with_all(counts))
    found = []
    for number, total in enumerate(every):
        measured = _ratios(total[np.newaxis])[0]
        precision, recall, f1 = (
            _interval(measured[which], None if draws is None else draws[:, number, which], said[number, which])
            for which in range(3)
        )
        true, positive, negative = (int(one) for one in total)
        found.append(Score(true, positive, negative, precision, recall, f1))
    return found[0], found[1:]


def share(hits: Sequence[bool] | NDArray[np.bool_], *, rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """The share of records of which something holds."""
    values = np.asarray(hits, dtype=np.int64)
    return ratio(values, np.ones_like(values), rounds=rounds, seed=seed)


def ratio(
    numerators: NDArray[np.int64], denominators: NDArray[np.int64], *, rounds: int = ROUNDS, seed: int = 0
) -> Interval:
    """The sum of one over the sum of the other, both a number a record."""
    if not len(numerators) or not denominators.sum():
        return Interval(None)
    pairs = np.stack([numerators, denominators], axis=1)[:, np.newaxis, :]
    drawn = np.concatenate(list(_resampled(pairs, rounds, seed)))[:, 0, :].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(numerators.sum() / denominators.sum())
        return _interval(value, drawn[:, 0] / drawn[:, 1], int((denominators > 0).sum()))


def paired_ratio(a: Sequence[float], b: Sequence[float], *, rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """The mean of B over the mean of A, a number a record for the same records in the same order; not defined where A is 0
    in all. The draws are those of ``paired``."""
    pairs = np.stack([np.asarray(one, dtype=float) for one in (a, b)], axis=1)
    if not len(pairs) or not pairs[:, 0].sum():
        return Interval(None)
    drawn = np.concatenate([weights.astype(float) @ pairs for weights in _weights(len(pairs), rounds, seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = drawn[:, 1] / drawn[:, 0]
    value = float(pairs[:, 1].sum() / pairs[:, 0].sum())
    # Few records that took anything: a draw may have none of them.
    spread = spread[np.isfinite(spread)]
    if len(pairs) < FEWEST or not len(spread):
        return Interval(value)
    return Interval(value, *map(float, np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])))


def paired(a: Counts, b: Counts, *, rounds: int = 10_000, seed: int = 0) -> tuple[Difference, list[Difference]]:
    """The difference in micro-F1, and in each field's F1, of two outputs for the same records in the same order.

    The micro-average is one test and keeps its p-value; the fields' are adjusted among themselves.
    """
    if a.shape != b.shape:
        raise ValueError(f"not the same records and fields: {a.shape} and {b.shape}")
    of_a, of_b = (_ratios(_with_all(one.sum(axis=0)))[:, 2] for one in (a, b))
    observed = of_b - of_a
    # Both resample the same records: the same seed draws the same weights.
    spread = np.concatenate(
        [
            _ratios(with_b)[..., 2] - _ratios(with_a)[..., 2]
            for with_a, with_b in zip(_resampled(a, ROUNDS, seed), _resampled(b, ROUNDS, seed), strict=True)
        ]
    )
    said = _said(_with_all(a + b))[:, 2]
    p_values = _randomised(a, b, observed, rounds, seed)
    adjusted = [p_values[0], *holm(p_values[1:])]
    found = [
        Difference(
            _or_none(of_a[number]),
            _or_none(of_b[number]),
            _interval(observed[number], spread[:, number], said[number], least=-1.0),
            p_values[number],
            adjusted[number],
        )
        for number in range(len(observed))
    ]
    return found[0], found[1:]


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value for records that only one of two has right: a fair coin thrown for each."""
    n, k = only_a + only_b, min(only_a, only_b)
    if not n:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, float(2 * tail / 2**n)) if n < 1_000 else min(1.0, 2 * math.exp(_log_tail(n, k)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, p_values[number] * (len(p_values) - rank)))
        adjusted[number] = highest
    return adjusted


def _log_tail(n: int, k: int) -> float:
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs))


def _randomised(a: Counts, b: Counts, observed: Floats, rounds: int, seed: int) -> list[float]:
    """p = (as extreme + 1) / (rounds + 1)."""
    generator = np.random.default_rng(seed)
    records = len(a)
    flat_a, flat_b = (one.reshape(records, -1) for one in (a, b))
    total = (flat_a + flat_b).sum(axis=0)
    extreme = np.zeros(len(observed), dtype=np.int64)
    for size in _batches(rounds, records):
        swapped = generator.integers(0, 2, size=(size, records), dtype=np.int64)
        first = (flat_a.sum(axis=0) + _product(swapped, flat_b - flat_a)).reshape(size, *a.shape[1:])
        second = total.reshape(a.shape[1:]) - first
        gaps = np.abs(_ratios(_with_all(second))[..., 2] - _ratios(_with_all(first))[..., 2])
        # A gap that is not defined (a field that only one side fills) is as extreme as any.
        extreme += (np.isnan(gaps) | (gaps >= np.abs(observed) - 1e-12)).sum(axis=0)
    return [
        1.0 if math.isnan(gap) or abs(gap) < 1e-12 else float((count + 1) / (rounds + 1))
        for gap, count in zip(observed, extreme, strict=True)
    ]


def _resampled(counts: NDArray[np.int64], rounds: int, seed: int) -> list[NDArray[np.int64]]:
    """Sums over records drawn with replacement: rounds x (all fields, each field) x counts, in batches."""
    flat = counts.reshape(len(counts), -1)
    found = []
    for weights in _weights(len(counts), rounds, seed):
        sums = _product(weights, flat).reshape(len(weights), *counts.shape[1:])
        found.append(_with_all(sums) if counts.shape[-1] == 3 else sums)
    return found


def _weights(records: int, rounds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each record is drawn in each round, in batches; the same for the same seed."""
    generator = np.random.default_rng(seed)
    for size in _batches(rounds, records):
        yield generator.multinomial(records, np.full(records, 1 / records), size=size)


def _product(weights: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The matrix product by floats, which are exact for counts and which numpy multiplies many times faster."""
    product: NDArray[np.int64] = np.rint(weights.astype(float) @ counts.astype(float)).astype(np.int64)
    return product


def _batches(rounds: int, records: int) -> list[int]:
    size = max(1, min(rounds, _AT_ONCE // max(1, records)))
    return [min(size, rounds - start) for start in range(0, rounds, size)]


def _with_all(totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over the fields put before the fields."""
    return np.concatenate([totals.sum(axis=-2, keepdims=True), totals], axis=-2)


def _ratios(totals: NDArray[np.int64]) -> Floats:
    """Precision, recall, F1 from (true positives, false positives, false negatives); NaN where undefined."""
    true, positive, negative = (totals[..., which].astype(float) for which in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.stack(
            [true / (true + positive), true / (true + negative), 2 * true / (2 * true + positive + negative)], axis=-1
        )
    return found


def _said(counts: Counts) -> NDArray[np.int64]:
    """The records that say something about precision, recall and F1, of all fields and of each."""
    true, positive, negative = (counts[..., which] for which in range(3))
    some: NDArray[np.int64] = np.stack([true + positive, true + negative, true + positive + negative], axis=-1)
    said: NDArray[np.int64] = (some > 0).sum(axis=0)
    return said


def _interval(value: float, draws: Floats | None, records: int, *, least: float = 0.0) -> Interval:
    """The bounds of a figure between ``least`` and 1 about which so many ``records`` say something."""
    if math.isnan(value):
        return Interval(None)
    kept = np.empty(0) if draws is None else draws[~np.isnan(draws)]
    if not len(kept) or records < FEWEST:
        return Interval(float(value))
    low, high = np.quantile(kept, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if high - low < _NO_WIDTH:
        chance = 1 - CONFIDENCE
        # A figure at its end can only be less extreme; a difference is tested on both sides.
        unseen = 1 - float(chance if least == 0 and value in (0, 1) else chance / 2) ** (1 / float(records))
        low, high = value + unseen * (least - value), value + unseen * (1 - value)
    return Interval(float(value), float(low), float(high))


def _short(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
