"""Cutting a long text into chunks on its natural borders. Pure.

A border is the place before the first character of what follows. From the strongest to the weakest: a form feed (a
new page), a heading, a blank line, the end of a paragraph's line that ends a sentence, the end of a sentence or of a
line, white space. The chunks cover the text without gaps and without overlap, so that a chunk's offsets are the
text's own, in code points.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unicodedata import combining

from extractors.tokens import estimate_tokens

CHUNK_TOKENS = 80
"""Tokens of a chunk at most, unless told otherwise: some sentences, so that what is chosen is to the point."""

_PAGE, _HEADING, _BLANK, _PARAGRAPH, _SENTENCE, _SPACE = 6, 5, 4, 3, 2, 1
_FULLEST = 0.5
"""A chunk may end early at a stronger border once it is so full."""
_MOST_MARKS = 30
"""Marks on one character: as many as the stream-safe format has (Unicode Standard Annex #15)."""
_BORDERS = re.compile(
    r"""
      (?P<page>\f\s*)
    | (?P<blank>(?:(?<![^\S\n\f])[^\S\n\f]++)?\n(?:[^\S\n\f]*\n)++)
    | (?P<line>(?:(?<![^\S\n\f])[^\S\n\f]++)?\n)
    | (?P<wide>[。！？；…]+["'”’」』）】)\]]*)
    | (?P<sentence>(?<![.!?;:])[.!?;:]++["'”’)\]]*+[^\S\n\f]++)
    """,
    re.VERBOSE,
)
"""A run of blanks or of dots is looked at from its beginning only: a text of nothing else would take quadratic time."""
_TITLED = re.compile(
    r"""[^\S\n]*(?:
      \#{1,6}\s+\S
    | (?:article|section|chapter|part|exhibit|schedule|annex|appendix|item)\s+[0-9ivxlc]+\b
    | 第[一二三四五六七八九十百千〇零0-9]{1,6}[条章节節部編款篇]
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_NUMBERED_OR_CAPITALS = re.compile(
    r"""[^\S\n]*(?:
      [0-9]{1,3}(?:\.[0-9]{1,3}){0,4}[.)]?[^\S\n]+[A-Z]
    | [A-Z][A-Z0-9 ,.&'’()/-]{3,78}(?:\n|$)
    )""",
    re.VERBOSE,
)
_NUMBER_ALONE = re.compile(r"[^\S\n]*(?:[0-9]{1,4}(?:\.[0-9]{1,3}){0,4}|[A-Za-z]|[ivxlc]{1,6})\.[^\S\n]+")
"""A line's number, up to what it numbers. It ends no sentence: cut there, an item would stand without its number."""
_SENTENCE_END = re.compile(r"""[.!?;:。！？；…]["'”’」』）】)\]]*[^\S\n]*$""")


@dataclass(frozen=True, slots=True)
class Chunk:
    """``text[start:end]``, in code points, of about ``tokens`` tokens; ``number`` counts from 1."""

    number: int
    start: int
    end: int
    tokens: int

    def of(self, text: str) -> str:
        """The chunk's own characters."""
        return text[self.start : self.end]


def cut(
    text: str, *, most_tokens: int = CHUNK_TOKENS, tokens: Callable[[str], int] = estimate_tokens
) -> tuple[Chunk, ...]:
    """Chunks of at most ``most_tokens`` tokens that cover the text, in order; none for an empty text.

    ``tokens`` counts the tokens of a piece; a chunk's count is the sum over its pieces (lines, sentences), which is
    a little more than a tokenizer would say of the whole. Raises ``ValueError`` for ``most_tokens`` below 8.
    """
    if most_tokens < 8:
        raise ValueError(f"a chunk needs room for 8 tokens at least, not {most_tokens}")
    ends, strengths, sums = [0], [_PAGE], [0]
    for end, strength, count in _pieces(text, most_tokens, tokens):
        ends.append(end)
        strengths.append(strength)
        sums.append(sums[-1] + count)
    strengths[-1] = _PAGE
    chunks: list[Chunk] = []
    at = 0
    while at < len(ends) - 1:
        last = max(at + 1, bisect_right(sums, sums[at] + most_tokens) - 1)
        to = last
        if last < len(ends) - 1:
            first = max(at + 1, bisect_right(sums, sums[at] + int(most_tokens * _FULLEST)))
            to = max(range(min(first, last), last + 1), key=lambda place: (strengths[place], place))
        chunks.append(Chunk(len(chunks) + 1, ends[at], ends[to], sums[to] - sums[at]))
        at = to
    return tuple(chunks)


def _pieces(text: str, most: int, tokens: Callable[[str], int]) -> Iterator[tuple[int, int, int]]:
    """Where each piece of the text ends, how strong that border is, and how many tokens the piece has."""
    start = 0
    for end, strength in _borders(text):
        yield from _divided(text, start, end, strength, most, tokens)
        start = end
    if start < len(text):
        yield from _divided(text, start, len(text), _PAGE, most, tokens)


def _borders(text: str) -> Iterator[tuple[int, int]]:
    begun = 0
    for match in _BORDERS.finditer(text):
        end = match.end()
        kind = match.lastgroup
        if kind == "page":
            # The page's own character belongs to what it begins.
            if match.start() > begun:
                yield match.start(), _PAGE
                begun = match.start()
            continue
        if end == len(text):
            return
        begins_line = begun == 0 or text[begun - 1] == "\n" or text[begun] == "\f"
        if kind == "sentence" and begins_line and _NUMBER_ALONE.fullmatch(text, begun, end):
            continue
        strength = _SENTENCE
        if kind == "blank":
            strength = _BLANK
        elif kind == "line" and _SENTENCE_END.search(text, max(begun, match.start() - 8), match.start()):
            strength = _PARAGRAPH
        if text[end] == "\f":
            strength = _PAGE
        elif kind in ("blank", "line") and _is_heading(text, end):
            strength = _HEADING
        yield end, strength
        begun = end


def _is_heading(text: str, at: int) -> bool:
    """Whether a heading begins there."""
    return bool(_TITLED.match(text, at) or _NUMBERED_OR_CAPITALS.match(text, at))


def _divided(
    text: str, start: int, end: int, strength: int, most: int, tokens: Callable[[str], int]
) -> Iterator[tuple[int, int, int]]:
    """A piece, halved at white space, or anywhere, until each part is short enough."""
    count = tokens(text[start:end])
    if count <= most or end - start < 2:
        yield end, strength, count
        return
    middle = _middle(text, start, end)
    yield from _divided(text, start, middle, _SPACE, most, tokens)
    yield from _divided(text, middle, end, strength, most, tokens)


def _middle(text: str, start: int, end: int) -> int:
    """A place near the middle after white space, else one that keeps a character and its marks together, unless it has
    more of them than any script."""
    middle = (start + end) // 2
    reach = (end - start) // 4
    for away in range(reach):
        for place in (middle - away, middle + away):
            if start < place < end and text[place - 1].isspace() and not text[place].isspace():
                return place
    for place in range(middle, min(middle + _MOST_MARKS, end)):
        if not (text[place] in "\u200d\ufe0f" or combining(text[place])):
            return place
    return middle
