"""How many items a window holds: what its numbering says. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from extractors.longtext.merging import Found
from extractors.longtext.windows import Window

_NUMBERED = re.compile(
    r"^[^\S\n]*(?:[-*•#|][^\S\n]*)?(?:(?:item|no|nr|pos)\.?[^\S\n]*)?#?(\d{1,6})[.):|]?[^\S\n]",
    re.MULTILINE | re.IGNORECASE,
)
_LEAST = 5
"""Numbers in a row that are a numbering."""


def numbered(text: str) -> list[int]:
    """Where the lines of the longest run of numbers that grow by one begin; none for a run of fewer than 5."""
    best: list[int] = []
    run: list[int] = []
    last = None
    for match in _NUMBERED.finditer(text):
        number = int(match[1])
        if last is None or number != last + 1:
            run = []
        run.append(match.start())
        last = number
        if len(run) > len(best):
            best = run
    return best if len(best) >= _LEAST else []


def unmet(items: Sequence[Found], text: str, window: Window) -> int:
    """Numbered lines of the window without an item, where most of those lines have one each. A line at the window's end,
    which may be cut off, does not count unless the text ends there too."""
    starts = [window.start + at for at in numbered(window.of(text))]
    if not starts:
        return 0
    ends = [*starts[1:], window.end]
    if window.end < len(text):
        starts, ends = starts[:-1], ends[:-1]
    anchors = sorted(item.anchor for item in items if item.anchor is not None)
    met = sum(bisect_left(anchors, start) < bisect_left(anchors, end) for start, end in zip(starts, ends, strict=True))
    inside = bisect_left(anchors, ends[-1]) - bisect_left(anchors, starts[0])
    if met * 2 < len(starts) or inside > met * 1.5:
        return 0
    return len(starts) - met
