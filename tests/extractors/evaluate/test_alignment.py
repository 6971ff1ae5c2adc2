"""Which item belongs to which: the best assignment, against all that there are."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from extractors.evaluate import scoring
from extractors.evaluate.alignment import align
from extractors.evaluate.fields import compared_fields
from extractors.evaluate.golden import Labelled
from extractors.evaluate.scoring import Cell, score_record
from schemas.compare import Compare


class Size(BaseModel):
    width: int | None = None
    marks: list[str] = Field(default_factory=list)


class Part(BaseModel):
    text: str | None = None
    price: Annotated[float | None, Compare("number:1")] = None
    size: Size | None = None


class Parts(BaseModel):
    parts: list[Part] = Field(default_factory=list)
    tags: Annotated[list[str], Compare("set:fuzzy:0.5")] = Field(default_factory=list)


def cells(expected: list[Any], got: list[Any], *, accept: Sequence[Any] = (), rule: str = "objects",
          field: str = "parts") -> list[Cell]:  # fmt: skip
    label = Labelled("r", {field: expected}, {field: accept})
    return score_record(compared_fields(Parts, {"parts": rule}), label, {field: got})


def counts(found: list[Cell]) -> tuple[int, int]:
    """Right values, and all that is missing or extra, a wrong value being both."""
    return (
        sum(cell.verdict.counts[0] for cell in found),
        sum(sum(cell.verdict.counts[1:]) for cell in found),
    )


def assignments(rows: int, columns: int) -> Iterator[list[tuple[int, int]]]:
    """All of them, of any size."""
    for size in range(min(rows, columns) + 1):
        for chosen in itertools.combinations(range(rows), size):
            for order in itertools.permutations(range(columns), size):
                yield list(zip(chosen, order, strict=True))


def best_counts(expected: list[Any], got: list[Any], accept: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """The most right values, then the fewest faults, that any assignment of any right objects has."""
    rights = [[one, *({**one, **other} for other in others)] for one, others in zip(expected, accept, strict=True)]
    pair = {
        (row, column): max(
            (counts(cells([right], [other])) for right in rights[row]), key=lambda one: (one[0], -one[1])
        )
        for row in range(len(expected))
        for column, other in enumerate(got)
    }
    missing = [counts(cells([one], []))[1] for one in expected]
    extra = [counts(cells([], [one]))[1] for one in got]
    best = (0, -(10**9))
    for pairs in assignments(len(expected), len(got)):
        used, taken = {row for row, _ in pairs}, {column for _, column in pairs}
        faults = sum(pair[one][1] for one in pairs)
        faults += sum(one for row, one in enumerate(missing) if row not in used)
        faults += sum(one for column, one in enumerate(extra) if column not in taken)
        best = max(best, (sum(pair[one][0] for one in pairs), -faults))
    return best[0], -best[1]


VALUES = {
    "text": st.sampled_from([None, "x", "y", "z"]),
    "price": st.none() | st.integers(0, 4),
    "size": st.none()
    | st.fixed_dictionaries(
        {"width": st.none() | st.integers(0, 1), "marks": st.lists(st.sampled_from("ab"), max_size=2)}
    ),
}
WHOLE = st.fixed_dictionaries(VALUES)
SOME = st.fixed_dictionaries({}, optional=VALUES)


@settings(max_examples=200)
@given(st.lists(st.tuples(WHOLE | SOME, st.lists(SOME, max_size=2)), max_size=3), st.lists(WHOLE, max_size=4))
def test_the_counts_of_a_list_of_objects_are_the_best_that_an_assignment_can_give(
    labels: list[tuple[Any, list[Any]]], got: list[Any]
) -> None:
    expected, accept = [one for one, _ in labels], [others for _, others in labels]
    assert counts(cells(expected, got, accept=accept)) == best_counts(expected, got, accept)


@given(st.lists(st.tuples(WHOLE, st.lists(SOME, max_size=2)), max_size=4), st.randoms(use_true_random=False))
def test_a_list_of_which_everything_is_accepted_is_wholly_right(labels: list[Any], random: Any) -> None:
    got = [{**one, **random.choice([{}, *others])} for one, others in labels]
    random.shuffle(got)
    expected, accept = [one for one, _ in labels], [others for _, others in labels]
    for rule in ("objects", "whole"):
        assert counts(cells(expected, got, accept=accept, rule=rule))[1] == 0


def test_an_accepted_alternative_does_not_take_what_another_item_expects() -> None:
    apple, pear = {"text": "apple", "price": 10}, {"text": "pear", "price": 20}
    expected = [apple, pear]
    accept = [[pear], []]
    assert counts(cells(expected, [pear, apple], accept=accept)) == (4, 0)
    assert counts(cells(expected, [pear, pear], accept=accept)) == (4, 0)


def test_most_values_right_go_before_the_likeness_of_single_objects() -> None:
    full = {"text": "x", "price": 0, "size": {"width": 1, "marks": ["a", "b"]}}
    some = {"text": "x"}
    got = [{"text": "x", "price": None, "size": None}, {"text": "z", "price": 0, "size": {"width": 1, "marks": ["c"]}}]
    found = cells([full, some], got)
    assert counts(found)[0] == 3, "the full object belongs to the one that has two of its values, not to the short one"


def test_two_that_stand_near_a_third_are_both_right() -> None:
    expected = [{"price": 1.0}, {"price": 2.0}]
    got = [{"price": 1.0}, {"price": 0.0}]
    assert counts(cells(expected, got)) == (2, 0), "within 1 there is one for each, and the equal one is not it"


def test_objects_that_have_nothing_in_common_stand_for_each_other_in_order() -> None:
    found = cells([{"text": "a"}, {"text": "b"}], [{"text": one} for one in "xyz"])
    assert [(cell.path, cell.verdict.value) for cell in found if cell.field == "parts/*/text"] == [
        ("parts/0/text", "wrong"),
        ("parts/1/text", "wrong"),
        ("parts/2/text", "extra"),
    ]


def test_as_many_items_of_a_set_as_possible_are_paired() -> None:
    expected, got = ["abcd", "abxy", "cdzw"], ["abcd", "abab", "cdcd"]
    found = cells(expected, got, field="tags")
    assert counts(found)[0] == 3, "the equal pair costs no other its half"


@pytest.mark.parametrize("rule", ["objects", "whole"])
def test_a_list_too_long_for_the_best_assignment_is_aligned_by_what_is_equal_first(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MOST", 3)
    expected = [{"text": f"part {number}"} for number in range(5)]
    got = [{"text": f"Part {number}" if number == 2 else f"part {number}", "price": None} for number in (4, 2, 0, 1, 3)]
    accept = [[{"text": "part 3"}], [], [], [], []]
    assert counts(cells(expected, got, accept=accept, rule=rule)) == (5, 0)


def test_a_list_of_some_hundred_objects_that_are_all_nearly_right_is_aligned_in_a_moment() -> None:
    lines = [{"text": f"part {number}", "price": number % 90 * 3} for number in range(450)]
    shown = [{**line, "text": line["text"] + "x" if number % 2 else line["text"]} for number, line in enumerate(lines)]
    start = time.process_time()
    found = Counter(cell.verdict.value for cell in cells(lines, shown[::-1]))
    assert time.process_time() - start < 10
    assert found["right"] == 675


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_an_assignment_is_the_best_by_one_level_and_then_by_the_next(
    rows: int, columns: int, data: st.DataObject
) -> None:
    line = st.lists(st.integers(0, 3), min_size=columns, max_size=columns)
    first, second = (data.draw(st.lists(line, min_size=rows, max_size=rows)) for _ in range(2))
    pairs = align(first, second)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs) == min(rows, columns)
    sums = [
        tuple(sum(level[row][column] for row, column in one) for level in (first, second))
        for one in assignments(rows, columns)
    ]
    assert tuple(sum(level[row][column] for row, column in pairs) for level in (first, second)) == max(sums)


@given(st.integers(0, 6), st.integers(0, 6))
def test_equals_keep_their_order(rows: int, columns: int) -> None:
    short = min(rows, columns)
    assert align(np.zeros((rows, columns))) == list(zip(range(short), range(short), strict=True))
