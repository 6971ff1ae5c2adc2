"""Answers that go in circles: a run of whitespace that does not end, or the same words over and over.

Constrained decoding lets a model write whitespace for ever, and small models repeat their last item until
the output limit. Both cost money to the last token, so a stream is closed when one is seen.
"""

from __future__ import annotations

_WHITESPACE = 400
"""Characters of nothing but whitespace. Indentation is far below it, and so are blank lines in prose."""
_WINDOW = 3000
"""Characters that must repeat without a difference. A table with a thousand equal cells is the shortest honest
text that looks like that; shorter windows would cut real lists of equal values."""
_PERIOD = 300
"""The longest stretch that counts as the same words over and over: at least ten times in a row then."""
_EVERY = 500


class LoopWatch:
    """Feed it a text in pieces; ``found`` names the loop ("whitespace", "repetition") once there is one."""

    __slots__ = ("_blank", "_pieces", "_tail", "_unchecked", "found")

    def __init__(self) -> None:
        self.found = ""
        self._blank = 0
        self._tail = ""
        self._pieces: list[str] = []
        self._unchecked = 0

    def feed(self, piece: str) -> None:
        """The next characters."""
        if not piece or self.found:
            return
        bare = piece.rstrip()
        self._blank = len(piece) - len(bare) if bare else self._blank + len(piece)
        if self._blank >= _WHITESPACE:
            self.found = "whitespace"
            return
        self._unchecked += len(piece)
        self._pieces.append(piece)
        if self._unchecked < _EVERY:
            return
        self._tail = (self._tail + "".join(self._pieces))[-_WINDOW:]
        self._pieces.clear()
        self._unchecked = 0
        if len(self._tail) == _WINDOW and _repeats(self._tail):
            self.found = "repetition"


def _repeats(text: str) -> bool:
    """Whether the text is one stretch of at most ``_PERIOD`` characters, over and over."""
    before = text.rfind(text[-_PERIOD:], 0, len(text) - 1)
    if before < 0:
        return False
    period = len(text) - _PERIOD - before
    return period <= _PERIOD and text[period:] == text[:-period]
