"""Evidence in a long record: first in the chunks that were shown, then in the whole text. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel

from extractors.grounding import Haystack, ground
from extractors.longtext.focus import Focus
from schemas.evidence import Evidence, Match

_BETWEEN = "\n\n"


class LongGrounding:
    """Grounds values in one long text of which a ``focus`` shows parts."""

    __slots__ = ("_focus", "_places", "_ranges", "_shown", "_starts", "_text", "_whole")

    def __init__(self, text: str, focus: Focus) -> None:
        self._text = text
        self._focus = focus
        self._ranges: Sequence[tuple[int, int]] = ()
        self._shown: Haystack | None = None
        self._starts: list[int] = []
        self._places: list[int] = []
        self._whole: Haystack | None = None

    def ground(self, value: BaseModel) -> list[Evidence]:
        """The evidence of each leaf, with offsets into the whole text and the number of the chunk, where that was shown."""
        found = [self._placed(one) for one in ground(value, self._in_shown())]
        if any(one.match is Match.UNGROUNDED for one in found):
            if self._whole is None:
                self._whole = Haystack(self._text)
            anywhere = {one.path: one for one in ground(value, self._whole)}
            found = [anywhere[one.path] if one.match is Match.UNGROUNDED else one for one in found]
        return [one if one.start is None else replace(one, chunk=self._focus.number_of(one.start)) for one in found]

    def _in_shown(self) -> Haystack:
        ranges = self._focus.shown()
        if self._shown is None or ranges != self._ranges:
            self._ranges = ranges
            self._starts, self._places, at = [], [], 0
            for start, end in ranges:
                self._starts.append(at)
                self._places.append(start)
                at += end - start + len(_BETWEEN)
            self._shown = Haystack(_BETWEEN.join(self._text[start:end] for start, end in ranges))
        return self._shown

    def _placed(self, one: Evidence) -> Evidence:
        """Evidence in what was shown as evidence in the text; what goes over a gap is none."""
        if one.start is None or one.end is None:
            return one
        place = bisect_right(self._starts, one.start) - 1
        start = self._places[place] + one.start - self._starts[place]
        end = start + one.end - one.start
        if end > self._ranges[place][1] or self._text[start:end] != one.quote:
            return Evidence(one.path, Match.UNGROUNDED, score=0.0)
        return replace(one, start=start, end=end)
