"""Which item of one list belongs to which of another: the assignment of the greatest total likeness."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MOST = 250_000
"""Pairs up to which the best assignment is looked for; beyond, the most alike pair is taken first."""


def align(likeness: Sequence[Sequence[float]], *, least: float = 0.0) -> list[tuple[int, int]]:
    """Pairs (row, column) that together have the greatest sum of likeness, each row and column at most once, in the
    order of rows. Pairs of no likeness, or of less than ``least``, are left out and do not count in the sum.

    The Hungarian method with potentials, O(rows² * columns) (Kuhn 1955; Jonker and Volgenant 1987).
    """
    rows, columns = len(likeness), len(likeness[0]) if likeness else 0
    if not rows or not columns:
        return []
    counted = [[value if value >= least else 0.0 for value in row] for row in likeness]
    if rows * columns > _MOST:
        pairs = _greedy(counted)
    elif rows > columns:
        turned = [[counted[row][column] for row in range(rows)] for column in range(columns)]
        pairs = [(row, column) for column, row in _hungarian(turned)]
    else:
        pairs = _hungarian(counted)
    return sorted((row, column) for row, column in pairs if counted[row][column] > 0)


def _hungarian(likeness: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The best assignment of every row; there are at least as many columns."""
    rows, columns = len(likeness), len(likeness[0])
    # Index 0 is a row and a column that do not exist, from which each search starts.
    of_row, of_column = [0.0] * (rows + 1), [0.0] * (columns + 1)
    taken_by = [0] * (columns + 1)
    for row in range(1, rows + 1):
        taken_by[0] = row
        at = 0
        shortest = [math.inf] * (columns + 1)
        before = [0] * (columns + 1)
        seen = [False] * (columns + 1)
        while taken_by[at]:
            seen[at] = True
            current, gap, nearest = taken_by[at], math.inf, 0
            for column in range(1, columns + 1):
                if seen[column]:
                    continue
                cost = -likeness[current - 1][column - 1] - of_row[current] - of_column[column]
                if cost < shortest[column]:
                    shortest[column], before[column] = cost, at
                if shortest[column] < gap:
                    gap, nearest = shortest[column], column
            for column in range(columns + 1):
                if seen[column]:
                    of_row[taken_by[column]] += gap
                    of_column[column] -= gap
                else:
                    shortest[column] -= gap
            at = nearest
        while at:
            taken_by[at] = taken_by[before[at]]
            at = before[at]
    return [(taken_by[column] - 1, column - 1) for column in range(1, columns + 1) if taken_by[column]]


def _greedy(likeness: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    ranked = sorted(
        ((value, -row, -column) for row, line in enumerate(likeness) for column, value in enumerate(line) if value > 0),
        reverse=True,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for _, row, column in ranked:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((-row, -column))
    return pairs
