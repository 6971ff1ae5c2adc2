"""Windows: stretches of a long text that overlap, so that what one of them cuts in two stands whole in the next. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from extractors.longtext.chunks import CHUNK_TOKENS, cut
from extractors.tokens import estimate_tokens

OVERLAP = 0.08
"""Share of a window that the next one shows again."""


@dataclass(frozen=True, slots=True)
class Window:
    """``text[start:end]``, in code points; ``number`` counts from 1."""

    number: int
    start: int
    end: int

    def of(self, text: str) -> str:
        """The window's own characters."""
        return text[self.start : self.end]


def windows(
    text: str,
    *,
    most_tokens: int,
    overlap_tokens: int | None = None,
    tokens: Callable[[str], int] = estimate_tokens,
) -> tuple[Window, ...]:
    """Windows of at most ``most_tokens`` tokens that cover the text, in order, with borders where chunks have theirs.

    Two neighbours share about ``overlap_tokens`` tokens (default: ``OVERLAP`` of a window), one chunk at least, unless
    a window holds but one. Raises ``ValueError`` for ``most_tokens`` below 32."""
    if most_tokens < 32:
        raise ValueError(f"a window needs room for 32 tokens at least, not {most_tokens}")
    overlap = int(most_tokens * OVERLAP) if overlap_tokens is None else overlap_tokens
    chunks = cut(text, most_tokens=max(8, min(CHUNK_TOKENS, most_tokens // 4)), tokens=tokens)
    found: list[Window] = []
    first = 0
    while first < len(chunks):
        last, held = first, 0
        while last < len(chunks) and (last == first or held + chunks[last].tokens <= most_tokens):
            held += chunks[last].tokens
            last += 1
        found.append(Window(len(found) + 1, chunks[first].start, chunks[last - 1].end))
        if last == len(chunks):
            break
        back, shared = last, 0
        while back - 1 > first and (back == last or shared + chunks[back - 1].tokens <= overlap):
            back -= 1
            shared += chunks[back].tokens
        first = back
    return tuple(found)
