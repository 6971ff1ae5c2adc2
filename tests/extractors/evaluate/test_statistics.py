"""Scores and tests against counts whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.evaluate.statistics import Interval, holm, mcnemar, paired, paired_ratio, scores, share

RIGHT, WRONG, MISSING = (1, 0, 0), (0, 1, 1), (0, 0, 1)


def counts(*records: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(records, dtype=np.int64)


def test_precision_recall_and_f1_are_those_of_the_counts() -> None:
    micro, [first, second] = scores(counts([RIGHT, WRONG], [RIGHT, MISSING], [MISSING, RIGHT]))
    assert (micro.true_positives, micro.false_positives, micro.false_negatives) == (3, 1, 3)
    assert micro.precision.value == 3 / 4
    assert micro.recall.value == 3 / 6
    assert micro.f1.value == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert (first.precision.value, second.recall.value) == (1.0, 1 / 3)


def test_a_field_without_values_has_no_score() -> None:
    _, [field] = scores(counts([(0, 0, 0)], [(0, 0, 0)]))
    assert (field.precision.value, field.recall.value, field.f1.value, field.f1.low) == (None, None, None, None)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = [
        (found.low or 0) <= 0.7 <= (found.high or 0)
        for found in (share(generator.random(80) < 0.7, rounds=400, seed=trial) for trial in range(200))
    ]
    assert 0.88 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize(("hits", "low", "high"), [
    ([True] * 30, 0.05 ** (1 / 30), 1.0),
    ([False] * 30, 0.0, 1 - 0.05 ** (1 / 30)),
])  # fmt: skip
def test_at_nought_and_one_the_interval_has_what_so_many_records_can_hide(
    hits: list[bool], low: float, high: float
) -> None:
    found = share(hits)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_records_that_all_say_the_same_leave_an_interval_on_both_sides() -> None:
    micro, _ = scores(counts(*[[RIGHT, WRONG]] * 20))
    assert micro.f1.value == 0.5
    assert (micro.f1.low or 0) < 0.5 < (micro.f1.high or 0)


def test_too_few_records_have_no_interval() -> None:
    micro, [often, seldom] = scores(counts(*[[RIGHT, WRONG]] * 2, *[[RIGHT, (0, 0, 0)]] * 3))
    assert (seldom.f1.value, seldom.f1.low, seldom.f1.high) == (0.0, None, None)
    assert str(seldom.f1) == "0.000 (too few records)"
    assert often.f1.low is not None and micro.f1.low is not None
    assert share([True] * 4).low is None and share([True] * 5).low is not None


def test_a_precision_of_few_given_values_has_no_interval_and_the_recall_has() -> None:
    _, [field] = scores(counts(*[[RIGHT]] * 4, *[[MISSING]] * 10))
    assert (field.precision.value, field.precision.low) == (1.0, None)
    assert field.recall.low is not None


def test_no_difference_has_the_width_of_what_may_be_hidden() -> None:
    same = counts(*[[RIGHT]] * 40)
    gap = paired(same, same, rounds=10)[0].difference
    hidden = 1 - 0.025 ** (1 / 40)
    assert (gap.value, gap.low, gap.high) == (0.0, pytest.approx(-hidden), pytest.approx(hidden))


def test_an_interval_of_few_records_that_all_differ_does_not_contradict_the_test() -> None:
    for records in range(1, 12):
        found, _ = paired(counts(*[[WRONG]] * records), counts(*[[RIGHT]] * records), rounds=20_000)
        above = found.difference.low is not None and found.difference.low > 0
        assert above == found.shown(), f"{records} records: p = {found.p}, {found.difference}"


def test_a_clear_difference_is_shown_and_where_it_lies() -> None:
    a = counts(*[[RIGHT, WRONG]] * 40)
    b = counts(*[[RIGHT, RIGHT]] * 40)
    micro, [same, better] = paired(a, b, rounds=2_000)
    assert micro.difference.value == 0.5
    assert micro.shown() and better.shown() and not same.shown()
    assert (same.p, same.difference.value) == (1.0, 0.0)


def test_two_noisy_outputs_of_the_same_quality_show_no_difference_more_often_than_allowed() -> None:
    generator = np.random.default_rng(5)
    shown = 0
    for _ in range(60):
        a, b = (np.where(generator.random((60, 1, 1)) < 0.6, RIGHT, WRONG).astype(np.int64) for _ in range(2))
        shown += paired(a, b, rounds=400)[0].shown()
    assert shown <= 8, "5 % of 60 are 3; 9 or more have a chance below 1 in 500"


def test_the_test_gives_the_exact_share_of_swaps_for_few_records() -> None:
    a, b = counts(*[[WRONG]] * 4), counts(*[[RIGHT]] * 4)
    micro, _ = paired(a, b, rounds=20_000)
    assert micro.p == pytest.approx(2 / 2**4, abs=0.01)


def test_a_difference_in_one_of_many_fields_has_to_be_larger() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64), (1, 8, 20 / 512)])
def test_mcnemar_is_a_fair_coin(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)


def test_mcnemar_of_thousands_is_the_same_sum() -> None:
    assert mcnemar(470, 531) == pytest.approx(0.0573, abs=0.002)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_an_interval_holds_possible_values_only(records: list[tuple[int, int, int]]) -> None:
    micro, _ = scores(counts(*[[one] for one in records]), rounds=100)
    for figure in (micro.precision, micro.recall, micro.f1):
        if figure.low is not None and figure.high is not None:
            assert 0 <= figure.low < figure.high <= 1


def test_a_ratio_is_of_means_and_its_interval_by_record() -> None:
    generator = np.random.default_rng(3)
    a = generator.uniform(100, 900, 60)
    same = paired_ratio(a, a * 0.5)
    assert (same.value, same.low, same.high) == pytest.approx((0.5, 0.5, 0.5)), "both are drawn the same records"
    noisy = paired_ratio(a, a * generator.uniform(0.3, 0.7, 60))
    assert noisy.low is not None and noisy.high is not None and noisy.value is not None
    assert 0.4 < noisy.low < noisy.value < noisy.high < 0.6
    assert paired_ratio([1, 3], [3, 5]).value == 2, "not the mean of the ratios"


def test_a_ratio_to_nothing_is_not_defined() -> None:
    assert paired_ratio([0, 0], [1, 2]).value is None
    assert paired_ratio([], []).value is None
    assert paired_ratio([1, 2, 3, 4], [1, 2, 3, 4]).low is None, "too few for an interval"
    some = paired_ratio([0, 0, 0, 0, 4], [0, 0, 1, 1, 2])
    assert some.value == 1 and some.high is not None and np.isfinite(some.high)


def test_a_ratio_is_told_of_the_other() -> None:
    assert Interval(0.456, 0.41, 0.523).of("A") == "0.46 of A's (0.41 to 0.52)"
    assert Interval(0.0123).of("A") == "0.012 of A's"
