"""Reading amounts, currencies and dates as they are printed. For use in the shipped schemas and in your own."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

_SYMBOLS = {
    "€": "EUR",
    "£": "GBP",
    "₹": "INR",
    "₩": "KRW",
    "₽": "RUB",
    "₺": "TRY",
    "₫": "VND",
    "₪": "ILS",
    "฿": "THB",
    "₴": "UAH",
    "₱": "PHP",
    "₦": "NGN",
    "₿": "BTC",
    "zł": "PLN",
    "$": "USD",
    "US$": "USD",
    "A$": "AUD",
    "C$": "CAD",
    "CA$": "CAD",
    "NZ$": "NZD",
    "HK$": "HKD",
    "S$": "SGD",
    "R$": "BRL",
    "RM": "MYR",
    "CHF": "CHF",
    "Fr.": "CHF",
    "元": "CNY",
    "RMB": "CNY",
    "円": "JPY",
}
"""Signs that stand for one currency. ``¥`` (yen or yuan) and ``kr`` are several, so they are not here."""
_AMBIGUOUS = {"¥": "JPY or CNY", "kr": "SEK, NOK or DKK", "kr.": "DKK, SEK or NOK"}
_WORDS = {"euro": "EUR", "euros": "EUR", "dollar": "USD", "dollars": "USD", "us dollars": "USD", "pounds": "GBP"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ].*)?", re.DOTALL)
_DAY_FIRST = re.compile(r"(\d{1,2})[-/. ]+(\d{1,2}|[A-Za-z]{3,9})\.?,?[-/. ]+(\d{4}|\d{2})(?:\D.*)?", re.DOTALL)
_MONTH_FIRST = re.compile(r"([A-Za-z]{3,9})\.? +(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})(?:\D.*)?", re.DOTALL)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_AMOUNT = re.compile(r"(?P<sign>[-−(]?)\s*(?P<digits>\d[\d.,'’\s\u00a0\u202f]*)(?P<close>\)?)\s*(?P<after>-?)")


def currency_code(value: Any) -> Any:
    """A currency sign or name as its ISO 4217 code; codes in capitals; anything else as it is.

    Raises ``ValueError`` for a sign that several currencies share.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    if text in _AMBIGUOUS:
        raise ValueError(
            f"{text} may be {_AMBIGUOUS[text]}: give the ISO 4217 code, three capital letters, or null if the text does "
            "not tell which"
        )
    known = _SYMBOLS.get(text) or _WORDS.get(text.casefold())
    if known is not None:
        return known
    code = text.upper()
    if not re.fullmatch(r"[A-Z]{3}", code):
        raise ValueError(
            f"{text[:40]!r} is no currency code: give three capital letters of ISO 4217 such as EUR, or null"
        )
    return code


def printed_amount(value: Any) -> Any:
    """A printed amount as plain number text: ``"RM 1,234.50"`` and ``"1.234,50 €"`` become ``1234.50``.

    Currency signs and codes around it and thousands separators go; ``(5.00)`` and ``5.00-`` are negative. Other
    types pass. A single comma with exactly three digits after it separates thousands, with another number of digits
    decimals; a single point always decimals. Raises ``ValueError`` for text without exactly one amount.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    found = list(_AMOUNT.finditer(text))
    if len(found) != 1 or sum(character.isalpha() for character in text) > 8:
        raise ValueError(f"{text[:40]!r} is not one amount: give a plain number such as 1234.50, or null")
    match = found[0]
    digits = _plain(match["digits"])
    try:
        amount = Decimal(digits)
    except ArithmeticError as error:
        raise ValueError(f"{text[:40]!r} is not one amount: give a plain number such as 1234.50, or null") from error
    lead = text[: match.start()].rstrip()
    negative = match["sign"] in ("-", "−") or (match["sign"] == "(" and match["close"]) or match["after"] == "-"
    return -amount if negative or lead.endswith(("-", "−")) else amount


def printed_date(value: Any) -> Any:
    """A printed date as a ``date``: ISO (``2018-03-12``), day first (``12/03/2018``, ``12-03-18``, ``12.3.2018``,
    ``12 MAR 2018``), or with the month's English name first (``March 12, 2018``). A time after it is ignored.

    Two-digit years are of 2000 to 2069 and 1970 to 1999. A first number above 12 in second place (``03/25/2018``) can
    only be a month-first date and is read so. Other types pass. Raises ``ValueError`` for anything else.
    """
    if not isinstance(value, str):
        return value
    text = value.strip(" \t\r\n()[]:;,")
    if not text:
        return None
    if match := _COMPACT.fullmatch(text) or _ISO.fullmatch(text):
        return _date(int(match[1]), int(match[2]), int(match[3]), text)
    if match := _DAY_FIRST.fullmatch(text):
        day, month, year = int(match[1]), _month(match[2]), _year(match[3])
        if month is not None:
            if match[2].isdigit() and month > 12 >= day:
                day, month = month, day
            return _date(year, month, day, text)
    elif (match := _MONTH_FIRST.fullmatch(text)) and (month := _month(match[1])) is not None:
        return _date(int(match[3]), month, int(match[2]), text)
    raise ValueError(f"{text[:40]!r} is not a date: give it as YYYY-MM-DD, or null if no date is printed")


def _plain(digits: str) -> str:
    """Digits with a point for the decimals and nothing else; "" when the marks make no sense."""
    digits = re.sub(r"\s*([.,])\s*", r"\1", digits).strip()
    digits = re.sub(r"(?<=\d)[\s'’](?=\d{3}(?!\d))", "", digits)
    digits = digits.rstrip(".,")
    point, comma = digits.rfind("."), digits.rfind(",")
    mark = "." if point > comma else ","
    whole, _, decimals = digits.rpartition(mark)
    if not whole:
        return digits
    if mark in whole or (mark == "," and len(decimals) == 3):
        whole, decimals = digits, ""  # it separates thousands
    groups = re.split(r"[.,]", whole)
    if len(groups) > 1 and (len(groups[-1]) != 3 or not all(len(group) in (2, 3) for group in groups[1:])):
        return ""
    return f"{''.join(groups)}.{decimals}" if decimals else "".join(groups)


def _month(text: str) -> int | None:
    if text.isdigit():
        return int(text)
    short = text[:3].lower()
    return _MONTHS.index(short) + 1 if short in _MONTHS else None


def _year(text: str) -> int:
    year = int(text)
    if len(text) == 4:
        return year
    return year + (2000 if year < 70 else 1900)


def _date(year: int, month: int, day: int, text: str) -> date:
    try:
        return date(year, month, day)
    except ValueError as error:
        raise ValueError(
            f"{text[:40]!r} is not a date of the calendar ({error}): give it as YYYY-MM-DD, or null"
        ) from error
