"""When a value counts as the expected one. A rule is a word with options after colons:

======================  ==============================================================================================
``exact``               equal as JSON (1 and 1.0 are equal, true and 1 are not)
``text``                strings equal but for case, width, white space and punctuation that separates words; signs
                        between digits count (1.50 is not 150). Anything else: ``exact``
``alnum``               only letters and digits are compared
``number[:TOLERANCE]``  equal numbers, printed ones as well (``RM 1,234.50``); the tolerance is absolute (``0.01``) or
                        relative to the expected value (``1%``)
``date[:DAYS]``         the same day, time or instant in any printed form; where a string can be read as several days,
                        one of them is enough
``fuzzy[:LEAST]``       similarity of folded strings, 1 - (insertions + deletions) / (both lengths), at least 0.9
``set[:RULE]``          lists without order: as many pairs as possible whose items are equal by RULE
``objects``             lists of objects: aligned so that as many of their values as possible are right, then each
                        field is compared by its own rule
``whole``               objects, and lists of them: an object counts as one value, right when all its fields are
``skip``                not compared
======================  ==============================================================================================

Without a rule: texts ``text``; enums, booleans and integers ``exact``; other numbers ``number``; dates and times
``date``; lists ``set`` of their items' rule; lists of objects ``objects``; anything else ``exact``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from rapidfuzz.distance import Indel

from extractors.errors import JobError
from extractors.grounding.dates import parse_dates
from extractors.grounding.folding import fold, squeeze
from extractors.grounding.numbers import as_decimal, parse_amount

Likeness = Callable[[Any, Any], float]
"""Expected, got -> 0 to 1. At or above the comparator's ``least`` they count as equal."""

RULES = ("exact", "text", "alnum", "number", "date", "fuzzy", "set", "objects", "whole", "skip")
_FUZZY = 0.9
_FLOAT_NOISE = Decimal("1e-9")
"""Relative: two floats that were meant to be equal."""
_BETWEEN_DIGITS = re.compile(r"(?<=\d)\s*[.,:/\-\s]\s*(?=\d)|(?<![^\s])-(?=[\d.,])")
_KEPT = {sign: chr(0xE000 + number) for number, sign in enumerate(".,:/- ")}


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
    except (ValueError, InvalidOperation) as error:
        raise JobError(f"the comparison {rule!r} has an option that is no number: {error}") from error
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


def normal_text(text: str) -> str:
    """What ``text`` compares: folded, without white space and separating punctuation except between digits and
    before a negative number."""
    kept = _BETWEEN_DIGITS.sub(lambda match: _KEPT[match[0].strip() or " "], fold(text))
    return squeeze(kept) or fold(text)


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
    if not given.is_finite() or given < 0:
        raise ValueError(f"{option!r} must be 0 or more")

    def likeness(expected: Any, got: Any) -> float:
        wanted, found = _numbers(expected), _numbers(got)
        if not wanted or not found:
            return _text(expected, got)
        for one in wanted:
            tolerance = max(abs(one) * given / 100 if relative else given, abs(one) * _FLOAT_NOISE)
            if any(abs(one - other) <= tolerance for other in found):
                return 1.0
        return 0.0

    return likeness


def _numbers(value: Any) -> list[Decimal]:
    if isinstance(value, bool):
        return []
    if isinstance(value, int | float | Decimal):
        number = as_decimal(value)
        return [number] if number.is_finite() else []
    if not isinstance(value, str):
        return []
    try:
        number = Decimal(value.strip())
        return [number] if number.is_finite() else []
    except InvalidOperation:
        return parse_amount(value)


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
        return (
            isinstance(one, time) and isinstance(other, time) and one.replace(tzinfo=None) == other.replace(tzinfo=None)
        )
    if isinstance(one, datetime) and isinstance(other, datetime):
        if one.tzinfo is None or other.tzinfo is None:
            one, other = one.replace(tzinfo=None), other.replace(tzinfo=None)
        return abs(one - other) <= near
    first = one.date() if isinstance(one, datetime) else one
    second = other.date() if isinstance(other, datetime) else other
    return abs(first - second) <= near
