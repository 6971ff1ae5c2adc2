"""Dates and times as people print them, in the order of any country and the month names of several languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, time
from functools import cache

Place = tuple[int, int]

_LANGUAGES = (
    # One row a language, January to December; "|" parts the spellings.
    "january|jan february|feb march|mar april|apr may june|jun july|jul august|aug "
    "september|sep|sept october|oct november|nov december|dec",
    "januar|jänner|jan februar|feb märz|maerz|mrz|mär april|apr mai juni|jun juli|jul august|aug "
    "september|sep|sept oktober|okt november|nov dezember|dez",
    "janvier|janv février|fevrier|févr|fév|fevr mars|mar avril|avr mai juin juillet|juil août|aout "
    "septembre|sept octobre|oct novembre|nov décembre|decembre|déc",
    "enero|ene febrero|feb marzo|mar abril|abr mayo|may junio|jun julio|jul agosto|ago "
    "septiembre|setiembre|sep|set octubre|oct noviembre|nov diciembre|dic",
    "gennaio|gen febbraio|feb marzo|mar aprile|apr maggio|mag giugno|giu luglio|lug agosto|ago "
    "settembre|set|sett ottobre|ott novembre|nov dicembre|dic",
    "janeiro|jan fevereiro|fev março|marco|mar abril|abr maio|mai junho|jun julho|jul agosto|ago "
    "setembro|set outubro|out novembro|nov dezembro|dez",
    "januari|jan februari|feb maart|mrt april|apr mei juni|jun juli|jul augustus|aug "
    "september|sep oktober|okt november|nov december|dec",
)
_LINK = r"(?:(?:of|de|del|di|van)\s{1,2})?"
_GAP = r"[\s,.\-/'’]{0,3}"
_WORD = r"([^\W\d_]{3,11})"


@cache
def _months() -> dict[str, int]:
    return {
        name: number
        for row in _LANGUAGES
        for number, names in enumerate(row.split(), start=1)
        for name in names.split("|")
    }


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    numeric = re.compile(r"(?<!\d)(?<!\d[./\-])(\d{1,4})(\s?[-/.．／－]\s?)(\d{1,2})\2(\d{1,4})(?!\d)(?![./\-]\d)")
    compact = re.compile(r"(?<![\d.,])((?:19|20)\d\d)(0[1-9]|1[0-2])([0-3]\d)(?=\D|T?\d{6}|$)")
    east = re.compile(r"(\d{4})\s?[年년]\s?(\d{1,2})\s?[月월]\s?(\d{1,2})\s?[日号號일]")
    day_first = re.compile(
        rf"(?<!\d)(\d{{1,2}})(?:\s?(?:st|nd|rd|th|er|ro|[ºª°.]))?(?:\s{{1,2}}day)?{_GAP}{_LINK}{_WORD}{_GAP}{_LINK}"
        r"(\d{4}|\d{2})(?!\d)",
        re.IGNORECASE,
    )
    month_first = re.compile(
        rf"(?<![^\W\d_]){_WORD}\.?[\s\-/]{{0,2}}(\d{{1,2}})(?:st|nd|rd|th)?[\s,.\-/]{{1,3}}['’]?(\d{{4}}|\d{{2}})(?!\d)",
        re.IGNORECASE,
    )
    return numeric, compact, east, day_first, month_first


@cache
def _clock() -> re.Pattern[str]:
    return re.compile(
        r"(?<![\d.,:])(\d{1,2})(?:\s?[:：hH]\s?(\d{2})(?:[:：](\d{2}))?(?:[.,]\d{1,9})?|\.(\d{2})(?=\s?(?:[ap]\.?m\b|uhr\b)))?"
        r"(?![\d:])(?:\s?([ap])\.?m\b\.?)?",
        re.IGNORECASE,
    )


class DateIndex:
    """Every date and time of a text, found once; looked up by value."""

    __slots__ = ("_dates", "_text", "_times")

    def __init__(self, text: str) -> None:
        self._text = text
        self._dates: dict[date, list[Place]] | None = None
        self._times: dict[time, list[Place]] | None = None

    def find(self, value: date) -> list[Place]:
        """Places that can be read as ``value``: 03/04/2018 is both 3 April and 4 March."""
        if self._dates is None:
            self._dates = {}
            for found, place in scan_dates(self._text):
                self._dates.setdefault(found, []).append(place)
        return self._dates.get(value, [])

    def find_time(self, value: time) -> list[Place]:
        """Places that print ``value`` as wall-clock time, to the second; zones and fractions are not compared."""
        if self._times is None:
            self._times = {}
            for found, place in scan_times(self._text):
                self._times.setdefault(found, []).append(place)
        return self._times.get(value.replace(microsecond=0, tzinfo=None, fold=0), [])


def scan_dates(text: str) -> Iterator[tuple[date, Place]]:
    """Every reading of every date in ``text``, each reading once for its place."""
    numeric, compact, east, day_first, month_first = _patterns()
    for match in numeric.finditer(text):
        first, _, second, third = match.groups()
        if len(first) > 2:
            readings = [(first, second, third)] if len(first) == 4 and len(third) <= 2 else []
        elif len(third) in (2, 4):
            readings = [(third, second, first), (third, first, second)]
            if len(third) == 2:
                readings.append((first, second, third))
        else:
            readings = []
        yield from _valid(readings, match.span())
    for pattern in (compact, east):
        for match in pattern.finditer(text):
            yield from _valid([(match[1], match[2], match[3])], match.span())
    months = _months()
    for match in day_first.finditer(text):
        month = months.get(match[2].lower())
        if month is not None:
            yield from _valid([(match[3], str(month), match[1])], match.span())
    for match in month_first.finditer(text):
        month = months.get(match[1].lower())
        if month is not None:
            yield from _valid([(match[3], str(month), match[2])], match.span())


def scan_times(text: str) -> Iterator[tuple[time, Place]]:
    """Every time of day in ``text``: 15:16, 15h16, 3:16:05 pm, 3pm, 15.16 Uhr."""
    for match in _clock().finditer(text):
        hour, minute = int(match[1]), match[2] or match[4]
        half = (match[5] or "").lower()
        if minute is None and not half:
            continue
        if half and not 1 <= hour <= 12:
            half = ""
        if half:
            hour = hour % 12 + (12 if half == "p" else 0)
        if hour < 24 and int(minute or 0) < 60 and int(match[3] or 0) < 60:
            yield time(hour, int(minute or 0), int(match[3] or 0)), match.span()


def parse_dates(text: str) -> set[date]:
    """The readings of a string that is one date and nothing else."""
    text = text.strip()
    return {found for found, place in scan_dates(text) if place == (0, len(text))}


def _valid(readings: list[tuple[str, str, str]], place: Place) -> Iterator[tuple[date, Place]]:
    found: dict[date, None] = {}
    for year_text, month_text, day_text in readings:
        year, month, day = int(year_text), int(month_text), int(day_text)
        # Two digits leave the century open: 68 is 1968 and 2068.
        for full in (year,) if len(year_text) == 4 else (2000 + year, 1900 + year):
            try:
                found[date(full, month, day)] = None
            except ValueError:
                continue
    for value in found:
        yield value, place
