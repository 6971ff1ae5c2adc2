"""Where words and numbers begin and end, and so where a span of a text may.

A mark belongs to the letter before it, and so does all that Unicode lets extend a character (UAX #29): joiners,
variation selectors, skin tones. A span has no white space at its ends.
"""

from __future__ import annotations

import re
import unicodedata

# Scripts written without spaces: every letter, with its marks, is a word's edge.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
_FIRST_MARK = "\u0300"
_NON_JOINER, _JOINER = "\u200c", "\u200d"
_MOST_MARKS = 32
"""Marks that are looked back over; 30 on one character are what Unicode calls stream-safe."""


def is_span(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]``, which must not be empty, is a span: whole words and numbers, no space around."""
    return begins_span(text, start) and ends_span(text, end)


def begins_span(text: str, start: int) -> bool:
    """Whether a span can begin at ``start``."""
    return not text[start].isspace() and starts_at_edge(text, start)


def ends_span(text: str, end: int) -> bool:
    """Whether a span can end before ``end``."""
    return not text[end - 1].isspace() and ends_at_edge(text, end)


def at_edges(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` neither begins nor ends inside a word or a number."""
    return starts_at_edge(text, start) and ends_at_edge(text, end)


def starts_at_edge(text: str, start: int) -> bool:
    """Whether what begins at ``start`` does not begin inside a word or a number."""
    # 45.3 is not in 45.35 nor 45 in 45.30 or 3.45.
    if not start:
        return True
    if glued(text, start):
        return False
    return not (text[start - 1] in ".," and text[start].isdigit() and start > 1 and text[start - 2].isdigit())


def ends_at_edge(text: str, end: int) -> bool:
    """Whether what ends before ``end`` does not end inside a word or a number."""
    if end >= len(text):
        return True
    if glued(text, end):
        return False
    return not (text[end] in ".," and text[end - 1].isdigit() and end + 1 < len(text) and text[end + 1].isdigit())


def glued(text: str, at: int) -> bool:
    """Whether ``text[at]`` goes on with the word, the number or the character before it."""
    left, right = text[at - 1], text[at]
    if left < _FIRST_MARK and right < _FIRST_MARK:
        return right.isalpha() if left.isalpha() else left.isdigit() and right.isdigit()
    if right in (_NON_JOINER, _JOINER):
        # It joins two characters, so both of its sides are edges or neither is.
        at += 1
        if at == len(text):
            return False
        left, right = right, text[at]
    if right.isspace():
        return False
    base = at - 1
    while base and at - base <= _MOST_MARKS and _extends(text[base]):
        base -= 1
    bearer = text[base]
    if bearer.isspace():
        return False
    if _extends(bearer):
        # Too many marks to tell whose, or marks of nothing, which stand for themselves.
        return at - base > _MOST_MARKS
    if left == _JOINER or _extends(right):
        return True
    if bearer.isalpha():
        return right.isalpha() and not (UNSPACED.match(bearer) or UNSPACED.match(right))
    return bearer.isdigit() and right.isdigit()


def _extends(char: str) -> bool:
    """Whether a character belongs to the one before it."""
    if char < _FIRST_MARK:
        return False
    return (
        unicodedata.category(char)[0] == "M"
        or char in (_NON_JOINER, _JOINER)
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
    )
