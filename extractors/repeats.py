"""Items that a list has twice and its record once: small models say what they have said again.

Pure. An object or a text that equals one before it in its list is the same one told again where the record does not bear
out another: none of its values stands there as often. What a list may well have twice stays: what the record has
twice, what stands nowhere in it (and may be a conclusion), numbers, and lists beside one as long, whose items may belong
together by their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.grounding.folding import fold
from extractors.parsing import dumps_exact
from schemas.evidence import Evidence, Match
from schemas.pointers import below

_COUNTED = (Match.EXACT, Match.NORMALISED, Match.VALUE)
_NOT_KNOWN = (Match.FUZZY, Match.IMAGE, Match.TOOL)


def repeats(data: Any, evidence: Sequence[Evidence], text: str) -> list[str]:
    """The paths of the items of ``data`` that are told again, in order. ``evidence`` is that of its leaves in the record's
    ``text``; where some of an item's comes from elsewhere (a picture, a look-up) or is spelt otherwise, the text does not say
    how often it may be there."""
    found: list[str] = []
    in_text: _Times | None = None
    for path, items in _lists(data, ""):
        times: dict[str, int] = {}
        left: dict[str, int] = {}
        for place, item in enumerate(items):
            if not isinstance(item, str | Mapping):
                continue
            written = dumps_exact(item)
            times[written] = times.get(written, 0) + 1
            if times[written] == 1:
                continue
            if written not in left:
                in_text = in_text or _Times(evidence, text)
                left[written] = in_text.of(below(path, str(items.index(item))))
            if 0 < left[written] < times[written]:
                found.append(below(path, str(place)))
    return found


class _Times:
    """How often items may be in a text."""

    def __init__(self, evidence: Sequence[Evidence], text: str) -> None:
        self._text = fold(text)
        self._inside: dict[str, list[Evidence]] = {}
        for one in evidence:
            path = one.path
            while path:
                self._inside.setdefault(path, []).append(one)
                path = path.rpartition("/")[0]

    def of(self, path: str) -> int:
        """As often as that of the item's values which is there most often. 0: nobody knows."""
        mine = self._inside.get(path, [])
        if any(one.match in _NOT_KNOWN for one in mine):
            return 0
        quotes = {fold(one.quote) for one in mine if one.match in _COUNTED and one.quote}
        return max((self._text.count(quote) for quote in quotes if quote), default=0)


def _lists(data: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """The lists that may not be one of several that go together."""
    if isinstance(data, list):
        for place, item in enumerate(data):
            yield from _lists(item, below(path, str(place)))
        return
    if not isinstance(data, Mapping):
        return
    lengths = [len(value) for value in data.values() if isinstance(value, list)]
    for key, value in data.items():
        inside = below(path, key)
        if isinstance(value, list) and lengths.count(len(value)) == 1:
            yield inside, value
        yield from _lists(value, inside)
