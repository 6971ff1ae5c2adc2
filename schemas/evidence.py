"""Where in the source a value was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Match(StrEnum):
    """How a value was found in the record's text."""

    EXACT = "exact"
    """The value's characters stand in the text as they are."""
    NORMALISED = "normalised"
    """Equal after folding case, runs of whitespace, separating punctuation, and Unicode width or
    compatibility forms."""
    FUZZY = "fuzzy"
    """Similar; ``score`` says how much (0 to 1)."""
    VALUE = "value"
    """A number, date, time or boolean whose printed form in the text means the same value."""
    IMAGE = "image"
    """Read from the record's picture: the record has no text in which it could stand."""
    TOOL = "tool"
    """Stands in the result of a look-up, and not in the record."""
    UNGROUNDED = "ungrounded"
    """No place in the text supports the value."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one leaf of an extracted object.

    ``path`` is a JSON Pointer without its leading slash (``line_items/0/price``). ``start`` and
    ``end`` are code-point offsets into the record's text with ``text[start:end] == quote``; all
    three are None when ``match`` is image or ungrounded, and ``score`` is 0 then; of a look-up's result, ``quote`` is
    the piece and ``tool`` the look-up, such as ``find_vendor#2`` for the record's second. In a document, ``page`` counts from
    1 and ``box`` is (left, top, right, bottom) in points from the page's upper left corner, where the document tells
    them; of a long record, ``chunk`` is the number of the chunk, from 1, in which the quote was shown.
    """

    path: str
    match: Match
    quote: str | None = None
    start: int | None = None
    end: int | None = None
    score: float = 1.0
    page: int | None = None
    box: tuple[float, float, float, float] | None = None
    chunk: int | None = None
    tool: str | None = None
