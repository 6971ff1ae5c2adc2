"""One record's values against its label: a verdict for each value.

Counted as in the literature on attribute values (Brinkmann, Baumann and Bizer, ADBIS 2024): a wrong value is one that
should not be there *and* one that is missing; where neither says anything, nothing is counted.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from extractors.evaluate.alignment import MOST, Matrix, align
from extractors.evaluate.comparators import blank
from extractors.evaluate.fields import Compared
from extractors.evaluate.golden import Labelled
from schemas.pointers import below, escape


class Verdict(StrEnum):
    """What a value is. In counts of (true positive, false positive, false negative):"""

    RIGHT = "right"
    """(1, 0, 0)"""
    WRONG = "wrong"
    """(0, 1, 1): another value than expected."""
    MISSING = "missing"
    """(0, 0, 1): expected, and nothing given."""
    EXTRA = "extra"
    """(0, 1, 0): given, and nothing expected."""
    ABSENT = "absent"
    """(0, 0, 0): nothing expected and nothing given."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """True positives, false positives, false negatives."""
        return _COUNTS[self]


_COUNTS = {
    Verdict.RIGHT: (1, 0, 0),
    Verdict.WRONG: (0, 1, 1),
    Verdict.MISSING: (0, 0, 1),
    Verdict.EXTRA: (0, 1, 0),
    Verdict.ABSENT: (0, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A value beside the expected one. ``path`` is the given value's place in the answer, a JSON Pointer without its
    leading slash, which is what evidence and confidence are named by; of an object that is missing in a list, a place
    after the given ones, where no other value's evidence or confidence is."""

    field: str
    path: str
    verdict: Verdict
    expected: Any = None
    got: Any = None


def score_record(root: Compared, label: Labelled, got: Mapping[str, Any] | None) -> list[Cell]:
    """The cells of one record; ``got`` is None for one that became no row, of which all that is expected is missing."""
    cells: list[Cell] = []
    for key, member in root.members.items():
        if key not in label.expected or key in label.free:
            continue
        expected, given = label.expected[key], None if got is None else got.get(key)
        cells.extend(_node(member, expected, given, label.accept.get(key, ()), escape(key)))
    return cells


def labels_any(root: Compared, label: Labelled) -> bool:
    """Whether a label says anything that is scored; a null or an empty list is such a thing, since a value would be wrong."""
    return any(
        key in label.expected and key not in label.free and _scored(member, label.expected[key])
        for key, member in root.members.items()
    )


def _scored(node: Compared, expected: Any) -> bool:
    if node.comparator.kind in ("whole", "exact") or node.is_list or not node.members:
        return any(True for _ in node.fields())
    return node.comparator.kind != "skip" and any(
        _labelled(expected, key) and _scored(member, _member(expected, key)) for key, member in node.members.items()
    )


def _node(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Iterator[Cell]:
    if node.comparator.kind == "skip":
        return
    if node.comparator.kind == "exact":
        yield _value(node, expected, got, accept, path)
    elif node.members and node.is_list:
        yield from _objects(node, expected or [], got or [], accept, path)
    elif node.members and node.comparator.kind == "whole":
        yield _whole(node, expected, got, accept, path)
    elif node.members:
        for key, member in node.members.items():
            if _labelled(expected, key):
                others = [_member(one, key) for one in accept if _labelled(one, key)]
                yield from _best_node(member, _member(expected, key), _member(got, key), others, below(path, key))
    elif node.comparator.items is not None:
        yield from _set(node, expected or [], got or [], accept, path)
    else:
        yield _value(node, expected, got, accept, path)


def _best_node(node: Compared, expected: Any, got: Any, others: Sequence[Any], path: str) -> Iterable[Cell]:
    """A member of an object: a list is right in any of its forms, while at the top ``accept`` is about its items."""
    if not node.is_list or not others:
        return _node(node, expected, got, others, path)
    found = [list(_node(node, one, got, (), path)) for one in (expected, *others)]
    return max(
        found,
        key=lambda cells: [
            sum(sign * one.verdict.counts[kind] for one in cells for kind in kinds)
            for sign, kinds in ((1, (0,)), (-1, (1, 2)))
        ],
    )


def _member(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _value(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Cell:
    if any(_equal(node, one, got) for one in (expected, *accept)):
        # An accepted null is nothing to find, not a value found.
        verdict = Verdict.ABSENT if blank(got) else Verdict.RIGHT
    elif blank(got):
        verdict = Verdict.MISSING
    elif blank(expected):
        verdict = Verdict.EXTRA
    else:
        verdict = Verdict.WRONG
    return Cell(node.path, path, verdict, expected, got)


def _whole(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Cell:
    """An object as one value."""
    rights = [expected, *(_changed(expected, one) for one in accept)]
    nothing = not _apart(node, None, got)
    if not all(any(any(cell.verdict.counts[1:]) for cell in _members(node, one, got, path)) for one in rights):
        verdict = Verdict.ABSENT if nothing else Verdict.RIGHT
    elif nothing:
        verdict = Verdict.MISSING
    else:
        verdict = Verdict.WRONG if _apart(node, expected, None) else Verdict.EXTRA
    return Cell(node.path, path, verdict, expected, got)


def _equal(node: Compared, expected: Any, got: Any) -> bool:
    if blank(expected) or blank(got):
        return blank(expected) and blank(got)
    return node.comparator.same(expected, _as_labelled(node, expected, got))


def _as_labelled(node: Compared, expected: Any, got: Any) -> Any:
    """A value without the keys that its label leaves out."""
    if not node.members:
        return got
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        inner = node.members
        return {
            key: _as_labelled(inner[key], expected[key], one) if key in inner else one
            for key, one in got.items()
            if key in expected
        }
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return [_as_labelled(node, one, other) for one, other in zip(expected, got, strict=True)]
    return got


def _set(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Iterator[Cell]:
    items = node.comparator.items
    assert items is not None
    wanted = [(one, [one, *_others(accept, number)]) for number, one in enumerate(expected) if not blank(one)]
    found = [(number, one) for number, one in enumerate(got) if not blank(one)]
    likeness = [[max(items.likeness(right, one) for right in rights) for _, one in found] for _, rights in wanted]
    same = [[int(value >= items.least) for value in row] for row in likeness]
    closeness = [[round(value * 1000) for value in row] for row in likeness]
    pairs = {row: column for row, column in align(same, closeness) if same[row][column]}
    if not wanted and not found:
        yield Cell(node.path, path, Verdict.ABSENT, [], [])
    for row, (one, _) in enumerate(wanted):
        if row in pairs:
            number, value = found[pairs[row]]
            yield Cell(node.path, f"{path}/{number}", Verdict.RIGHT, one, value)
        else:
            yield Cell(node.path, path, Verdict.MISSING, one, None)
    used = set(pairs.values())
    for column, (number, one) in enumerate(found):
        if column not in used:
            yield Cell(node.path, f"{path}/{number}", Verdict.EXTRA, None, one)


def _others(accept: Sequence[Any], number: int) -> Sequence[Any]:
    """The further right values of an item of a list."""
    return accept[number] if number < len(accept) and isinstance(accept[number], list) else ()


def _objects(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Iterator[Cell]:
    as_one = node.comparator.kind == "whole"
    # Another right object may name just what is another than expected.
    rights = [
        [one, *(_changed(one, other) for other in _others(accept, number) if isinstance(other, Mapping))]
        for number, one in enumerate(expected)
    ]
    pairs = _paired(node, rights, got, as_one=as_one)
    used = {column for column, _ in pairs.values()}
    if as_one:
        if not expected and not got:
            yield Cell(node.path, path, Verdict.ABSENT, [], [])
        for row, one in enumerate(expected):
            if row in pairs:
                at, _ = pairs[row]
                yield Cell(node.path, f"{path}/{at}", Verdict.RIGHT, one, got[at])
            else:
                yield Cell(node.path, path, Verdict.MISSING, one, None)
        for column, one in enumerate(got):
            if column not in used:
                yield Cell(node.path, f"{path}/{column}", Verdict.EXTRA, None, one)
        return
    after = itertools.count(len(got))
    for row, one in enumerate(expected):
        if row in pairs:
            at, right = pairs[row]
            yield from _members(node, rights[row][right], got[at], f"{path}/{at}")
        else:
            yield from _members(node, one, None, f"{path}/{next(after)}")
    for column, one in enumerate(got):
        if column not in used:
            yield from _members(node, None, one, f"{path}/{column}")


def _changed(one: Any, other: Any) -> Any:
    """An expected object with what another right one has in other words."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {**one, **{key: _changed(one.get(key), inner) for key, inner in other.items()}}
    return other


def _paired(
    node: Compared, rights: Sequence[Sequence[Any]], got: Sequence[Any], *, as_one: bool
) -> dict[int, tuple[int, int]]:
    """For the places of expected objects the place of what was given and which of the right objects it is compared with.

    As many values as an assignment can make right are right, then as few as possible wrong, missing or extra. Objects
    that have nothing in common still stand for each other, in order, so that a list of one wrong object shows wrong
    values beside the expected ones. ``as_one`` leaves only pairs that are wholly right.
    """
    same: dict[int, int] = {}
    if len(rights) * len(got) > MOST:
        same = _the_same([each[0] for each in rights], got)
    taken = set(same.values())
    rows = [row for row in range(len(rights)) if row not in same]
    columns = [column for column in range(len(got)) if column not in taken]
    pairs = {row: (column, 0) for row, column in same.items()}
    if not rows or not columns:
        return pairs
    # All right objects of all rows one below the other; a row's first is the label itself.
    starts = np.cumsum([0, *(len(rights[row]) for row in rows[:-1])])
    tallies = _tallies(node, [one for row in rows for one in rights[row]], [got[column] for column in columns])
    right, faults, wrong = (tallies[..., kind] for kind in range(3))
    if as_one:
        (fitting,) = levels = [(faults == 0).astype(np.int64)]
    else:
        missing = np.repeat(
            [_apart(node, rights[row][0], None) for row in rows], [len(rights[row]) for row in rows]
        ).reshape(-1, 1)
        extra = np.array([_apart(node, None, got[column]) for column in columns])
        avoided = missing + extra - faults
        levels = [right, avoided - min(0, avoided.min()), wrong.max() - wrong]
    best = _best_of(levels, starts)
    chosen = [np.take_along_axis(level, best, axis=0) for level in levels]
    for row, column in align(*chosen):
        if not as_one or fitting[best[row, column], column]:
            pairs[rows[row]] = columns[column], int(best[row, column] - starts[row])
    return pairs


def _best_of(levels: Sequence[Matrix], starts: Matrix) -> Matrix:
    """For each row that starts at one of ``starts``, and each column, the line that is best by the levels in turn, the
    first of equals."""
    lines = levels[0].shape[0]
    if lines == len(starts):
        return np.tile(starts.reshape(-1, 1), levels[0].shape[1])
    ends = [*starts[1:], lines]
    return np.array(
        [
            first + np.lexsort([-level[first:last] for level in reversed(levels)], axis=0)[0]
            for first, last in zip(starts, ends, strict=True)
        ]
    )


def _the_same(expected: Sequence[Any], got: Sequence[Any]) -> dict[int, int]:
    """Objects that are expected to the letter, by the places of what is expected, in order: of a list that is too long for
    the best alignment few are left to be compared with each other."""
    places: dict[tuple[str, ...], dict[str, deque[int]]] = {}
    taken: set[int] = set()
    pairs = {}
    for row, one in enumerate(expected):
        if not isinstance(one, Mapping):
            continue
        keys = tuple(sorted(one))
        if keys not in places:
            places[keys] = {}
            for column, other in enumerate(got):
                labelled = {key: other.get(key) for key in keys}
                places[keys].setdefault(_spelt(labelled), deque()).append(column)
        waiting = places[keys].get(_spelt(one), deque())
        while waiting and waiting[0] in taken:
            waiting.popleft()
        if waiting:
            pairs[row] = waiting.popleft()
            taken.add(pairs[row])
    return pairs


def _members(node: Compared, expected: Any, got: Any, place: str) -> Iterator[Cell]:
    for key, member in node.members.items():
        if _labelled(expected, key):
            yield from _node(member, _member(expected, key), _member(got, key), (), below(place, key))


def _labelled(expected: Any, key: str) -> bool:
    """Whether a label says anything about a key; of an object that is null or not there, it says so of every key."""
    return not isinstance(expected, Mapping) or key in expected


def _tallies(node: Compared, expected: Sequence[Any], got: Sequence[Any]) -> Matrix:
    """Of each expected with each given object how many values are right, how many faults there are (a wrong value is
    two), and how many values are wrong: expected x given x 3. Equal values are compared once."""
    found = np.zeros((len(expected), len(got), 3), dtype=np.int64)
    for key, member in node.members.items():
        wanted, of_row = _distinct([_member(one, key) if _labelled(one, key) else _NOT_LABELLED for one in expected])
        given, of_column = _distinct([_member(one, key) for one in got])
        table = np.array([[_tally(member, one, other) for other in given] for one in wanted], dtype=np.int64)
        found += table[np.ix_(of_row, of_column)]
    return found


def _distinct(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The different ones of some values, and the place of each value among them."""
    places: dict[str, int] = {}
    different: list[Any] = []
    at: list[int] = []
    for value in values:
        spelt = "" if value is _NOT_LABELLED else _spelt(value)
        if spelt not in places:
            places[spelt] = len(different)
            different.append(value)
        at.append(places[spelt])
    return different, at


def _tally(node: Compared, expected: Any, got: Any) -> tuple[int, int, int]:
    if expected is _NOT_LABELLED:
        return 0, 0, 0
    verdicts = [cell.verdict for cell in _node(node, expected, got, (), "")]
    faults = sum(sum(one.counts[1:]) for one in verdicts)
    return verdicts.count(Verdict.RIGHT), faults, verdicts.count(Verdict.WRONG)


def _apart(node: Compared, expected: Any, got: Any) -> int:
    """The faults of an object that has no counterpart."""
    return sum(sum(cell.verdict.counts[1:]) for cell in _members(node, expected, got, ""))


def _spelt(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_NOT_LABELLED = object()
