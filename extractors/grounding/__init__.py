"""Evidence: where in its record every extracted value stands.

How a leaf is matched, first rule that holds:

========================  =============================================================================
string                    exact; normalised (case, width, white space, punctuation); its value, if it is
                          wholly a number or a date; fuzzy (score >= 0.85, at least 5 characters, every
                          digit equal)
int, float, Decimal       exact if printed as ``str(value)``, else by value: ``1.234,50``, ``1,00,000``,
                          ``(5.00)``, ``٣``; ``5%`` supports 0.05 and "three" 3 with score 0.9. Units such
                          as "1.5k" are not expanded
date, datetime, time      by value, in any order of day and month; a datetime needs its time too, unless
                          that is midnight. Zones are not compared
UUID, bytes (UTF-8)       as strings, never fuzzy
enum                      as its value, never fuzzy
bool, anything else       ungrounded: what "yes" means depends on the question
========================  =============================================================================

Among several places of a value the one nearest to its siblings' evidence is taken, else the first.
Booleans and enum members are classifications (:func:`is_classification`): they are rarely printed, so
evidence should not be required of them.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

from pydantic import BaseModel, RootModel

from extractors.grounding.dates import Place, parse_dates
from extractors.grounding.numbers import Hit, as_decimal, parse_amount
from extractors.grounding.spans import Haystack
from schemas.answer_values import answer_keys
from schemas.evidence import Evidence, Match
from schemas.pointers import escape

__all__ = ["Haystack", "ground", "is_classification", "ungrounded_paths"]

_LONGEST_VALUE = 40
"""A longer string is no number or date."""
_MOST_DIGITS = 4_000
_NEARBY = 60
"""A date and a time at most so far apart are quoted together."""
_MIDNIGHT = time()

Pattern = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    match: Match
    places: Sequence[Place | Hit]


def ground(
    value: BaseModel | Mapping[str, object], text: str | Haystack, *, skip: Collection[str] = ()
) -> list[Evidence]:
    """One :class:`Evidence` for every leaf of ``value`` that is not null, in the order of its fields.

    Paths use a field's alias where it has one, as the model's JSON does. ``skip`` names what to leave out,
    in the words of :func:`ungrounded_paths`. Pass a :class:`Haystack` to ground again in the same text.
    """
    hay = text if isinstance(text, Haystack) else Haystack(text)
    patterns = [_pattern(each) for each in skip]
    result: list[Evidence | None] = []
    waiting: list[tuple[int, str, str, _Found]] = []
    anchors: dict[str, list[Place]] = {}
    for owner, path, leaf in _leaves(value, "", ""):
        if patterns and _covered(path, patterns):
            continue
        found = _find(leaf, hay)
        if found is None:
            result.append(Evidence(path, Match.UNGROUNDED, score=0.0))
        elif len(found.places) == 1:
            place = found.places[0]
            result.append(_evidence(path, found, place, hay.text))
            anchors.setdefault(owner, []).append((place[0], place[1]))
        else:
            waiting.append((len(result), owner, path, found))
            result.append(None)
    for index, owner, path, found in waiting:
        near = anchors.setdefault(owner, [])
        place = min(found.places, key=lambda each: min((_gap(each, other) for other in near), default=0))
        near.append((place[0], place[1]))
        result[index] = _evidence(path, found, place, hay.text)
    return [each for each in result if each is not None]


def ungrounded_paths(evidence: Iterable[Evidence], fields: Collection[str]) -> list[str]:
    """Paths of ungrounded evidence at or below ``fields``, in the order of ``evidence``.

    A field is a top-level name (``total``), a pointer (``address/city``) or a pattern in which ``*`` is any one
    step (``line_items/*/price``).
    """
    patterns = [_pattern(field) for field in fields]
    return [each.path for each in evidence if each.match is Match.UNGROUNDED and _covered(each.path, patterns)]


def is_classification(leaf: object) -> bool:
    """Whether ``leaf`` is a choice (bool, enum member) and not something copied from the record."""
    return isinstance(leaf, bool | enum.Enum)


def _find(leaf: object, hay: Haystack) -> _Found | None:
    if isinstance(leaf, enum.Enum):
        leaf = leaf.value
        return _find_string(leaf, hay, fuzzy=False) if isinstance(leaf, str) else _find(leaf, hay)
    if isinstance(leaf, str):
        return _find_string(leaf, hay, fuzzy=True)
    if isinstance(leaf, bool):
        return None
    if isinstance(leaf, int | float | Decimal):
        return _find_number(leaf, hay)
    if isinstance(leaf, datetime):
        return _find_datetime(leaf, hay)
    if isinstance(leaf, date):
        return _by_value(hay.date(leaf))
    if isinstance(leaf, time):
        return _by_value(hay.time(leaf))
    if isinstance(leaf, UUID):
        return _find_string(str(leaf), hay, fuzzy=False)
    if isinstance(leaf, bytes):
        return _find_string(leaf.decode("utf-8", "replace"), hay, fuzzy=False)
    return None


def _find_string(leaf: str, hay: Haystack, *, fuzzy: bool) -> _Found | None:
    if not leaf or leaf.isspace():
        return None
    places = hay.exact(leaf)
    if places:
        return _Found(Match.EXACT, places)
    places = hay.normalised(leaf)
    if places:
        return _Found(Match.NORMALISED, places)
    if len(leaf) <= _LONGEST_VALUE and any(char.isdigit() for char in leaf):
        for amount in parse_amount(leaf):
            hits = hay.number(amount)
            if hits:
                return _Found(Match.VALUE, hits)
        dates = [place for day in sorted(parse_dates(leaf)) for place in hay.date(day)]
        if dates:
            return _Found(Match.VALUE, sorted(set(dates)))
    if fuzzy:
        similar = hay.similar(leaf)
        if similar is not None:
            return _Found(Match.FUZZY, [similar])
    return None


def _find_number(leaf: int | float | Decimal, hay: Haystack) -> _Found | None:
    # str() of an int with more digits raises.
    if isinstance(leaf, int) and leaf.bit_length() > 3 * _MOST_DIGITS:
        return None
    number = as_decimal(leaf)
    if not number.is_finite():
        return None
    places = hay.printed_number(str(leaf))
    return _Found(Match.EXACT, places) if places else _by_value(hay.number(number))


def _find_datetime(leaf: datetime, hay: Haystack) -> _Found | None:
    days = hay.date(leaf.date())
    clock = leaf.timetz().replace(tzinfo=None, microsecond=0)
    if not days or clock == _MIDNIGHT:
        return _by_value(days)
    times = hay.time(clock)
    if not times:
        return None
    day, hour = min(((day, hour) for day in days for hour in times), key=lambda pair: _gap(*pair))
    if _gap(day, hour) > _NEARBY:
        return _by_value([day])
    return _by_value([(min(day[0], hour[0]), max(day[1], hour[1]))])


def _by_value(places: Sequence[Place | Hit]) -> _Found | None:
    return _Found(Match.VALUE, places) if places else None


def _evidence(path: str, found: _Found, place: Place | Hit, text: str) -> Evidence:
    start, end = place[0], place[1]
    return Evidence(path, found.match, text[start:end], start, end, place[2] if len(place) == 3 else 1.0)


def _gap(one: Place | Hit, other: Place | Hit) -> int:
    return max(one[0] - other[1], other[0] - one[1], 0)


def _leaves(value: object, path: str, owner: str) -> Iterator[tuple[str, str, object]]:
    """(path of the nearest object around it, path, leaf) of every leaf that is not null."""
    items: Iterable[tuple[str, object]]
    if isinstance(value, RootModel):
        yield from _leaves(value.root, path, owner)
        return
    if isinstance(value, BaseModel):
        owner = path
        held = value.__dict__
        items = [(key, held[name]) for name, key in _keys(type(value)) if name in held]
        if value.__pydantic_extra__:
            items += [(escape(key), each) for key, each in value.__pydantic_extra__.items()]
    elif isinstance(value, Mapping):
        owner = path
        items = [(escape(_key_text(key)), each) for key, each in value.items()]
    elif isinstance(value, list | tuple | Set):
        items = [(str(index), each) for index, each in enumerate(value)]
    else:
        if value is not None:
            yield owner, path, value
        return
    prefix = f"{path}/" if path else ""
    for key, each in items:
        if each is None:
            continue
        if isinstance(each, str | int | float):
            yield owner, prefix + key, each
        else:
            yield from _leaves(each, prefix + key, owner)


@lru_cache(maxsize=512)
def _keys(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    return tuple((name, escape(key)) for name, key in answer_keys(model).items())


def _key_text(key: object) -> str:
    return str(key.value) if isinstance(key, enum.Enum) else str(key)


def _pattern(field: str) -> Pattern:
    return tuple(field.removeprefix("/").split("/"))


def _covered(path: str, patterns: Iterable[Pattern]) -> bool:
    steps = path.split("/")
    return any(
        len(pattern) <= len(steps) and all(want in ("*", step) for want, step in zip(pattern, steps, strict=False))
        for pattern in patterns
    )
