"""Folded text that knows where each of its characters came from.

Folding is NFKC, case folding, one space for every run of white space, plain quotes and dashes, and no
invisible characters. Its length may differ from the source's (``ß``, ligatures, ``e`` + accent), so the
stretches that changed are kept in a list: between two of them offsets differ by a constant.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right

_CHANGES = "\ufffe"
"""Stands for a character whose folding is not one character long."""
_JOINS = "\uffff"
"""Stands for a character that may compose with the one before it."""
# 30 marks are what Unicode calls stream-safe: normalising a longer run costs its square.
_STRETCH = re.compile("[^ \t\uffff]?\uffff{1,30}|\ufffe|[ \t]{2,}|\t")

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ`´＇", "'"),
        **dict.fromkeys("“”„‟″«»＂", '"'),
        **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
        # Both Turkish i's meet the Latin one: casefold alone gives "i" + U+0307 for İ and keeps ı.
        **dict.fromkeys("İı", "i"),
    }
)
_INVISIBLE_RANGES = (
    *((code, code) for code in (0xAD, 0x034F, 0x061C, 0x180E, 0x2060, 0xFEFF)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2066, 0x2069), (0xFE00, 0xFE0F), (0xE0000, 0xE007F)),
)
_INVISIBLE = {code: None for first, last in _INVISIBLE_RANGES for code in range(first, last + 1)}
# '#', '+', '&', '%', '@' and currency signs are part of names and amounts: C#, C++, AT&T, 5%.
_SEPARATORS = frozenset(".,;:!?'\"()[]{}<>-_/\\|~^*")
_TABLE_LIMIT = 50_000


class _FoldTable(dict[int, int]):
    """Translation table that learns the characters it meets."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        folded = _fold_stretch(char)
        if char.isspace():
            result = 0x20 if char == " " else 0x09
        elif _joins(char):
            result = ord(_JOINS)
        elif len(folded) == 1:
            result = ord(folded)
        else:
            result = ord(_CHANGES)
        if len(self) < _TABLE_LIMIT:
            self[code] = result
        return result


class _SqueezeTable(dict[int, int | None]):
    """Translation table that drops white space and the punctuation that separates words."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        drop = char.isspace() or char in _SEPARATORS or (code > 0x7F and unicodedata.category(char)[0] == "P")
        if len(self) < _TABLE_LIMIT:
            self[code] = None if drop else code
        return None if drop else code


def _joins(char: str) -> bool:
    first = unicodedata.normalize("NFKD", char)[0]
    return unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff"


def _fold_stretch(stretch: str) -> str:
    if stretch.isspace():
        return " "
    plain = unicodedata.normalize("NFKC", stretch.translate(_PLAIN)).casefold()
    return unicodedata.normalize("NFKC", plain).replace("i\u0307", "i").translate(_PLAIN).translate(_INVISIBLE)


_FOLD = _FoldTable()
_SQUEEZE = _SqueezeTable()


class Folded:
    """``text`` is the folded source; :meth:`span` leads back."""

    __slots__ = ("_lengths", "_sources", "_starts", "text")

    def __init__(self, source: str) -> None:
        simple = source.translate(_FOLD)
        starts: list[int] = []
        lengths: list[int] = []
        sources: list[tuple[int, int]] = []
        pieces: list[str] = []
        done = 0
        length = 0
        for match in _STRETCH.finditer(simple):
            start, end = match.span()
            folded = _fold_stretch(source[start:end])
            pieces.append(simple[done:start])
            pieces.append(folded)
            length += start - done
            starts.append(length)
            lengths.append(len(folded))
            sources.append((start, end))
            length += len(folded)
            done = end
        pieces.append(simple[done:])
        self.text = "".join(pieces)
        self._starts = starts
        self._lengths = lengths
        self._sources = sources

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The source's code points behind ``text[start:end]``, which must not be empty.

        A bound inside a character that folds to several (``ﬁ``) takes the whole character.
        """
        return self._source(start)[0], self._source(end - 1)[1]

    def _source(self, at: int) -> tuple[int, int]:
        index = bisect_right(self._starts, at) - 1
        # Characters that fold to nothing share their start with what follows them: step over them.
        if index < 0:
            return at, at + 1
        beyond = at - self._starts[index] - self._lengths[index]
        if beyond < 0:
            return self._sources[index]
        position = self._sources[index][1] + beyond
        return position, position + 1


class Squeezed:
    """Folded text without white space and separating punctuation; :meth:`span` leads back to the folded text."""

    __slots__ = ("_counts", "_folded", "text")

    _BLOCK = 256

    def __init__(self, folded: str) -> None:
        self._folded = folded
        self.text = squeeze(folded)
        self._counts: list[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The folded text's characters behind ``text[start:end]``, which must not be empty."""
        return self._locate(start), self._locate(end - 1) + 1

    def _locate(self, at: int) -> int:
        if self._counts is None:
            counts = [0]
            for start in range(0, len(self._folded), self._BLOCK):
                counts.append(counts[-1] + len(squeeze(self._folded[start : start + self._BLOCK])))
            self._counts = counts
        block = bisect_right(self._counts, at) - 1
        left = at - self._counts[block]
        position = block * self._BLOCK
        while True:
            if _SQUEEZE[ord(self._folded[position])] is not None:
                if left == 0:
                    return position
                left -= 1
            position += 1


def fold(text: str) -> str:
    """``text`` folded as :class:`Folded` folds it, without white space at its ends."""
    return Folded(text).text.strip()


def squeeze(folded: str) -> str:
    """Folded text without white space and separating punctuation."""
    return folded.translate(_SQUEEZE)
