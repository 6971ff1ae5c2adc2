"""Which few answers stand for many: by their features, what they have and how often.

Two answers are as alike as Jaccard's index of their features as multisets has it. Those chosen are such that every answer
has one like it among them: the sum, over all, of the likeness with the chosen one most like it (facility location). Each
next one adds most to that sum, which comes within 1 - 1/e of the best choice (Nemhauser, Wolsey and Fisher 1978).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def features(answer: Any) -> Counter[str]:
    """What an answer has: its fields that are not null, with and without their values, as often as lists have them."""
    found: Counter[str] = Counter()
    _walk(answer, "", found)
    return found


def representatives(answers: Sequence[Counter[str]], most: int, sizes: Sequence[int], room: float) -> list[int]:
    """The places of at most ``most`` that stand for all, of a size of at most ``room`` together, in the order in which they
    were chosen. Of those that add the same, the first."""
    alike = likeness(answers)
    reached = np.zeros(len(answers))
    chosen: list[int] = []
    left = list(range(len(answers)))
    while len(chosen) < most and (left := [place for place in left if sizes[place] <= room]):
        # Rounded, so that sums made in another order on another machine have the same ties.
        gains = np.maximum(alike[left], reached).sum(axis=1).round(6)
        place = left.pop(int(np.argmax(gains)))
        chosen.append(place)
        room -= sizes[place]
        reached = np.maximum(reached, alike[place])
    return chosen


def likeness(answers: Sequence[Counter[str]]) -> np.ndarray:
    """Jaccard's index of each two, of what at least two of them have: (number, number). Those that have nothing are the
    same."""
    holders = Counter(key for one in answers for key in one)
    columns = {key: column for column, key in enumerate(key for key, count in holders.items() if count > 1)}
    counts = np.zeros((len(answers), len(columns)))
    for place, one in enumerate(answers):
        for key, count in one.items():
            if key in columns:
                counts[place, columns[key]] = count
    totals = counts.sum(axis=1)
    found = np.ones((len(answers), len(answers)))
    for place, mine in enumerate(counts):
        both = np.minimum(counts, mine).sum(axis=1)
        either = totals + totals[place] - both
        np.divide(both, either, out=found[place], where=either > 0)
    return found


def _walk(value: Any, path: str, found: Counter[str]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _walk(inner, f"{path}/{key}", found)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, f"{path}/*", found)
    elif value is not None:
        found[path] += 1
        found[f"{path}={value}"] += 1
