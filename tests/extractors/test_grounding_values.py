"""Printed numbers, dates and times of many countries."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal

import pytest

from extractors.grounding import ground
from schemas.evidence import Evidence, Match


def one(value: object, text: str) -> Evidence:
    (evidence,) = ground({"field": value}, text)
    return evidence


@pytest.mark.parametrize(
    ("value", "text", "quote"),
    [
        (1234.5, "sum 1,234.50 USD", "1,234.50"),
        (1234.5, "Summe 1.234,50 €", "1.234,50"),
        (1234.5, "total 1\u202f234,50 €", "1\u202f234,50"),
        (1234.5, "CHF 1'234.50", "1'234.50"),
        (1234.5, "CHF 1’234.50", "1’234.50"),
        (1234567, "1.234.567 Stück", "1.234.567"),
        (100000, "Rs 1,00,000", "1,00,000"),
        (12345678, "₹1,23,45,678", "1,23,45,678"),
        (1234, "1,234 pcs", "1,234"),
        (Decimal("1.234"), "1,234 kg", "1,234"),
        (5302, "Nr 5 302", "5 302"),
        (302, "5 302x", "302"),
        (0.57, "tax .57", ".57"),
        (Decimal("0.57"), "tax ,57", ",57"),
        (45.35, "RM45.350", "45.350"),
        (7, "no 007", "007"),
        (5.0, "5 items", "5"),
        (-5.5, "(5.50)", "(5.50)"),
        (-5.5, "5.50- due", "5.50-"),
        (-5.5, "−$5.50", "−$5.50"),
        (-5.5, "$ -5,5", "-5,5"),
        (Decimal("1500"), "1.5e3 Hz", "1.5e3"),
        (12, "１２個", "１２"),
        (1234.5, "١٬٢٣٤٫٥ ريال", "١٬٢٣٤٫٥"),
        (42, "४२ किलो", "४२"),
        (3, "12.03.2018", "03"),
        (123.45, "2018 123.45", "123.45"),
        (45.3, "45.30 450", "45.30"),
        (0, "0.00", "0.00"),
        (5, "5.00%", "5.00"),
    ],
)
def test_a_number_is_found_by_value(value: object, text: str, quote: str) -> None:
    evidence = one(value, text)
    assert text[evidence.start : evidence.end] == evidence.quote == quote
    assert evidence.match is (Match.EXACT if quote == str(value) else Match.VALUE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (45, "145 45.30 450 3.45 4,545"),
        (45.35, "45.36 4535 145.35"),
        (5, "-5 degrees"),
        (-5, "5 degrees"),
        (-20, "10-20"),
        (0, "10 20.5"),
        (35, "45.35"),
        (1500, "1.5k"),
        (13, "thirteen"),
        (1, "someone"),
    ],
)
def test_another_number_is_no_evidence(value: object, text: str) -> None:
    assert one(value, text).match is Match.UNGROUNDED


@pytest.mark.parametrize(
    ("value", "text", "quote"), [(0.05, "VAT 5%", "5%"), (Decimal("0.075"), "7,5 % MwSt", "7,5 %")]
)
def test_a_share_is_found_as_a_percentage_with_a_lower_score(value: object, text: str, quote: str) -> None:
    evidence = one(value, text)
    assert (evidence.match, evidence.quote, evidence.score) == (Match.VALUE, quote, 0.9)


@pytest.mark.parametrize(
    ("value", "text", "quote"),
    [(2, "a table for Two", "Two"), (5, "fünf Stück", "fünf"), (8, "huit jours", "huit"), (12, "doce meses", "doce")],
)
def test_a_small_number_is_found_as_a_word(value: int, text: str, quote: str) -> None:
    evidence = one(value, text)
    assert (evidence.match, evidence.quote, evidence.score) == (Match.VALUE, quote, 0.9)


@pytest.mark.parametrize(
    "printed",
    [
        "2018-03-12",
        "2018/03/12",
        "20180312",
        "12/03/2018",
        "03/12/2018",
        "3/12/18",
        "12-03-18",
        "12.03.2018",
        "12-3-2018",
        "１２／０３／２０１８",
        "12 MAR 2018",
        "12-Mar-18",
        "12MAR2018",
        "March 12, 2018",
        "Mar. 12th 2018",
        "12th of March 2018",
        "12th day of MARCH , 2018",
        "12. März 2018",
        "12 mars 2018",
        "12 de marzo de 2018",
        "12 marzo 2018",
        "12 de março de 2018",
        "12 maart 2018",
        "2018年3月12日",
        "2018년 3월 12일",
    ],
)
def test_a_date_is_found_however_it_is_printed(printed: str) -> None:
    text = f"Date: {printed}, no 7."
    evidence = one(date(2018, 3, 12), text)
    assert text[evidence.start : evidence.end] == evidence.quote == printed
    assert evidence.match is Match.VALUE


@pytest.mark.parametrize(
    "printed", ["1er août 2021", "1 augustus 2021", "1 agosto 2021", "August 1, 2021", "1. August 2021"]
)
def test_the_first_of_august_is_found_in_five_languages(printed: str) -> None:
    assert one(date(2021, 8, 1), printed).quote == printed


@pytest.mark.parametrize(
    "printed", ["13/03/2018", "2018-03-1", "12.03.2018.5", "March 2018", "12 Marble 2018", "2018-13-12"]
)
def test_another_date_is_no_evidence(printed: str) -> None:
    assert one(date(2018, 3, 12), printed).match is Match.UNGROUNDED


def test_a_year_of_two_digits_leaves_the_century_open() -> None:
    assert one(date(1968, 1, 2), "2.1.68").match is Match.VALUE
    assert one(date(2068, 1, 2), "2.1.68").match is Match.VALUE


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (time(15, 16), "15:16"),
        (time(15, 16), "3:16 pm"),
        (time(15, 16), "03:16PM"),
        (time(15, 16), "15h16"),
        (time(15, 16, 5), "15:16:05"),
        (time(15), "3pm"),
        (time(0, 30), "12:30 a.m."),
        (time(12, 30), "12:30 p.m."),
    ],
)
def test_a_time_is_found_however_it_is_printed(value: time, printed: str) -> None:
    assert one(value, f"at {printed} sharp").quote == printed


def test_another_time_is_no_evidence() -> None:
    assert one(time(3, 16), "3:16 pm, 13:16, 3:1").match is Match.UNGROUNDED
