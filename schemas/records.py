"""One input record, as the source hands it to the extraction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINGERPRINT_LENGTH = 32


def content_fingerprint(text: str) -> str:
    """The first 32 hex digits of SHA-256 over the text's UTF-8 bytes.

    Sources compute the same value in SQL (``sha256(text)[:32]``), so it must stay exactly this.
    Lone surrogates, which UTF-8 cannot encode, are encoded with ``surrogatepass``.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:FINGERPRINT_LENGTH]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A record's picture before it is loaded: a file's path or an https address, the name by which messages call
    it, and the SHA-256 of the file's bytes (of the address, where the provider fetches it). ``page`` is the page of a
    PDF, from 1, that is the picture."""

    place: str
    name: str
    sha256: str
    page: int | None = None

    @property
    def is_url(self) -> bool:
        """Whether the provider fetches it."""
        return self.place.startswith("https://")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source.

    ``occurrence`` counts records of the same id from 0 in source order: two records may share an id,
    and (id, occurrence) tells them apart. ``kept`` holds the source columns that were asked for.
    ``problem`` says why the record cannot be asked at all (a broken line, a null text); such a record
    becomes a ``bad_input`` failure and its ``text`` is whatever could be read, often empty.
    ``images`` are loaded when the record is asked, never kept. ``document`` is the path of the PDF that ``text`` was
    read from: on its pages the boxes of the evidence are looked up.
    """

    record_id: str
    text: str
    fingerprint: str
    occurrence: int = 0
    kept: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    images: tuple[ImageRef, ...] = ()
    document: str | None = None
