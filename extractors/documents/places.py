"""Where evidence stands in a document: its page, and the box on the page."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from extractors.documents.converted import PAGE_END, DocumentLimits
from schemas.evidence import Evidence
from schemas.outcomes import Extracted, Outcome
from schemas.records import Record

logger = logging.getLogger(__name__)
_MOST_BYTES = 2_000_000_000
"""The most that a job may let a file have: this one was read."""
MOST_BOXES = 2_000
"""Values of one record whose boxes are looked up, the first ones; the others have their pages and offsets."""


class Pages:
    """The pages of a text whose pages end with form feeds."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        starts = [0]
        at = text.find(PAGE_END)
        while at >= 0:
            starts.append(at + 1)
            at = text.find(PAGE_END, at + 1)
        self._starts = starts

    def of(self, offset: int) -> int:
        """The page, from 1, on which the character at ``offset`` stands."""
        return bisect_right(self._starts, offset)

    def start(self, page: int) -> int:
        """The offset of a page's first character."""
        return self._starts[page - 1]

    def told(self, evidence: Sequence[Evidence]) -> list[Evidence]:
        """The evidence with its pages."""
        return [one if one.start is None else replace(one, page=self.of(one.start)) for one in evidence]


def pages_of(text: str) -> Pages | None:
    """The pages of a text; None where it has no form feed, and so no pages."""
    return Pages(text) if PAGE_END in text else None


def with_boxes(outcome: Outcome, record: Record) -> Outcome:
    """The outcome with the boxes of its evidence on the pages of the record's PDF. What the PDF does not tell, or does
    not tell any more, stays without. Takes some ten milliseconds and more, so it belongs into a thread."""
    if record.document is None or not isinstance(outcome, Extracted):
        return outcome
    pages = pages_of(record.text)
    if pages is None:
        return outcome
    from extractors.documents.workers import shared

    wanted: dict[int, list[tuple[int, int, str]]] = {}
    places: list[tuple[int, int]] = []
    for at, one in enumerate(outcome.evidence):
        if one.start is None or one.end is None or one.page is None or not one.quote or len(places) >= MOST_BOXES:
            continue
        start = pages.start(one.page)
        wanted.setdefault(one.page, []).append((one.start - start, one.end - start, one.quote))
        places.append((at, one.page))
    if not wanted:
        return outcome
    found = shared().boxes(record.document, wanted, DocumentLimits(file_bytes=_MOST_BYTES))
    if not found:
        logger.warning("%s cannot be read any more: the evidence has no boxes", record.document)
        return outcome
    evidence = list(outcome.evidence)
    for at, page in places:
        box = found.get(page, [None]).pop(0) if found.get(page) else None
        evidence[at] = replace(evidence[at], box=box)
    return replace(outcome, evidence=evidence)
