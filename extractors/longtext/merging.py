"""Items of a list that were found in windows which overlap, as one list: in the text's order, each once. Pure.

Two items are the same where their keys are, if the schema names one. Otherwise only a place tells: an item's *own* places
are those of its values that no other item of its window shares, and items found at one such place are one item; items
that are equal but stand at different places are two. Items without any place are the same where they are equal and both lie
in the overlap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from extractors.longtext.windows import Window
from extractors.parsing import loads_exact
from schemas.evidence import Evidence

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """An item as one window gave it. Paths are relative to the item, offsets are the record's; ``anchor`` is the offset of
    its most telling value (None: it stands nowhere), ``own`` are the places of values that only it has."""

    value: BaseModel
    text: str
    evidence: tuple[Evidence, ...]
    window: int
    anchor: int | None = None
    own: frozenset[Place] = frozenset()
    confidence: tuple[tuple[str, float], ...] = ()
    corrected: tuple[str, ...] = ()
    nulled: tuple[str, ...] = ()
    routed: tuple[str, ...] = ()
    key: tuple[str, ...] | None = field(default=None)

    @property
    def blanks(self) -> int:
        """How many values it lacks."""
        return self.text.count("null")


def keyed(item: Found, names: Sequence[str]) -> Found:
    """The item with its key; None where it lacks a part of it."""
    if not names:
        return item
    data = loads_exact(item.text)
    values = [data.get(name) for name in names]
    if any(value is None or value == "" for value in values):
        return item
    return replace(item, key=tuple(" ".join(str(value).split()).casefold() for value in values))


def placed(items: Sequence[Found], text: str, window: Window) -> list[Found]:
    """Items of one window, in the order of its answer, with their places told apart.

    A value that stands there once and is of one item only pins that item; the others are looked for between their
    neighbours, each after the one before it. An item that repeats an earlier one word for word, though a value of it that
    no other has stands there fewer times, is left out."""
    within = window.of(text)
    items = _without_repetitions(items, within)
    quotes = Counter(one.quote or "" for item in items for one in _grounded(item))
    counts = {quote: within.count(quote) for quote in quotes}
    leaves = [_grounded(item) for item in items]
    pins = [
        max((one for one in each if quotes[one.quote or ""] == counts[one.quote or ""] == 1), key=_length, default=None)
        for each in leaves
    ]
    starts = [None if pin is None or pin.start is None else pin.start - window.start for pin in pins]
    anchors: list[int | None] = []
    best: list[Evidence | None] = []
    low = 0
    for at, each in enumerate(leaves):
        telling, start = pins[at], starts[at]
        if telling is None and each:
            telling = min(
                each, key=lambda one: (max(0, quotes[one.quote or ""] - counts[one.quote or ""]), -_length(one))
            )
            high = next((pin for pin in starts[at + 1 :] if pin is not None and pin >= low), len(within))
            match = _whole(telling.quote or "").search(within, low, high)
            start = match.start() if match else (telling.start or 0) - window.start
        if telling is not None and start is not None and start >= low:
            low = start + _length(telling)
        anchors.append(start)
        best.append(telling)
    kept: list[Found] = []
    for at, item in enumerate(items):
        anchor, telling = anchors[at], best[at]
        if anchor is None or telling is None:
            kept.append(replace(item, anchor=None, own=frozenset()))
            continue
        here = window.start + anchor
        ends = [place[2] for place in _places(kept[-1]) if place[2] <= here] if kept else []
        after = min((start for start in anchors[at + 1 :] if start is not None and start > anchor), default=len(within))
        low = max(ends, default=window.start) - window.start
        kept.append(_gathered(item, telling, within, window, at=anchor, low=low, high=after))
    shared = Counter(place for item in kept for place in _places(item))
    return [replace(item, own=frozenset(place for place in _places(item) if shared[place] == 1)) for item in kept]


def _length(one: Evidence) -> int:
    return len(one.quote or "")


def _without_repetitions(items: Sequence[Found], within: str) -> list[Found]:
    """The items without those that were given before, though a value that no other item has stands there fewer times."""
    users: dict[str, set[str]] = {}
    for item in items:
        for one in _grounded(item):
            users.setdefault(one.quote or "", set()).add(item.text)
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        repeats = seen[item.text]
        seen[item.text] += 1
        own = {one.quote or "" for one in _grounded(item) if len(users[one.quote or ""]) == 1} if repeats else set()
        if not any(within.count(quote) <= repeats for quote in own):
            kept.append(item)
    return kept


def _grounded(item: Found) -> list[Evidence]:
    return [one for one in item.evidence if one.start is not None and one.quote]


def _places(item: Found) -> list[Place]:
    return [(one.path, one.start, one.end) for one in _grounded(item) if one.start is not None and one.end is not None]


def _gathered(item: Found, telling: Evidence, within: str, window: Window, *, at: int, low: int, high: int) -> Found:
    """The item with its anchor ``at``, and those of its values beside it that were found elsewhere, though they stand
    between the items before and after it (``low`` to ``high``) too."""
    moved = []
    for one in item.evidence:
        if one.start is None or not one.quote:
            moved.append(one)
            continue
        start = one.start - window.start
        if one is telling:
            start = at
        elif not low <= start < high:
            start = _beside(within, one.quote, at=at, low=low, high=high, else_=start)
        start += window.start
        moved.append(one if start == one.start else replace(one, start=start, end=start + len(one.quote)))
    return replace(item, anchor=window.start + at, evidence=tuple(moved))


def _beside(text: str, quote: str, *, at: int, low: int, high: int, else_: int) -> int:
    """The first place of ``quote`` between ``at`` and ``high``, else the last one between ``low`` and ``at``."""
    pattern = _whole(quote)
    after = pattern.search(text, at, high)
    if after is not None:
        return after.start()
    return next((match.start() for match in reversed(list(pattern.finditer(text, low, at)))), else_)


def _whole(quote: str) -> re.Pattern[str]:
    """The quote as whole words."""
    edge = r"(?<!\w)" if quote[:1].isalnum() else ""
    tail = r"(?!\w)" if quote[-1:].isalnum() else ""
    return re.compile(edge + re.escape(quote) + tail)


def same(one: Found, other: Found) -> bool:
    """Whether two windows found one item."""
    if one.key is not None and other.key is not None:
        return one.key == other.key
    if one.own and other.own:
        return not one.own.isdisjoint(other.own)
    return one.text == other.text and (one.anchor is None or other.anchor is None or one.anchor == other.anchor)


def joined(before: Sequence[Found], after: Sequence[Found], overlap: tuple[int, int]) -> list[Found]:
    """The items so far and those of the next window, which shares the offsets ``overlap`` with the one before it."""
    low, high = overlap
    tail = len(before)
    while tail and _may_lie(before[tail - 1], from_=low):
        tail -= 1
    tail = max(0, tail - 1)
    head = 0
    while head < len(after) and _may_lie(after[head], to=high):
        head += 1
    head = min(len(after), head + 1)
    return [*before[:tail], *_aligned(before[tail:], after[:head]), *after[head:]]


def _may_lie(item: Found, *, from_: int = -1, to: int | None = None) -> bool:
    return item.anchor is None or (item.anchor >= from_ and (to is None or item.anchor < to))


def _aligned(left: Sequence[Found], right: Sequence[Found]) -> list[Found]:
    """Both, what is the same once: by the longest common subsequence, so that the order of both is kept."""
    longest = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            longest[i][j] = (
                longest[i + 1][j + 1] + 1 if same(left[i], right[j]) else max(longest[i + 1][j], longest[i][j + 1])
            )
    merged: list[Found] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if same(left[i], right[j]):
            merged.append(fuller(left[i], right[j]))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] == longest[i][j + 1] and _comes_first(right[j], left[i]):
            merged.append(right[j])
            j += 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return [*merged, *left[i:], *right[j:]]


def _comes_first(one: Found, other: Found) -> bool:
    return one.anchor is not None and other.anchor is not None and one.anchor < other.anchor


def with_missing(items: Sequence[Found], missing: Sequence[Found]) -> list[Found]:
    """One window's items with those that another look found, each before the first item that stands after it."""
    merged = list(items)
    for one in missing:
        place = len(merged)
        if one.anchor is not None:
            place = next((at for at, each in enumerate(merged) if _comes_first(one, each)), place)
        merged.insert(place, one)
    return merged


def without_repeats(items: Sequence[Found]) -> list[Found]:
    """The items, those with one key as one: the first, with what it lacks of the others."""
    places: dict[tuple[str, ...], int] = {}
    merged: list[Found] = []
    for item in items:
        if item.key is not None and item.key in places:
            at = places[item.key]
            merged[at] = _filled(merged[at], item)
            continue
        if item.key is not None:
            places[item.key] = len(merged)
        merged.append(item)
    return merged


def fuller(one: Found, other: Found) -> Found:
    """The one of two views of an item that lacks less; a window's border may have cut the other."""
    if one.key is not None and one.key == other.key:
        return _filled(one, other)
    return other if (other.blanks, -len(other.text)) < (one.blanks, -len(one.text)) else one


def _filled(one: Found, other: Found) -> Found:
    """``one`` with the values of ``other`` where it has none."""
    if type(one.value) is not type(other.value) or not one.blanks:
        return one
    fields = type(one.value).model_fields
    names = [name for name in fields if getattr(one.value, name) is None and getattr(other.value, name) is not None]
    if not names:
        return one
    keys = {fields[name].alias or name for name in names}
    update: dict[str, Any] = {name: getattr(other.value, name) for name in names}
    value = one.value.model_copy(update=update)
    more = tuple(each for each in other.evidence if each.path.split("/")[0] in keys)
    sure = tuple(pair for pair in other.confidence if pair[0].split("/")[0] in keys)
    return replace(
        one,
        value=value,
        text=value.model_dump_json(by_alias=True),
        evidence=(*one.evidence, *more),
        confidence=(*one.confidence, *sure),
        nulled=tuple(path for path in one.nulled if path.split("/")[0] not in keys),
    )
