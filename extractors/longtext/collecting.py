"""What the windows of a record gave, list by list: items out of an answer, and an answer's other fields. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orjson import loads
from pydantic import BaseModel

from extractors.longtext.merging import Found, keyed, same
from extractors.longtext.parts import ListField
from extractors.longtext.windows import Window
from schemas.evidence import Evidence
from schemas.outcomes import Extracted
from schemas.pointers import escape

MARKS = ("corrected", "nulled", "routed")
"""What an outcome says of paths."""
_MOST_LABEL = 60


@dataclass(slots=True)
class Listed:
    """What is known of one list: its ``items`` from the windows before, ``here`` of the one at hand, ``told`` how many the
    model counted in each window, ``unread`` the windows that could not be read."""

    of: ListField
    items: list[Found] = field(default_factory=list)
    here: list[Found] = field(default_factory=list)
    told: dict[int, int] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is kept of the answer with the other fields: all but the paths of the lists and their counts."""

    rest: Extracted
    lists: tuple[ListField, ...]

    @property
    def evidence(self) -> Iterator[Evidence]:
        return (one for one in self.rest.evidence if self._is_beside(one.path))

    @property
    def confidence(self) -> Mapping[str, float]:
        return {path: sure for path, sure in self.rest.confidence.items() if self._is_beside(path)}

    def paths(self, paths: Sequence[str]) -> Iterator[str]:
        return (path for path in paths if self._is_beside(path))

    def _is_beside(self, path: str) -> bool:
        first = path.split("/")[0]
        return not any(first in (escape(one.path), one.count) for one in self.lists)


def found_in(outcome: Extracted, listed: ListField, window: Window) -> list[Found]:
    """The items of a list as a window's answer gave them."""
    items: Sequence[BaseModel] = getattr(outcome.value, listed.name) or ()
    step = escape(listed.path)
    evidence: list[list[Evidence]] = [[] for _ in items]
    confidence: list[list[tuple[str, float]]] = [[] for _ in items]
    for one in outcome.evidence:
        if (place := _inside(one.path, step)) is not None:
            evidence[place[0]].append(_moved(one, place[1], window.start))
    for path, sure in outcome.confidence.items():
        if (place := _inside(path, step)) is not None and place[0] < len(items):
            confidence[place[0]].append((place[1], sure))
    marked: dict[str, list[list[str]]] = {kind: [[] for _ in items] for kind in MARKS}
    for kind in MARKS:
        for path in getattr(outcome, kind):
            if (place := _inside(path, step)) is not None and place[0] < len(items):
                marked[kind][place[0]].append(place[1])
    return [
        keyed(
            Found(
                item,
                item.model_dump_json(by_alias=True),
                tuple(evidence[at]),
                window.number,
                confidence=tuple(confidence[at]),
                corrected=tuple(marked["corrected"][at]),
                nulled=tuple(marked["nulled"][at]),
                routed=tuple(marked["routed"][at]),
            ),
            listed.key,
        )
        for at, item in enumerate(items)
    ]


def within(items: Sequence[Found], window: Window) -> list[Found]:
    """The items that a window gave, and those of its neighbours that stand in it."""
    return [
        item
        for item in items
        if item.window == window.number or (item.anchor is not None and window.start <= item.anchor < window.end)
    ]


def is_again(item: Found, known: Found) -> bool:
    """Whether another look at a window gave what was there."""
    return same(item, known) or (item.anchor is not None and item.anchor == known.anchor)


def label(item: Found, listed: ListField) -> str:
    """What a missing item is told apart by: the key, or the first values."""
    data = loads(item.text)
    names = listed.key or tuple(data)
    words = " | ".join(str(data[name]) for name in names if isinstance(data.get(name), str | int | float))
    return f"- {' '.join(words.split())[:_MOST_LABEL]}"


def _inside(path: str, step: str) -> tuple[int, str] | None:
    """Which item of the list at ``step`` a path leads into, and where to in it; None for any other path."""
    first, _, more = path.partition("/")
    at, _, inner = more.partition("/")
    return (int(at), inner) if first == step and inner and at.isdigit() else None


def _moved(one: Evidence, path: str, start: int) -> Evidence:
    if one.start is None or one.end is None:
        return replace(one, path=path)
    return replace(one, path=path, start=one.start + start, end=one.end + start)
