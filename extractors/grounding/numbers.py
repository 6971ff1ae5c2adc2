"""Numbers as people print them: both decimal marks, every way to group, signs, percent, any digits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from functools import cache

_TOKEN = re.compile(
    r"(?:\d+|(?<![\w.,])[.,٫．]\d+)"
    r"(?:[ \u00a0\u202f\u2009]\d{3}(?!\d))*(?:['’٬_，]\d{3}(?!\d)|[.,٫．]\d+)*"
    r"(?:[eE][+-]?\d{1,3}(?!\w))?"
)
_DIGITS = re.compile(r"\d+")
_UNSPACED = re.compile(r"\S+")
_SEPARATORS = str.maketrans(
    {"٫": ".", "．": ".", **dict.fromkeys("’٬_， \u00a0\u202f\u2009", "'"), **{c: c for c in ".,'+-eE"}}
)
_DECIMAL = re.compile(r"(\d*)(?:[.,](\d+))?(?:[eE]([+-]?\d+))?")
# 1,234,567.89 and 1.234.567,89, 1'234.50, and the Indian 12,34,567.
_GROUPED = re.compile(r"([1-9]\d{0,2}([.,'])(?:\d{2,3}\2)*\d{3})(?:(?!\2)[.,](\d+))?")
_MINUS = "-−–﹣－"
_PERCENT = re.compile(r"\s?(?:[%％٪﹪]|percent\b|per cent\b|Prozent\b|pour cent\b)", re.IGNORECASE)
# Not a power or a fraction, which belong to the number.
_UNIT = re.compile(r"(?![⁰¹²³⁴-⁹¼-¾⅐-⅞↉])(?:[^\W\d_]|[\s°℃℉%‰'\"′″²³/·.])+")
_CURRENCY = re.compile(
    r"(?:AED|ARS|AUD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|NOK|NZD|PEN|PHP|PLN"
    r"|RMB|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR|RM|Rs|kr|Rp|Fr|zł|Kč|Ft|lei|US|HK|NT|NZ|[ACRS元円圓원])\.?",
    re.IGNORECASE,
)
_LONGEST = 40
_PERCENT_SCORE = 0.9

Hit = tuple[int, int, float]
"""start, end, score"""


class NumberIndex:
    """Every number of a text, found once; looked up by value."""

    __slots__ = ("_by_digits", "_text")

    def __init__(self, text: str) -> None:
        by_digits: dict[str, list[tuple[int, int]]] = {}
        for match in _TOKEN.finditer(text):
            start, end = match.span()
            if end - start > _LONGEST:
                continue
            for low, high in _numbers_in(match.group()):
                digits = _significant(text[start + low : start + high])
                by_digits.setdefault(digits, []).append((start + low, start + high))
        self._text = text
        self._by_digits = by_digits

    def find(self, value: Decimal) -> list[Hit]:
        """Places whose printed number equals ``value``, in text order.

        ``5%`` is 5 with score 1 and 0.05 with score 0.9. A bracketed or ``12.50-`` number is both
        positive and negative; one with a minus before it only negative.
        """
        hits = []
        size = abs(value)
        for start, end in self._by_digits.get(_digits_of(size), ()):
            for reading in readings(_ascii(self._text[start:end])):
                percent = _PERCENT.match(self._text, end) if reading and reading == size * 100 else None
                if reading != size and percent is None:
                    continue
                whole = _signed(self._text, start, end, negative=value < 0)
                if whole is None:
                    continue
                if percent is None:
                    hits.append((*whole, 1.0))
                else:
                    hits.append((whole[0], max(whole[1], percent.end()), _PERCENT_SCORE))
                break
        return hits


def _numbers_in(token: str) -> Iterator[tuple[int, int]]:
    """The parts of a token that are numbers: 5 302 may be one or two, 12.03.2018 is none but holds three."""
    if token.isdecimal():
        yield 0, len(token)
        return
    whole = bool(readings(_ascii(token)))
    if whole:
        yield 0, len(token)
    parts = list(_UNSPACED.finditer(token))
    if len(parts) > 1:
        for part in parts:
            for low, high in _numbers_in(part.group()):
                yield part.start() + low, part.start() + high
    elif not whole:
        for piece in _DIGITS.finditer(token):
            yield piece.span()


def readings(token: str) -> list[Decimal]:
    """The values that a token of ASCII digits, ``.``, ``,``, ``'`` (any grouping mark) and exponent can mean."""
    values = []
    match = _DECIMAL.fullmatch(token)
    if match is not None:
        whole, fraction, exponent = match.groups()
        values.append(Decimal(f"{whole or 0}.{fraction or 0}e{exponent or 0}"))
    match = _GROUPED.fullmatch(token)
    if match is not None:
        whole, _, fraction = match.groups()
        digits = whole.replace(",", "").replace(".", "").replace("'", "")
        values.append(Decimal(f"{digits}.{fraction or 0}"))
    return values


def parse_amount(text: str) -> list[Decimal]:
    """The values of a string that is a number and nothing else but a sign and a currency ("RM21.85", "-5,00 €")."""
    match = _TOKEN.search(text)
    if match is None or match.end() - match.start() > _LONGEST:
        return []
    before, after = text[: match.start()].strip(), text[match.end() :].strip()
    negative = before.startswith(tuple(_MINUS)) or before.endswith(tuple(_MINUS)) or after in tuple(_MINUS)
    if before.startswith("(") and after.endswith(")"):
        negative, before, after = True, before[1:], after[:-1]
    for rest in (before.strip(_MINUS), after.strip(_MINUS)):
        bare = "".join(char for char in rest if not char.isspace() and unicodedata.category(char) != "Sc")
        if bare and _CURRENCY.fullmatch(bare) is None:
            return []
    values = readings(_ascii(match.group()))
    return [-value for value in values] if negative else values


def parse_measure(text: str) -> tuple[list[Decimal], str]:
    """The values of a string that is an amount with a unit or a percent sign behind it ("12 %", "-5,0 kg"), and the unit,
    a percent sign in any spelling as "%"; no values and "" for anything else. A bracketed percentage is negative; of
    other units brackets say nothing, and such a string is none."""
    match = _TOKEN.search(text)
    if match is None:
        return [], ""
    amount, unit = text[: match.end()], text[match.end() :].strip()
    if amount.lstrip().startswith("(") and unit.endswith(")"):
        amount, unit = f"{amount})", unit[:-1]
        if _PERCENT.fullmatch(unit) is None:
            return [], ""
    if _UNIT.fullmatch(unit) is None and _PERCENT.fullmatch(unit) is None:
        return [], ""
    values = parse_amount(amount)
    return (values, "%" if _PERCENT.fullmatch(unit) else unit) if values else ([], "")


def as_decimal(value: int | float | Decimal) -> Decimal:
    """The decimal that a value is printed as: 0.1 is 0.1, not its binary expansion."""
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def is_whole_number(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]``, a printed number, is not part of a longer one and has no other sign."""
    if end < len(text):
        after = text[end]
        if after.isdigit() or (after in ".,٫" and end + 1 < len(text) and text[end + 1].isdigit()):
            return False
    if start == 0:
        return True
    before = text[start - 1]
    two = text[start - 2] if start > 1 else " "
    if before.isdigit() or (before in ".,٫" and not two.isalpha()):
        return False
    return not (before in _MINUS and not two.isalnum())


@cache
def number_words() -> dict[int, tuple[str, ...]]:
    """Words of the numbers 1 to 12 in seven languages, folded."""
    table = {
        # The Spanish 11 is left out: "once" is an English word.
        "en": "one two three four five six seven eight nine ten eleven twelve",
        "de": "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "fr": "une deux trois quatre cinq six sept huit neuf dix onze douze",
        "es": "uno dos tres cuatro cinco seis siete ocho nueve diez - doce",
        "it": "uno due tre quattro cinque sei sette otto nove dieci undici dodici",
        "pt": "um dois três quatro cinco seis sete oito nove dez onze doze",
        "nl": "een twee drie vier vijf zes zeven acht negen tien elf twaalf",
    }
    words: dict[int, dict[str, None]] = {number: {} for number in range(1, 13)}
    for line in table.values():
        for number, word in enumerate(line.split(), start=1):
            if word != "-":
                words[number][word] = None
    return {number: tuple(found) for number, found in words.items()}


def _signed(text: str, start: int, end: int, *, negative: bool) -> tuple[int, int] | None:
    """The number's place with its sign, or None when it has the other sign."""
    at = start - 1
    while at >= 0 and unicodedata.category(text[at]) == "Sc":
        at -= 1
    before = text[at] if at >= 0 else " "
    if before in _MINUS:
        two = text[at - 1] if at else " "
        if not two.isalnum():
            return (at, end) if negative else None
        # RM-5.00 is an amount, 10-20 a range: letters before the minus leave both open.
        return ((at, end) if two.isalpha() else None) if negative else (start, end)
    if not negative:
        return start, end
    if end < len(text) and text[end] in _MINUS and not text[end + 1 : end + 2].isalnum():
        return start, end + 1
    closing = next(_closing(text, end), None)
    if before == "(" and closing is not None:
        return at, closing
    return None


def _closing(text: str, end: int) -> Iterator[int]:
    for at in range(end, min(end + 3, len(text))):
        if text[at] == ")":
            yield at + 1
        elif text[at].isalnum():
            return


def _ascii(token: str) -> str:
    if not token.isascii():
        token = "".join(str(unicodedata.decimal(char, char)) for char in token)
    return token.translate(_SEPARATORS)


def _significant(token: str) -> str:
    """Digits without the zeros at both ends and without the exponent: equal for equal values."""
    if not token.isdecimal():
        mantissa = re.split("[eE]", token)[0]
        token = "".join(char for char in mantissa if char.isdecimal())
    if not token.isascii():
        token = "".join(str(unicodedata.decimal(char)) for char in token)
    return token.strip("0")


def _digits_of(value: Decimal) -> str:
    return "".join(map(str, value.as_tuple().digits)).strip("0")
