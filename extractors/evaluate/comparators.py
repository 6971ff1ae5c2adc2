"""When a value counts as the expected one. A rule is a word with options after colons:

======================  ==============================================================================================
``exact``               equal as JSON (1 and 1.0 are equal, true and 1 are not)
``text``                strings equal but for case, width, white space and punctuation that separates words; signs
                        between digits count (1.50 is not 150, 10-12 not 1012, 10⁶ not 106), and so do a minus, a
                        decimal point, < and > before a number. Anything else: ``exact``
``address``             e-mail addresses, URLs and UUIDs: strings equal to the last sign, but for the case of an e-mail's
                        domain, of a URL's scheme and host, and of a UUID, and for white space at the ends
``alnum``               only letters and digits are compared
``number[:TOLERANCE]``  equal numbers, printed ones as well (``RM 1,234.50``), of the same unit (``12%``, ``5 kg``); of what
                        is none, ``text``. The tolerance is absolute (``0.01``) or relative to the expected value
                        (``1%``). Without one, floats that are no whole numbers may differ by the noise of calculation,
                        1e-12 of the value; integers and decimals by nothing
``date[:DAYS]``         the same day, time or instant in any printed form; where a string can be read as several days,
                        one of them is enough. Times with an offset are instants
``fuzzy[:LEAST]``       similarity of folded strings, 1 - (insertions + deletions) / (both lengths), at least 0.9
``set[:RULE]``          lists without order: as many pairs as possible whose items are equal by RULE
``objects``             lists of objects: aligned so that as many of their values as possible are right, then each
                        field is compared by its own rule
``whole``               objects, and lists of them: an object counts as one value, right when all its fields are
``skip``                not compared
======================  ==============================================================================================

Without a rule: texts ``text``; e-mail addresses, URLs and UUIDs ``address``; IP addresses, paths, enums, booleans and
integers ``exact``; other numbers ``number``; dates and times ``date``; lists ``set`` of their items' rule; lists of objects
``objects``; anything else ``exact``.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from rapidfuzz.distance import Indel

from extractors.errors import JobError
from extractors.grounding.dates import parse_dates
from extractors.grounding.folding import fold, squeeze
from extractors.grounding.numbers import as_decimal, parse_amount, parse_measure

Likeness = Callable[[Any, Any], float]
"""Expected, got -> 0 to 1. At or above the comparator's ``least`` they count as equal."""

RULES = ("exact", "text", "address", "alnum", "number", "date", "fuzzy", "set", "objects", "whole", "skip")
_FUZZY = 0.9
_FLOAT_NOISE = Decimal("1e-12")
"""Relative: two floats that were meant to be equal."""
_MOST_DIGITS = 10_000
"""Before or after the point of a number; a longer one is compared as text, since decimals overflow."""
_CURRENCY = r"[$¢£¤¥฿₠-⃀]?"
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
_BEFORE_NUMBER = re.compile(
    # A minus, also one of an exponent; a decimal point; a bound that is no end of a tag.
    rf"(?<![\w)\]}}\"'.])-(?={_CURRENCY}[.,]?\d)|(?<=\de)-(?=\d)|(?<![\w.,)\]}}\"'])[.,](?=\d)"
    rf"|(?:<(?![^<>]*>)|(?<![\w\"'/=-])>)(?==?\s?-?{_CURRENCY}[.,]?\d)"
)
_RAISED = re.compile(r"(?<=\d)(?=[⁺⁻]?[⁰¹²³⁴-⁹])")
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞↉])")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*@)?([^/?#@]*)(.*)", re.IGNORECASE | re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)['_](?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Comparator:
    """A compiled rule. ``items`` is the rule of a list's items."""

    rule: str
    likeness: Likeness
    least: float = 1.0
    items: Comparator | None = None

    @property
    def kind(self) -> str:
        """The rule's first word."""
        return self.rule.partition(":")[0]

    def same(self, expected: Any, got: Any) -> bool:
        """Whether ``got`` counts as ``expected``."""
        return self.likeness(expected, got) >= self.least


@lru_cache(maxsize=256)
def comparator(rule: str) -> Comparator:
    """Compile a rule. Raises ``JobError`` that lists the rules."""
    word, _, option = rule.strip().partition(":")
    try:
        match word:
            case "exact" | "skip" | "objects" | "whole" if not option:
                return Comparator(word, _exact)
            case "text" if not option:
                return Comparator(word, _text)
            case "address" if not option:
                return Comparator(word, _address)
            case "alnum" if not option:
                return Comparator(word, _alnum)
            case "number":
                return Comparator(rule, _number(option))
            case "date":
                return Comparator(rule, _date(int(option or 0)))
            case "fuzzy":
                least = float(option or _FUZZY)
                if 0 < least <= 1:
                    return Comparator(rule, _fuzzy, least=least)
            case "set":
                items = comparator(option or "text")
                if items.kind not in ("set", "objects", "whole", "skip"):
                    return Comparator(rule, _exact, items=items)
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise JobError(
            f"the comparison {rule!r} has an option that is no number, or too large a one: {error}"
        ) from error
    raise JobError(
        f"there is no comparison {rule!r}; there are {', '.join(RULES)}, with options such as number:0.01, number:1%, "
        "date:1, fuzzy:0.85, set:fuzzy:0.85"
    )


def blank(value: Any) -> bool:
    """Whether a value says nothing: null, an empty or blank text, an empty list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def _exact(expected: Any, got: Any) -> float:
    return float(_canonical(expected) == _canonical(got))


def _canonical(value: Any) -> str:
    # Not orjson, which has no integers beyond 64 bits.
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _text(expected: Any, got: Any) -> float:
    if isinstance(expected, str) and isinstance(got, str):
        return float(normal_text(expected) == normal_text(got))
    return _exact(expected, got)


@lru_cache(maxsize=8192)
def normal_text(text: str) -> str:
    """What ``text`` compares: folded, without white space and separating punctuation except where it makes a number
    another one. ½ is 1/2, 1'000 is 1000, .5 is 0.5; brackets between digits only part them."""
    folded = fold(_FRACTION.sub(" ", _RAISED.sub("^", text))).replace("\u2044", "/")
    parted = _BETWEEN_DIGITS.sub(_kept_between, _THOUSANDS.sub("", folded))
    return squeeze(_BEFORE_NUMBER.sub(_kept_before, parted)) or folded


def _kept_between(match: re.Match[str]) -> str:
    run = "".join(match[0].split())
    if squeeze(run):
        # Something that is compared anyway: 10 % 5, 10 + 5.
        return match[0]
    kinds = {sign: unicodedata.category(sign) for sign in run}
    signs = ["-" if kinds[sign] == "Pd" else sign for sign in run if kinds[sign] not in ("Ps", "Pe")]
    return "".join(map(_kept, signs or " "))


def _kept_before(match: re.Match[str]) -> str:
    sign = match[0]
    return f"0{_kept(sign)}" if sign in ".," else _kept(sign)


def _kept(sign: str) -> str:
    """A character of private use, which is no punctuation, in the place of a sign."""
    return chr(0xF0000 + ord(sign) % 0xFFFE)


def _address(expected: Any, got: Any) -> float:
    if isinstance(expected, str) and isinstance(got, str):
        return float(_addressed(expected) == _addressed(got))
    return _exact(expected, got)


def _addressed(text: str) -> str:
    """What an address compares as: RFC 3986 (6.2.2.1, 6.2.3) for URLs, RFC 5321 (2.4) for e-mail, RFC 9562 (4) for UUIDs."""
    text = text.strip()
    if _UUID.fullmatch(text):
        return text.lower()
    if url := _URL.fullmatch(text):
        scheme, user, host, rest = url.groups()
        return f"{scheme.lower()}://{user or ''}{host.lower()}{rest if rest.startswith('/') else f'/{rest}'}"
    name, at, domain = text.rpartition("@")
    return f"{name}@{domain.lower()}" if at else text


def _alnum(expected: Any, got: Any) -> float:
    if isinstance(expected, str) and isinstance(got, str):
        return float(_letters(expected) == _letters(got))
    return _exact(expected, got)


def _letters(text: str) -> str:
    folded = fold(text)
    return "".join(char for char in folded if char.isalnum()) or folded


def _fuzzy(expected: Any, got: Any) -> float:
    if isinstance(expected, str) and isinstance(got, str):
        return Indel.normalized_similarity(fold(expected), fold(got))
    return _exact(expected, got)


def _number(option: str) -> Likeness:
    relative = option.endswith("%")
    given = Decimal(option.removesuffix("%") or 0)
    if not given.is_finite() or given < 0 or (given and abs(given.adjusted()) > _MOST_DIGITS):
        raise ValueError(f"{option!r} must be 0 or more, and of a size that is printed")

    def likeness(expected: Any, got: Any) -> float:
        wanted, found = _amount(expected), _amount(got)
        if not wanted.values or not found.values or wanted.unit != found.unit:
            return _text(expected, got)
        # Of two plain numbers neither is printed: 1.234 is 1234 only beside what is no text, or printed in some way.
        plain = wanted.plain and found.plain
        noise = _FLOAT_NOISE if _may_be_noisy(expected, got) else Decimal(0)
        for one in wanted.values if plain else wanted.readings:
            tolerance = max(abs(one) * given / 100 if relative else given, abs(one) * noise)
            if any(abs(one - other) <= tolerance for other in (found.values if plain else found.readings)):
                return 1.0
        return 0.0

    return likeness


def _may_be_noisy(expected: Any, got: Any) -> bool:
    """Whether either is a float and they are not both whole numbers, of which floats are exact."""
    both = (expected, got)
    exact = all(isinstance(one, int) or (isinstance(one, float) and one.is_integer()) for one in both)
    return any(isinstance(one, float) for one in both) and not exact


@dataclass(frozen=True, slots=True)
class _Amount:
    """What a value means as a number; no ``values`` where it is none. ``plain`` is a string such as a ``Decimal`` is
    written as, ``others`` what it means where it was printed."""

    values: Sequence[Decimal] = ()
    unit: str = ""
    plain: bool = False
    others: Sequence[Decimal] = ()

    @property
    def readings(self) -> Sequence[Decimal]:
        return (*self.values, *self.others)


def _amount(value: Any) -> _Amount:
    if isinstance(value, bool):
        return _Amount()
    if isinstance(value, int | float | Decimal):
        return _Amount(_measured(as_decimal(value)))
    return _printed(value) if isinstance(value, str) else _Amount()


@lru_cache(maxsize=8192)
def _printed(text: str) -> _Amount:
    try:
        number = _measured(Decimal(text.strip()))
    except InvalidOperation:
        if values := parse_amount(text):
            return _Amount(tuple(values))
        values, unit = parse_measure(text)
        return _Amount(tuple(values), "".join(fold(unit).split()).rstrip("."))
    others = tuple(one for one in parse_amount(text) if one not in number) if number else ()
    return _Amount(number, plain=True, others=others)


def _measured(number: Decimal) -> Sequence[Decimal]:
    """A number that can be calculated with."""
    if not number.is_finite():
        return ()
    if not number:
        return (Decimal(0),)
    return (number,) if abs(number.adjusted()) <= _MOST_DIGITS else ()


def _date(days: int) -> Likeness:
    if days < 0:
        raise ValueError(f"{days} must be 0 or more")
    near = timedelta(days=days)

    def likeness(expected: Any, got: Any) -> float:
        wanted, found = _moments(expected), _moments(got)
        if not wanted or not found:
            return _text(expected, got)
        return float(any(_same_moment(one, other, near) for one in wanted for other in found))

    return likeness


def _moments(value: Any) -> list[date | time]:
    """The readings of a value as a day, a time of day or an instant; a midnight of no zone is its day."""
    if not isinstance(value, str):
        return []
    text = value.strip()
    for kind in (date, datetime, time):
        try:
            found = kind.fromisoformat(text)
        except ValueError:
            continue
        if isinstance(found, datetime) and found.tzinfo is None and found.time() == time():
            return [found.date()]
        return [found]
    return list(parse_dates(text))


def _same_moment(one: date | time, other: date | time, near: timedelta) -> bool:
    if isinstance(one, time) or isinstance(other, time):
        return isinstance(one, time) and isinstance(other, time) and _same_time(one, other)
    if isinstance(one, datetime) and isinstance(other, datetime):
        if one.tzinfo is None or other.tzinfo is None:
            one, other = one.replace(tzinfo=None), other.replace(tzinfo=None)
        return abs(one - other) <= near
    first = one.date() if isinstance(one, datetime) else one
    second = other.date() if isinstance(other, datetime) else other
    return abs(first - second) <= near


def _same_time(one: time, other: time) -> bool:
    """Times of day with an offset are the same instant of some day; without one on either side, what the clock shows."""
    first, second = one.utcoffset(), other.utcoffset()
    clocks = [datetime.combine(date.min, each.replace(tzinfo=None)) for each in (one, other)]
    apart = clocks[0] - clocks[1]
    return not apart if first is None or second is None else not (apart - first + second) % timedelta(days=1)
