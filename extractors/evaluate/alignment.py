"""Which item of one list belongs to which of another: the best assignment by one measure, then by the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.int64]

MOST = 250_000
"""Pairs up to which the best assignment is found; beyond, the best pair is taken first."""
_BOUND = 2**60
"""Sums of weights that 64 bits hold together with the potentials."""


def align(*levels: Sequence[Sequence[int]] | Matrix) -> list[tuple[int, int]]:
    """Pairs (row, column), each row and column at most once, as many as the shorter side has, in the order of rows.

    ``levels`` are matrices of one shape, rows x columns, of whole numbers from 0. The pairs have the greatest sum of
    the first that an assignment can have, among those the greatest of the second, and so on; among equals they keep
    the order of the lists.

    The Hungarian method with potentials, O(rows² * columns) (Kuhn 1955; Jonker and Volgenant 1987).
    """
    tables = [np.asarray(one, dtype=np.int64) for one in levels]
    shape = tables[0].shape
    if len(shape) < 2 or not all(shape):
        return []
    rows, columns = shape
    row, column = np.ogrid[:rows, :columns]
    order = max(rows, columns) ** 2 - (row - column) ** 2
    if rows * columns > MOST:
        return sorted(_greedy(_weights([*tables, order], counted=1)))
    weights = _weights([*tables, order], counted=min(rows, columns))
    if rows > columns:
        return sorted((row, column) for column, row in _hungarian(weights.T))
    return sorted(_hungarian(weights))


def _weights(levels: Sequence[Matrix], *, counted: int) -> Matrix:
    """One weight for all levels: no sum of ``counted`` later ones is as much as 1 of an earlier. The last levels are left
    out where 64 bits do not hold them."""
    weights = levels[0]
    for level in levels[1:]:
        base = counted * int(level.max()) + 1
        if (counted * int(weights.max()) + 1) * base > _BOUND:
            break
        weights = weights * base + level
    return weights


def _hungarian(weights: Matrix) -> list[tuple[int, int]]:
    """The best assignment of every row; there are at least as many columns."""
    rows, columns = weights.shape
    far = np.iinfo(np.int64).max
    # Index 0 is a row and a column that do not exist, from which each search starts.
    of_row, of_column = np.zeros(rows + 1, dtype=np.int64), np.zeros(columns + 1, dtype=np.int64)
    taken_by = np.zeros(columns + 1, dtype=np.int64)
    for row in range(1, rows + 1):
        taken_by[0] = row
        at = 0
        shortest = np.full(columns + 1, far)
        before = np.zeros(columns + 1, dtype=np.int64)
        seen = np.zeros(columns + 1, dtype=bool)
        while taken_by[at]:
            seen[at] = True
            current = taken_by[at]
            cost = -weights[current - 1] - of_row[current] - of_column[1:]
            nearer = ~seen[1:] & (cost < shortest[1:])
            shortest[1:][nearer] = cost[nearer]
            before[1:][nearer] = at
            open_ones = np.where(seen[1:], far, shortest[1:])
            at = int(open_ones.argmin()) + 1
            gap = shortest[at]
            of_row[taken_by[seen]] += gap
            of_column[seen] -= gap
            shortest[1:][~seen[1:]] -= gap
        while at:
            taken_by[at] = taken_by[before[at]]
            at = int(before[at])
    return [(int(taken_by[column]) - 1, column - 1) for column in range(1, columns + 1) if taken_by[column]]


def _greedy(weights: Matrix) -> list[tuple[int, int]]:
    rows, columns = weights.shape
    ranked = np.argsort(-weights, axis=None, kind="stable")
    free_rows, free_columns = [True] * rows, [True] * columns
    pairs: list[tuple[int, int]] = []
    for row, column in zip(*(places.tolist() for places in np.divmod(ranked, columns)), strict=True):
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            pairs.append((row, column))
            if len(pairs) == min(rows, columns):
                break
    return pairs
