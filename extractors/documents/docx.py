"""A Word document's paragraphs and tables in their order, its headers before and its footers after them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from extractors.documents.converted import Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import Kind

if TYPE_CHECKING:
    from docx.blkcntnr import BlockItemContainer
    from docx.document import Document
    from docx.table import Table

_MOST_MEMBERS = 10_000
_DEEPEST = 8
"""Tables within tables."""


def convert(data: bytes, limits: DocumentLimits) -> Converted:
    """The text of a DOCX file. Raises ``Unreadable``."""
    _not_a_bomb(data, limits)
    from docx import Document as open_document

    document = open_document(io.BytesIO(data))
    parts: list[str] = []
    length = 0
    around: list[list[str]] = [[], []]
    for section in document.sections:
        for place, each in enumerate((section.header, section.footer)):
            if not each.is_linked_to_previous:
                around[place] += [line for line in _lines(each) if line.strip() and line not in around[place]]
    for line in (*around[0], *_lines(document), *around[1]):
        length += len(line) + 1
        if length > limits.characters:
            raise Unreadable(f"has more than {limits.characters:,} characters of text")
        parts.append(line)
    title = (document.core_properties.title or "").strip()
    return Converted(Kind.DOCX.value, "\n".join(parts).strip(), title=title or None)


def _not_a_bomb(data: bytes, limits: DocumentLimits) -> None:
    """Raise unless what the archive says of itself is within the limits. What it says is checked by ``zipfile`` as it
    unpacks: a member that holds more than it says is broken."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Unreadable(f"is a broken DOCX: {error}") from error
    if len(members) > _MOST_MEMBERS:
        raise Unreadable(f"is a DOCX of {len(members):,} parts; at most {_MOST_MEMBERS:,} are read")
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.unpacked_bytes:
        raise Unreadable(f"unpacks to {unpacked:,} bytes; at most {limits.unpacked_bytes:,} are unpacked")
    if any(member.flag_bits & 1 for member in members):
        raise Unreadable("is encrypted; save it without a password")
    if not any(member.filename == "word/document.xml" for member in members):
        raise Unreadable("is a zip archive without a Word document in it")


def _lines(part: BlockItemContainer | Document, depth: int = 0) -> Iterator[str]:
    from docx.table import Table as DocxTable

    for block in part.iter_inner_content():
        if isinstance(block, DocxTable):
            yield from _rows(block, depth)
        else:
            style = block.style.name if block.style is not None else ""
            mark = "- " if style and style.startswith("List") and block.text.strip() else ""
            yield mark + block.text


def _rows(table: Table, depth: int) -> Iterator[str]:
    """Each row as its cells with tabs between; a merged cell once."""
    if depth > _DEEPEST:
        raise Unreadable(f"has tables nested more than {_DEEPEST} deep")
    for row in table.rows:
        seen: list[object] = []
        cells = []
        for cell in row.cells:
            if cell._tc in seen:
                continue
            seen.append(cell._tc)
            cells.append(" ".join(line.strip() for line in _lines(cell, depth + 1) if line.strip()))
        yield "\t".join(cells)
