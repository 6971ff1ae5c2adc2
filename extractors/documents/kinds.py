"""What kind of document a file is: by its content, and by its name only where the content does not say."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from extractors.documents.converted import Unreadable

HEAD = 4096
"""Bytes of a file's beginning that ``kind_of`` looks at."""


class Kind(StrEnum):
    """The kinds that are read."""

    PDF = "pdf"
    DOCX = "docx"
    HTML = "html"
    MARKDOWN = "markdown"
    TEXT = "text"


_BY_SUFFIX = {
    ".pdf": Kind.PDF,
    ".docx": Kind.DOCX,
    ".html": Kind.HTML,
    ".htm": Kind.HTML,
    ".xhtml": Kind.HTML,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
}
SUFFIXES = tuple(_BY_SUFFIX)
"""Ends of the names of files that are documents rather than plain text or tables."""
_OFFICE = "is a file of older or encrypted Office (OLE); save it as .docx or PDF, without a password"
_REFUSED = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE),
    (b"{\\rtf", "is RTF; save it as .docx or PDF"),
    (b"%!PS", "is PostScript; make a PDF of it"),
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"BZh", "is packed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "is packed with xz; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89PNG", "is a picture (PNG); give pictures in a folder of their own"),
    (b"\xff\xd8\xff", "is a picture (JPEG); give pictures in a folder of their own"),
    (b"GIF8", "is a picture (GIF); give pictures in a folder of their own"),
    (b"II*\x00", "is a picture (TIFF); give pictures in a folder of their own"),
    (b"MM\x00*", "is a picture (TIFF); give pictures in a folder of their own"),
    (b"\x7fELF", "is a program, not a document"),
    (b"MZ\x90", "is a program, not a document"),
    (b"SQLite format 3", "is a SQLite database, not a document"),
    (b"PAR1", "is a Parquet file; give it as a source of its own"),
)
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|article|table|div|meta|title)\b", re.IGNORECASE)


def kind_of(head: bytes, name: str) -> Kind:
    """The kind of a file that begins with ``head``. Raises ``Unreadable`` for what is plainly something else."""
    told = _BY_SUFFIX.get(Path(name.lower()).suffix)
    # A PDF may begin up to 1,024 bytes late (ISO 32000-1, annex H, implementation note 13).
    if b"%PDF-" in head[:1024]:
        return Kind.PDF
    if head.startswith(b"PK\x03\x04"):
        if told is Kind.DOCX or b"word/" in head or b"[Content_Types].xml" in head:
            return Kind.DOCX
        raise Unreadable("is a zip archive; unpack it first")
    for magic, why in _REFUSED:
        if head.startswith(magic):
            raise Unreadable(why)
    if told in (Kind.PDF, Kind.DOCX):
        if _HTML.search(head[:1024]):
            return Kind.HTML
        raise Unreadable(f"is named as {told.value.upper()}, and is none: it begins with {head[:8]!r}")
    if told is not Kind.MARKDOWN and _HTML.match(head.lstrip(b"\xef\xbb\xbf \t\r\n")):
        return Kind.HTML
    return told or Kind.TEXT
