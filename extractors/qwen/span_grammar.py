"""GBNF rules for the spans of a text: a JSON string that can be nothing but a piece of it, from word to word.

Where a span may begin and end is what the check of an answer asks too (``extractors.grounding.edges``): at the edges
of words and numbers. The rules are the tree of the text's suffixes that begin at such an edge, merged as far as they read
the same, so that a decoder which copies has one way to go at nearly every character; from where a beginning is
unlike any other, the way on is shared along the text. Their size grows with the number of words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from extractors.grounding.edges import begins_span, ends_span

SPAN = "quoted-span"
"""The name of the rule that is a span between its quotes."""
MOST_CHARACTERS = 20_000
"""Characters of a text whose spans become a grammar. What it costs beyond is in ``docs/values.md``."""
_DEEPEST = 160
"""Characters up to which beginnings that read the same are told apart."""
_MOST_TWINS = 4
"""Ways on of beginnings that read the same for longer than that."""


def span_rules(text: str) -> dict[str, str]:
    """Rules of which ``SPAN`` is a quoted span of ``text``. Empty for a text without a word, and for one of more than
    ``MOST_CHARACTERS``."""
    return {} if len(text) > MOST_CHARACTERS else _Writer(text).rules


class _Writer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._after: dict[int, str] = {}
        self.rules: dict[str, str] = {}
        length = len(text)
        known = [_known(letter) for letter in text]
        self._ends = [i for i in range(1, length + 1) if known[i - 1] and ends_span(text, i)]
        self._is_end = bytearray(length + 1)
        for place in self._ends:
            self._is_end[place] = 1
        # Where the text cannot go on: a lone surrogate, which UTF-8 does not have.
        self._stop = [length] * (length + 1)
        for i in range(length - 1, -1, -1):
            self._stop[i] = self._stop[i + 1] if known[i] else i
        self._next_end = [0] * (length + 1)
        following = 0
        for i in range(length, -1, -1):
            self._next_end[i] = following
            if self._is_end[i]:
                following = i
        starts = [i for i in range(length) if known[i] and begins_span(text, i) and self._reaches(i)]
        starts.sort(key=lambda i: text[i : i + _DEEPEST])
        if starts:
            self._write_tails()
            whole = self._group(starts, 0)
            self.rules[SPAN] = rf'"\"" {whole} "\""'

    def _reaches(self, start: int) -> bool:
        """Whether an end follows before the text cannot go on."""
        return start < self._next_end[start] <= self._stop[start]

    def _write_tails(self) -> None:
        """A rule for what may follow each end, shared by all spans that reach it. The last ones first."""
        for end in reversed(self._ends):
            if self._reaches(end):
                following = self._next_end[end]
                name = f"{SPAN}-{len(self.rules) + 1}"
                self.rules[name] = f"({_quoted(self._text[end:following])}{self._tail(following)})?"
                self._after[end] = f" {name}"

    def _tail(self, end: int) -> str:
        return self._after.get(end, "")

    def _group(self, starts: Sequence[int], depth: int) -> str:
        """An expression for the spans that begin at ``starts``, of which ``depth`` characters are written. It is
        entered where those read the same; alternatives are in brackets."""
        if len(starts) == 1 or depth >= _DEEPEST:
            ways = [way for start in starts[:_MOST_TWINS] if (way := self._alone(start + depth))]
            return _either(ways)
        ways = []
        text = self._text
        at = 0
        while at < len(starts):
            first = starts[at]
            if first + depth >= self._stop[first]:
                at += 1
                continue
            letter = text[first + depth]
            upto = at + 1
            while upto < len(starts) and text[starts[upto] + depth : starts[upto] + depth + 1] == letter:
                upto += 1
            ways.append(self._branch(starts[at:upto], depth))
            at = upto
        return _either([way for way in ways if way])

    def _alone(self, at: int) -> str:
        """From ``at`` to the next end and on."""
        end = self._next_end[at]
        return f"{_quoted(self._text[at:end])}{self._tail(end)}" if at < end <= self._stop[at] else ""

    def _branch(self, starts: Sequence[int], depth: int) -> str:
        """Spans that go on with the same character at ``depth``."""
        if len(starts) == 1:
            return self._alone(starts[0] + depth)
        text = self._text
        # Sorted: what the first and the last share, all share.
        first, last = starts[0], starts[-1]
        shared = depth
        while (
            shared < _DEEPEST
            and last + shared < self._stop[last]
            and first + shared < self._stop[first]
            and text[first + shared] == text[last + shared]
        ):
            shared += 1
        rest = self._group(starts, shared)
        body = rest
        # From the end of the shared piece backwards, each place where a span may end makes the rest optional.
        upto = shared
        for place in range(shared, depth, -1):
            if any(self._is_end[start + place] for start in starts):
                piece = _quoted(text[first + place : first + upto]) if place < upto else ""
                inside = " ".join(part for part in (piece, body) if part)
                body = f"({inside})?" if inside else ""
                upto = place
        piece = _quoted(text[first + depth : first + upto])
        name = f"{SPAN}-{len(self.rules) + 1}"
        self.rules[name] = f"{piece} {body}".rstrip()
        return name


def _known(letter: str) -> bool:
    return not "\ud800" <= letter <= "\udfff"


def _either(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"({' | '.join(ways)})" if ways else ""


def _quoted(piece: str) -> str:
    """A GBNF string for a piece of text as it stands inside of a JSON string."""
    inside = json.dumps(piece, ensure_ascii=False)[1:-1]
    escaped = inside.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\x{ord(c):02X}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'
