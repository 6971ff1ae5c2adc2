"""When a value counts as the expected one: each rule by examples, and what holds for all of them."""

from __future__ import annotations

from decimal import Decimal
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
    ("text", "10-12", "1012", False),
    ("text", "10 – 12", "10-12", True),
    ("text", "10--12", "1012", False),
    ("text", "1;2", "12", False),
    ("text", "1...2", "12", False),
    ("text", "2020(2021)", "20202021", False),
    ("text", "(030) 123", "030 123", True),
    ("text", "5'6", "56", False),
    ("text", "1'000", "1000", True),
    ("text", "3·5", "35", False),
    ("text", "10^6", "106", False),
    ("text", "10⁶", "106", False),
    ("text", "10⁻⁶", "10^-6", True),
    ("text", "12 m²", "12 m2", True),
    ("text", "1_2", "12", False),
    ("text", "2*3", "23", False),
    ("text", "½ l", "1/2 l", True),
    ("text", "1½", "11/2", False),
    ("text", "1½ cups", "1 1/2 cups", True),
    ("text", "1/2", "12", False),
    ("text", "3.5", "35", False),
    ("text", ".5 mg", "5 mg", False),
    ("text", ".5 mg", "0.5 mg", True),
    ("text", "No.5", "No 5", True),
    ("text", "(-5)", "(5)", False),
    ("text", "£-5", "£5", False),
    ("text", "-£5", "£5", False),
    ("text", "1e-5", "1e5", False),
    ("text", "< 5 mg", "> 5 mg", False),
    ("text", "<5>", "5", True),
    ("text", "A-1", "a1", True),
    ("text", "10 % (5)", "10% 5", True),
    ("address", "john.doe@x.com", "johndoe@x.com", False),
    ("address", "john@x.com", " john@X.Com\n", True),
    ("address", "John@x.com", "john@x.com", False),
    ("address", "https://x.com/a-b", "https://x.com/ab", False),
    ("address", "https://x.com/a-b", "HTTPS://X.com/a-b", True),
    ("address", "https://x.com/A", "https://x.com/a", False),
    ("address", "https://Ann:Pw@x.com:80/?a=@B", "https://Ann:Pw@X.COM:80?a=@B", True),
    ("address", "https://Ann@x.com", "https://ann@x.com", False),
    ("address", "https://x.com", "https://x.com/", True),
    ("address", "https://x.com", "http://x.com", False),
    ("address", "x.com/a@B/C", "x.com/a@B/D", False),
    ("address", "0B9C1D2E-0000-4000-8000-00000000000A", "0b9c1d2e-0000-4000-8000-00000000000a", True),
    ("address", "0b9c1d2e-0000-4000-8000-00000000000a", "0b9c1d2e000040008000-00000000000a", False),
    ("alnum", "NO.53 55,57", "no 53 55 57", True),
    ("alnum", "RM 9.00", "rm9.01", False),
    ("number", "RM 1,234.50", 1234.5, True),
    ("number", "1.234,50", "1234.50", True),
    ("number", 0.1 + 0.2, 0.3, True),
    ("number", 5, -5, False),
    ("number", 10**12, 10**12 + 1, False),
    ("number", float(10**12), 10**12 + 1, False),
    ("number", float(10**12), 10**12, True),
    ("number", 10**40, 10**40 + 1, False),
    ("number", "0.12345678901", "0.12345678902", False),
    ("number", "1234567890.12", "1234567890.13", False),
    ("number", 1234567890.12, 1234567890.13, False),
    ("number", "1e9999999", "1", False),
    ("number", 1, "1e9999999", False),
    ("number", "1e-9999999", 0, False),
    ("number", "0e9999999", 0, True),
    ("number", "1e9999999", "1E9999999", True),
    ("number:1%", "1e999999", "1", False),
    ("number", True, 1, False),
    ("number", "about five", "About five.", True),
    ("number:0.01", 9.99, "10.00", True),
    ("number:0.01", 9.98, "10.00", False),
    ("number:1%", 200, 202, True),
    ("number:1%", 200, 203, False),
    ("number", "12%", "12.0 %", True),
    ("number", "12%", "12 per cent", True),
    ("number", "12%", 12, False),
    ("number", "12%", 0.12, False),
    ("number", "12%", "-12%", False),
    ("number", "-12%", "(12.0%)", True),
    ("number", "12%", "12.1%", False),
    ("number:0.5", "12%", "12.1%", True),
    ("number:0.5", "12%", "12.6%", False),
    ("number:1%", "200 kg", "202 kg", True),
    ("number:1%", "200 kg", "203 kg", False),
    ("number", "5 kg", "5.0 kg", True),
    ("number", "5kg", "5.0 KG.", True),
    ("number", "5 kg", "5 lb", False),
    ("number", "5 kg", 5, False),
    ("number", "5 m²", "5.0 m2", False),
    ("number", "5 m²", "5.0 m³", False),
    ("number", "5'", '5.0"', False),
    ("number", "-5 °C", "5.0 °C", False),
    ("number", "-5 °C", "−5.0 °C", True),
    ("number", "1,234.5 km/h", "1.234,50 km/h", True),
    ("number:9", "5 apples and 7 pears", "5 apples and 6 pears", False),
    ("number:1", "10⁶", "11⁶", False),
    ("number:1", "1½ kg", "1 kg", False),
    ("number", "(5 kg)", "5 kg", True),
    ("number", 1234, "1.234", True),
    ("number", 1234, "1,234", True),
    ("number", 1.234, "1.234", True),
    ("number", -1234, "1.234", False),
    ("number", "1.234", "1234", False),
    ("number", "1.234", "1.234,00 €", True),
    ("date", "2024-03-05", "5 March 2024", True),
    ("date", "2024-03-05", "03/05/2024", True),
    ("date", "2024-03-05", "2024-03-06", False),
    ("date", "2024-03-05T00:00:00", "2024-03-05", True),
    ("date", "2024-03-05T10:00:00Z", "2024-03-05T12:00:00+02:00", True),
    ("date", "10:30:00", "10:30", True),
    ("date", "10:00+02:00", "10:00Z", False),
    ("date", "10:00+02:00", "08:00Z", True),
    ("date", "23:30-05:00", "04:30:00Z", True),
    ("date", "00:30+02:00", "22:30Z", True),
    ("date", "10:00+02:00", "10:00", True),
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
    "rule",
    [
        "",
        "close",
        "fuzzy:2",
        "fuzzy:x",
        "number:-1",
        "number:1e999999",
        "number:NaN%",
        "date:soon",
        "date:9999999999",
        "date:-1",
        "exact:1",
        "set:objects",
    ],
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(JobError, match=r"comparison"):
        comparator(rule)


VALUES = st.one_of(
    st.text(max_size=30), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.dates().map(str)
)
RULES = st.sampled_from(
    ["exact", "text", "address", "alnum", "number", "number:0.5", "number:2%", "date", "date:1", "fuzzy"]
)


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


@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_equal_as_numbers_and_only_then(one: Decimal, other: Decimal) -> None:
    small = all(not number or abs(number.adjusted()) < 10_000 for number in (one, other))
    assert comparator("number").same(str(one), str(other)) == (one == other) or not small


UNITS = st.sampled_from(["%", " %", " kg", "km/h", " °C", " percent"])


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9), UNITS, UNITS)
def test_amounts_are_equal_in_any_printed_form_of_the_same_unit_and_only_so(
    number: Decimal, unit: str, other: str
) -> None:
    rule = comparator("number")
    percent = {"%", " %", " percent"}
    alike = unit == other or {unit, other} <= percent
    assert rule.same(f"{number}{unit}", f"{number:,}0{other}") == alike
    assert not rule.same(f"{number}{unit}", f"{number + 1}{unit}")
    assert rule.same(f"{number}{unit}", f"{-number}{unit}") == (not number)
    assert comparator("number:1").same(f"{number}{unit}", f"{number + 1}{unit}")
    assert not rule.same(f"{number}{unit}", float(number))


@given(st.integers(1_000, 999_999), st.sampled_from(".,'"))
def test_a_number_is_found_with_any_mark_of_thousands(number: int, mark: str) -> None:
    printed = f"{number:,}".replace(",", mark)
    for value in (number, float(number)):
        assert comparator("number").same(value, printed) and comparator("number").same(printed, value)
        assert not comparator("number").same(-value, printed)


SIGNS = st.text(st.sampled_from(list(".,:;/-–'\"_*^~|!?·()[]<> ")), max_size=3)


@given(st.integers(1, 999), SIGNS, st.integers(1, 999))
def test_two_numbers_are_never_the_one_that_their_digits_make(one: int, signs: str, other: int) -> None:
    joined = f"{one}{signs}{other}"
    thousands = len(str(other)) == 3 and signs in ("'", "_")
    assert comparator("text").same(joined, f"{one}{other}") == (not signs or thousands)


@given(st.text(max_size=30), st.sampled_from(["exact", "text", "address", "number", "number:1%", "date", "fuzzy"]))
def test_nothing_that_a_model_writes_raises(text: str, rule: str) -> None:
    assert comparator(rule).same("12", text) in (True, False)
