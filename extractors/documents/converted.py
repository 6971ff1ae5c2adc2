"""What a document becomes, what bounds the work, and why one could not be read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PAGE_END = "\f"
"""What ends each page of a converted document that has pages."""


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """What one document may take: bytes of the file, pages, characters of its text, bytes once unpacked, seconds, and
    bytes of memory of the process that converts it."""

    file_bytes: int = 100_000_000
    pages: int = 2_000
    characters: int = 20_000_000
    unpacked_bytes: int = 400_000_000
    seconds: float = 60.0
    memory_bytes: int = 2_000_000_000

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Converted:
    """A document as text. ``pages`` counts them (0: this kind has none); ``pictures`` are the pages, from 1, that have a
    picture and no text. ``title`` is what the document calls itself, where it does."""

    kind: str
    text: str
    pages: int = 0
    pictures: tuple[int, ...] = ()
    title: str | None = None


class Unreadable(Exception):
    """Why a document cannot become a record, in words that go on after its name."""
