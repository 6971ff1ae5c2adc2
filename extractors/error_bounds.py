"""How sure labelled values make one of an error rate, where a record's values are right or wrong together.

Values that stand or fall together say less than as many that do not. How much less is the design effect: the variance of the
wrong values over the records, as a multiple of what independent values would have (Kish, Survey Sampling, 1965). The sample
counts as so many times smaller, and the exact binomial tail of what is left is taken (Korn and Graubard, Survey Methodology
24, 1998).

Few errors tell little of how they cluster, and none tell nothing, so the variance is that of the records and of one more that
is wrong throughout: without any error the sample counts as its records do, and each value by itself where it has a record of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_TINY = 1e-300
_STEPS = 10_000


def chance_of_so_few(records: Sequence[tuple[int, int]], rate: float) -> float:
    """The probability of no more errors than these if a value is wrong with probability ``rate``. ``records`` are (wrong
    values, values), one for each record."""
    wrong, count = (sum(numbers) for numbers in zip(*records, strict=True)) if records else (0, 0)
    if wrong == count:
        return 1.0
    effect = design_effect(records)
    return _binomial_tail(wrong / effect, count / effect, rate)


def design_effect(records: Sequence[tuple[int, int]]) -> float:
    """How many times fewer independent values would say as much: from 1 to about the values of a record."""
    count = sum(values for _, values in records)
    usual = sum(values**2 for _, values in records) / count
    with_one_more: list[tuple[float, float]] = [*records, (usual, usual)]
    share = sum(wrong for wrong, _ in with_one_more) / (count + usual)
    if share == 1:
        return usual
    spread = sum((wrong - share * values) ** 2 for wrong, values in with_one_more)
    return max(1.0, spread / (share * (1 - share) * (count + usual)))


def _binomial_tail(wrong: float, count: float, rate: float) -> float:
    """The probability of at most ``wrong`` errors in ``count`` values; for counts that are not whole too, by the regularised
    incomplete beta function."""
    a, b, x = count - wrong, wrong + 1, 1 - rate
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log) * _fraction(a, b, x) / a
    return 1 - math.exp(log) * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method."""

    def apart(number: float) -> float:
        return number if abs(number) > _TINY else _TINY

    c, d = 1.0, 1 / apart(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = apart(1 + term / c), 1 / apart(1 + term * d)
            found *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return found
