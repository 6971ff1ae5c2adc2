"""One record's values against its label: a verdict for each value.

Counted as in the literature on attribute values (Brinkmann, Baumann and Bizer, ADBIS 2024): a wrong value is one that
should not be there *and* one that is missing; where neither says anything, nothing is counted.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from extractors.evaluate.alignment import align
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


def _node(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Iterator[Cell]:
    if node.comparator.kind == "skip":
        return
    if node.members and node.is_list:
        yield from _objects(node, expected or [], got or [], accept, path)
    elif node.members:
        for key, member in node.members.items():
            others = [_member(one, key) for one in accept]
            yield from _node(member, _member(expected, key), _member(got, key), others, below(path, key))
    elif node.comparator.items is not None:
        yield from _set(node, expected or [], got or [], accept, path)
    else:
        yield _value(node, expected, got, accept, path)


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


def _equal(node: Compared, expected: Any, got: Any) -> bool:
    if blank(expected) or blank(got):
        return blank(expected) and blank(got)
    return node.comparator.same(expected, got)


def _set(node: Compared, expected: Any, got: Any, accept: Sequence[Any], path: str) -> Iterator[Cell]:
    items = node.comparator.items
    assert items is not None
    wanted = [(one, [one, *_others(accept, number)]) for number, one in enumerate(expected) if not blank(one)]
    found = [(number, one) for number, one in enumerate(got) if not blank(one)]
    likeness = [[max(items.likeness(right, one) for right in rights) for _, one in found] for _, rights in wanted]
    pairs = dict(align(likeness, least=items.least))
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
        [one, *({**one, **other} for other in _others(accept, number) if isinstance(other, Mapping))]
        for number, one in enumerate(expected)
    ]
    pairs = _the_same(rights, got)
    taken = set(pairs.values())
    rows = [row for row in range(len(expected)) if row not in pairs]
    columns = [column for column in range(len(got)) if column not in taken]
    likeness = [[max(_alike(node, one, got[column]) for one in rights[row]) for column in columns] for row in rows]
    # An object that counts as one value is right or wrong; how nearly it is right decides nothing.
    found = align(likeness, least=1.0 if as_one else 0.0)
    pairs |= {rows[row]: columns[column] for row, column in found}
    used = set(pairs.values())
    if as_one:
        if not expected and not got:
            yield Cell(node.path, path, Verdict.ABSENT, [], [])
        for row, one in enumerate(expected):
            at = pairs.get(row)
            verdict = Verdict.MISSING if at is None else Verdict.RIGHT
            yield Cell(node.path, path if at is None else f"{path}/{at}", verdict, one, None if at is None else got[at])
        for column, one in enumerate(got):
            if column not in used:
                yield Cell(node.path, f"{path}/{column}", Verdict.EXTRA, None, one)
        return
    # Objects that have nothing in common still stand for each other, in order, so that a list of one wrong object
    # shows wrong values beside the expected ones.
    left = [column for column in range(len(got)) if column not in used]
    for row in range(len(expected)):
        if row not in pairs and left:
            pairs[row] = left.pop(0)
    after = itertools.count(len(got))
    for row, one in enumerate(expected):
        at = pairs.get(row)
        place = f"{path}/{next(after) if at is None else at}"
        if at is not None and len(rights[row]) > 1:
            one = max(rights[row], key=lambda right: _alike(node, right, got[at]))
        yield from _members(node, one, None if at is None else got[at], place)
    for column in left:
        yield from _members(node, None, got[column], f"{path}/{column}")


def _the_same(rights: Sequence[Sequence[Any]], got: Sequence[Any]) -> dict[int, int]:
    """Objects that are right to the letter, by the places of what is expected, in order. They belong together in a best alignment too, and of
    a long list few are left to be compared with each other."""
    places: dict[str, deque[int]] = {}
    for column, one in enumerate(got):
        places.setdefault(json.dumps(one, sort_keys=True), deque()).append(column)
    pairs = {}
    for row, each in enumerate(rights):
        for one in each:
            if waiting := places.get(json.dumps(one, sort_keys=True)):
                pairs[row] = waiting.popleft()
                break
    return pairs


def _members(node: Compared, expected: Any, got: Any, place: str) -> Iterator[Cell]:
    for key, member in node.members.items():
        yield from _node(member, _member(expected, key), _member(got, key), (), below(place, key))


def _alike(node: Compared, expected: Any, got: Any) -> float:
    """The share of values that are right among those that either of two objects has."""
    said = [cell.verdict for cell in _members(node, expected, got, "") if cell.verdict is not Verdict.ABSENT]
    return said.count(Verdict.RIGHT) / len(said) if said else 1.0
