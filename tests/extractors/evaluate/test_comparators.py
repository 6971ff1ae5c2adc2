"""When a value counts as the expected one: each rule by examples, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import JobError
from extractors.evaluate.comparators import comparator

EXAMPLES = [
    ("exact", "Kiel", "Kiel", True),
    ("exact", "Kiel", "kiel", False),
    ("exact", 1, 1.0, True),
    ("exact", 1, True, False),
    ("exact", {"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
    ("text", "ACME, Inc.", "acme inc", True),
    ("text", "Café\u00a0Ｍüller", "café müller", True),
    ("text", "1.50", "150", False),
    ("text", "7/8 inch", "78 inch", False),
    ("text", "-5 °C", "5 °C", False),
    ("text", "C++", "C", False),
    ("text", "...", "!!!", False),
    ("alnum", "NO.53 55,57", "no 53 55 57", True),
    ("alnum", "RM 9.00", "rm9.01", False),
    ("number", "RM 1,234.50", 1234.5, True),
    ("number", "1.234,50", "1234.50", True),
    ("number", 0.1 + 0.2, 0.3, True),
    ("number", 5, -5, False),
    ("number", True, 1, False),
    ("number", "about five", "About five.", True),
    ("number:0.01", 9.99, "10.00", True),
    ("number:0.01", 9.98, "10.00", False),
    ("number:1%", 200, 202, True),
    ("number:1%", 200, 203, False),
    ("date", "2024-03-05", "5 March 2024", True),
    ("date", "2024-03-05", "03/05/2024", True),
    ("date", "2024-03-05", "2024-03-06", False),
    ("date", "2024-03-05T00:00:00", "2024-03-05", True),
    ("date", "2024-03-05T10:00:00Z", "2024-03-05T12:00:00+02:00", True),
    ("date", "10:30:00", "10:30", True),
    ("date", "perpetual", "Perpetual", True),
    ("date:2", "2024-02-28", "2024-03-01", True),
    ("date:1", "2024-02-28", "2024-03-01", False),
    ("fuzzy", "Harbour Street 4", "Harbor Street 4", True),
    ("fuzzy", "Harbour Street", "Mill Lane", False),
    ("fuzzy:0.5", "Harbour Street", "Harbour Lane", True),
]


@pytest.mark.parametrize(("rule", "expected", "got", "same"), EXAMPLES)
def test_a_rule_by_example(rule: str, expected: Any, got: Any, same: bool) -> None:
    assert comparator(rule).same(expected, got) is same


@pytest.mark.parametrize(
    "rule", ["", "close", "fuzzy:2", "fuzzy:x", "number:-1", "date:soon", "exact:1", "set:objects"]
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(JobError, match=r"comparison"):
        comparator(rule)


VALUES = st.one_of(
    st.text(max_size=30), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.dates().map(str)
)
RULES = st.sampled_from(["exact", "text", "alnum", "number", "number:0.5", "number:2%", "date", "date:1", "fuzzy"])


@given(RULES, VALUES)
def test_every_value_is_itself(rule: str, value: Any) -> None:
    assert comparator(rule).same(value, value)


@given(RULES.filter(lambda rule: "%" not in rule), VALUES, VALUES)
def test_which_of_two_is_expected_does_not_matter(rule: str, one: Any, other: Any) -> None:
    assert comparator(rule).same(one, other) == comparator(rule).same(other, one)


@given(st.text(max_size=30))
def test_case_and_white_space_at_the_ends_never_matter_to_texts(text: str) -> None:
    for rule in ("text", "alnum", "fuzzy"):
        assert comparator(rule).same(text, f"  {text}\n")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9))
def test_a_number_is_found_in_its_printed_form(number: Any) -> None:
    assert comparator("number").same(str(number), f"{number:,}")
