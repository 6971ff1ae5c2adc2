"""Where a JSON text ends, found while it is still coming: depth and strings are followed, nothing is parsed.

It is told for an answer that is one object or array from its first character on. A text that begins with
anything else (a fence, prose, leaked thinking) has no end that could be known before the last byte.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')
_CLOSES = {"}": "{", "]": "["}


class JsonEnd:
    """Feed it a text in pieces. ``complete`` turns true with the piece in which the value closes.

    ``extra`` counts the characters that came after the value."""

    __slots__ = ("_escaped", "_open", "_quoted", "complete", "extra", "readable")

    def __init__(self) -> None:
        self.complete = False
        self.extra = 0
        self.readable: bool | None = None
        """Whether the text is a bare JSON value so far; None before its first character."""
        self._open: list[str] = []
        self._quoted = False
        self._escaped = False

    def feed(self, piece: str) -> None:
        """The next characters."""
        if self.complete:
            self.extra += len(piece)
            return
        if self.readable is None:
            start = piece.lstrip()[:1]
            if not start:
                return
            self.readable = start in "{["
        if not self.readable:
            return
        at, size = 0, len(piece)
        if self._escaped and size:
            self._escaped = False
            at = 1
        while at < size:
            if self._quoted:
                found = _INSIDE.search(piece, at)
                if found is None:
                    return
                at = found.end()
                if found[0] == '"':
                    self._quoted = False
                elif at == size:
                    self._escaped = True
                else:
                    at += 1
                continue
            found = _OUTSIDE.search(piece, at)
            if found is None:
                return
            at = found.end()
            mark = found[0]
            if mark == '"':
                self._quoted = True
            elif mark in "{[":
                self._open.append(mark)
            elif not self._open or self._open.pop() != _CLOSES[mark]:
                self.readable = False
                return
            elif not self._open:
                self.complete = True
                self.extra = size - at
                return
