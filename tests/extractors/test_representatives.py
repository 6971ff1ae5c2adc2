"""A few answers that stand for many."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import e

from hypothesis import given
from hypothesis import strategies as st

from extractors.representatives import features, likeness, representatives

FEATURES = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4)).map(Counter), min_size=1, max_size=8)


def test_a_shape_has_fields_and_values_as_often_as_they_are_there_and_no_nulls() -> None:
    answer = {"name": "pan", "price": None, "tags": ["new", "blue"], "lines": [{"sku": 7}, {"sku": None}, {"sku": 7}]}
    assert features(answer) == {
        "/name": 1,
        "/name=pan": 1,
        "/tags/*": 2,
        "/tags/*=new": 1,
        "/tags/*=blue": 1,
        "/lines/*/sku": 2,
        "/lines/*/sku=7": 2,
    }
    assert not features({"name": None, "tags": []})


@given(FEATURES)
def test_likeness_is_the_index_of_jaccard_of_what_more_than_one_has(answers: list[Counter[str]]) -> None:
    held = [Counter({key: n for key, n in one.items() if sum(key in each for each in answers) > 1}) for one in answers]
    for one, row in zip(held, likeness(answers), strict=True):
        for other, value in zip(held, row, strict=True):
            either = (one | other).total()
            assert abs(value - ((one & other).total() / either if either else 1.0)) < 1e-6


@given(FEATURES, st.integers(1, 4))
def test_the_chosen_reach_nearly_as_much_as_the_best_choice_does(answers: list[Counter[str]], most: int) -> None:
    alike = likeness(answers)
    chosen = representatives(answers, most, [1] * len(answers), 100)
    assert len(set(chosen)) == min(most, len(answers))
    best = max(alike[list(some)].max(axis=0).sum() for some in combinations(range(len(answers)), len(chosen)))
    assert alike[chosen].max(axis=0).sum() >= (1 - 1 / e) * best - 1e-6


def test_one_that_has_no_room_beside_the_chosen_gives_way() -> None:
    answers = [Counter("ab"), Counter("ab"), Counter("ab"), Counter("c"), Counter("c")]
    assert representatives(answers, 2, [1, 1, 1, 1, 1], 10) == [0, 3]
    assert representatives(answers, 2, [6, 6, 6, 5, 4], 10) == [0, 4]
    assert representatives(answers, 5, [6, 6, 6, 6, 6], 10) == [0]
    assert representatives([], 2, [], 10) == []
