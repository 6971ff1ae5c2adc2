"""The shipped schemas: their examples, their validators, and messages that a model can act on."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from schemas import invoice, product, receipt, ticket
from schemas.arrow import RowCodec
from schemas.invoice import Invoice
from schemas.printed import currency_code, printed_amount, printed_date
from schemas.product import Product
from schemas.receipt import Receipt
from schemas.ticket import Ticket

SHIPPED: list[tuple[type[BaseModel], Any]] = [
    (Product, product.EXAMPLES),
    (Receipt, receipt.EXAMPLES),
    (Ticket, ticket.EXAMPLES),
    (Invoice, invoice.EXAMPLES),
]


@pytest.mark.parametrize(("model", "examples"), SHIPPED)
def test_every_example_is_valid_and_round_trips(model: type[BaseModel], examples: Any) -> None:
    codec = RowCodec(model)
    values = [model.model_validate_json(json.dumps(example)) for example in examples]
    assert len(values) >= 2
    assert [codec.check(value) for value in values] == [[]] * len(values)
    assert codec.decode(codec.encode(values)) == values


@pytest.mark.parametrize(("model", "examples"), SHIPPED)
def test_every_field_has_a_description(model: type[BaseModel], examples: Any) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
    assert len(model.__doc__ or "") > 40


def test_a_product_needs_a_name_and_an_availability_only() -> None:
    value = Product.model_validate({"product_name": "Lamp", "availability": "unknown"})
    assert (value.price, value.currency, value.key_features) == (None, None, [])
    with pytest.raises(ValidationError, match="availability"):
        Product.model_validate({"product_name": "Lamp"})


@pytest.mark.parametrize(
    ("printed", "amount"),
    [
        ("9.00", "9.00"),
        ("RM 1,234.50", "1234.50"),
        ("1.234,50 €", "1234.50"),
        ("$1,234", "1234"),
        ("3,5", "3.5"),
        ("1'234.00 CHF", "1234.00"),
        ("1 234,50 zł", "1234.50"),
        ("(5.00)", "-5.00"),
        ("-5.00", "-5.00"),
        ("5.00-", "-5.00"),
        ("1.234.567", "1234567"),
        ("1,234,567", "1234567"),
        ("USD 12.", "12"),
        ("₹1,00,000.50", "100000.50"),
        ("1 234 567", "1234567"),
        ("12 .50", "12.50"),
    ],
)
def test_printed_amounts_are_read(printed: str, amount: str) -> None:
    assert printed_amount(printed) == Decimal(amount)


@pytest.mark.parametrize(
    "printed", ["free", "3 for 10.00 and 4.00", "12 apples for everyone", "1..2", "--", "10 20", "1,23,4.00"]
)
def test_text_that_is_not_one_amount_is_refused_with_what_to_do(printed: str) -> None:
    with pytest.raises(ValueError, match=r"is not one amount: give a plain number such as 1234.50, or null"):
        printed_amount(printed)


@given(st.decimals(min_value=0, max_value=10**9, places=2))
def test_an_amount_means_the_same_in_english_and_german_print(amount: Decimal) -> None:
    english = f"{amount:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert printed_amount(english) == printed_amount(german) == amount


@pytest.mark.parametrize(
    "printed",
    [
        "2018-03-12",
        "12/03/2018",
        "12-03-18",
        "12.3.2018",
        "12 MAR 2018",
        "12-Mar-18",
        "March 12, 2018",
        "20180312",
        "12/03/2018 10:31 PM",
        "(12/03/2018)",
        "12/03/18 09:15",
        "2018-03-12T10:00:00",
        "12 March 2018,",
    ],
)
def test_printed_dates_are_read_day_first(printed: str) -> None:
    assert printed_date(printed) == date(2018, 3, 12)


def test_a_date_that_can_only_be_month_first_is_read_so() -> None:
    assert printed_date("03/25/2018") == date(2018, 3, 25)


@pytest.mark.parametrize("printed", ["yesterday", "31/02/2018", "12/2018", "99/99/2018"])
def test_text_that_is_no_date_is_refused_with_what_to_do(printed: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD, or null"):
        printed_date(printed)


@pytest.mark.parametrize(("sign", "code"), [("€", "EUR"), ("$", "USD"), ("usd", "USD"), ("RM", "MYR"), (" £ ", "GBP")])
def test_currency_signs_become_codes(sign: str, code: str) -> None:
    assert currency_code(sign) == code


@pytest.mark.parametrize("sign", ["¥", "kr"])
def test_a_sign_of_several_currencies_is_refused(sign: str) -> None:
    with pytest.raises(ValueError, match="give the ISO 4217 code"):
        currency_code(sign)


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_text_is_null(blank: str) -> None:
    assert (printed_amount(blank), printed_date(blank), currency_code(blank)) == (None, None, None)


def test_a_receipt_takes_what_is_printed() -> None:
    value = Receipt.model_validate({"company": "A", "date": "05/03/18", "address": None, "total": "RM9.00"})
    assert (value.date, value.total) == (date(2018, 3, 5), Decimal("9.00"))


def test_an_invoice_whose_lines_miss_the_subtotal_says_both_sums() -> None:
    lines = [{"description": "A", "amount": "10.00"}, {"description": "B", "amount": "20.00"}]
    Invoice.model_validate({"line_items": lines, "subtotal": "30.01"})
    with pytest.raises(ValidationError, match=r"the 2 line_items add up to 30.00, but subtotal is 33: check for"):
        Invoice.model_validate({"line_items": lines, "subtotal": "33"})


def test_an_invoice_with_an_unknown_amount_is_not_summed() -> None:
    lines = [{"description": "A", "amount": "10.00"}, {"description": "B"}]
    assert Invoice.model_validate({"line_items": lines, "subtotal": "33"}).subtotal == 33


@pytest.mark.parametrize("address", ["ana at example.org", "Ana <ana@example.org>", "ana@localhost"])
def test_a_ticket_refuses_what_is_no_mail_address(address: str) -> None:
    ticket_ = {"subject": "A", "category": "other", "priority": "low"}
    assert Ticket.model_validate({**ticket_, "contact_email": " ana@example.org"}).contact_email == "ana@example.org"
    with pytest.raises(ValidationError, match=r"copy the address alone, such as ana@example.org, or give null"):
        Ticket.model_validate({**ticket_, "contact_email": address})
