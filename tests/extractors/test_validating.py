"""Decimals keep the digits that were written, wherever they stand, and nothing else changes."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from extractors.validating import validate_model, validate_type

LONG = "99999999999999999.99"
EXACT = Decimal(LONG)
Money = Annotated[Decimal, Field(max_digits=20, decimal_places=2)]


def german(value: Any) -> Any:
    return value.replace(".", "").replace(",", ".") if isinstance(value, str) else value


def with_tax(value: Any) -> Any:
    return value * 1.5


class Line(BaseModel):
    price: Money | None = None


class Bill(BaseModel):
    total: Money | None = None
    lines: list[Line] = Field(default_factory=list)
    pair: tuple[Decimal, Decimal] | None = None
    by_name: dict[str, Decimal] = Field(default_factory=dict)
    or_text: Decimal | str | None = None
    or_whole: int | Decimal | None = None
    or_float: Decimal | float | None = None
    printed: Annotated[Decimal | None, BeforeValidator(german)] = None
    taxed: Annotated[Decimal | None, BeforeValidator(with_tax)] = None
    weight: float | None = None
    count: int | None = None
    note: str | None = None
    day: date | str | None = None


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (f'{{"total":{LONG}}}', {"total": EXACT}),
        (f'{{"total":"{LONG}"}}', {"total": EXACT}),
        (f'{{"lines":[{{"price":-{LONG}}},{{"price":1.5}}]}}', {"lines": [Line(price=-EXACT), Line(price=Decimal("1.5"))]}),
        (f'{{"pair":[1,{LONG}]}}', {"pair": (Decimal(1), EXACT)}),
        (f'{{"by_name":{{"a/b":{LONG}}}}}', {"by_name": {"a/b": EXACT}}),
        (f'{{"or_text":{LONG},"note":"x"}}', {"or_text": EXACT, "note": "x"}),
        (f'{{"or_whole":{LONG}}}', {"or_whole": EXACT}),
        (f'{{"printed":{LONG}}}', {"printed": EXACT}),
        (f'{{"total":{LONG},"day":"2024-03-12"}}', {"total": EXACT, "day": date(2024, 3, 12)}),
    ],
)  # fmt: skip
def test_decimals_have_all_their_digits(answer: str, value: dict[str, Any]) -> None:
    assert validate_model(Bill, answer) == Bill(**value)


def test_other_numbers_stay_as_they_are() -> None:
    found = validate_model(Bill, f'{{"total":1.5,"weight":{LONG},"or_float":{LONG},"count":9007199254740993}}')
    assert (found.total, found.weight, found.count) == (Decimal("1.5"), 1e17, 9007199254740993)
    assert isinstance(found.or_float, float)
    # Pydantic's own reading, where a validator calculates with the float.
    assert validate_model(Bill, f'{{"taxed":{LONG}}}').taxed == Decimal("1.5E+17")


def test_what_a_float_would_have_rounded_away_is_a_problem_and_what_it_rounded_up_is_none() -> None:
    assert validate_model(Bill, '{"total":999999999999999999.99}').total == Decimal("999999999999999999.99")
    with pytest.raises(ValidationError, match="no more than 2 decimal places"):
        validate_model(Bill, '{"total":12345678901234567.891}')


def test_a_number_is_no_string() -> None:
    with pytest.raises(ValidationError, match="note"):
        validate_model(Bill, f'{{"note":{LONG},"total":{LONG}}}')


def test_what_is_no_json_is_pydantics_to_refuse() -> None:
    with pytest.raises(ValidationError, match="Invalid JSON"):
        validate_model(Bill, f'{{"total":{LONG}')


def test_a_part_of_a_model_is_validated_alike() -> None:
    assert validate_type(TypeAdapter(list[Money | None]), f"[{LONG},null]") == [EXACT, None]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**28), max_value=10**28))
def test_every_decimal_comes_back(number: Decimal) -> None:
    assert validate_type(TypeAdapter(Decimal), format(number, "f")) == number
