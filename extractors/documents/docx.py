"""A Word document's paragraphs and tables in their order, its headers before and its footers after them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from extractors.documents.converted import Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import Kind

if TYPE_CHECKING:
    from docx.blkcntnr import BlockItemContainer
    from docx.document import Document
    from docx.table import Table

_MOST_MEMBERS = 10_000
_DEEPEST = 8
"""Tables within tables."""
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_CONTROL, _CONTENT = f"{_W}sdt", f"{_W}sdtContent"
_WRAPPERS = (
    _CONTROL,
    *(f"{_W}{name}" for name in ("ins", "moveTo", "smartTag", "fldSimple", "customXml", "dir", "bdo")),
)
_REMOVED = (f"{_W}del", f"{_W}moveFrom")
_ABOUT = (f"{_W}smartTagPr", f"{_W}customXmlPr", f"{_W}fldData")
"""What a wrapper says of itself."""


def convert(data: bytes, limits: DocumentLimits) -> Converted:
    """The text of a DOCX file. Raises ``Unreadable``."""
    _not_a_bomb(data, limits)
    from docx import Document as open_document

    document = open_document(io.BytesIO(data))
    _unwrap(document.element)
    parts: list[str] = []
    length = 0
    around: list[list[str]] = [[], []]
    even = document.settings.odd_and_even_pages_header_footer
    for section in document.sections:
        first = section.different_first_page_header_footer
        shown = [(0, section.first_page_header), (1, section.first_page_footer)] if first else []
        shown += [(0, section.header), (1, section.footer)]
        shown += [(0, section.even_page_header), (1, section.even_page_footer)] if even else []
        for place, each in shown:
            if not each.is_linked_to_previous:
                _unwrap(each._element)
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


def _unwrap(root: Any) -> None:
    """Put in the place of each wrapper what it holds: python-docx looks at the direct children of a body, cell, row or
    paragraph only, and would pass over the text of tracked insertions, content controls and fields."""
    for wrapper in list(root.iter(*_REMOVED)):
        parent = wrapper.getparent()
        if parent is not None and parent.tag == f"{_W}trPr":
            # The mark of a row that is deleted, which it stands in.
            wrapper = parent.getparent()
            parent = wrapper.getparent() if wrapper is not None else None
        if parent is not None:
            parent.remove(wrapper)
    # The innermost first, so that each is opened once.
    for wrapper in reversed(list(root.iter(*_WRAPPERS))):
        parent = wrapper.getparent()
        if parent is None:
            continue
        for inner in wrapper.findall(_CONTENT) if wrapper.tag == _CONTROL else [wrapper]:
            for child in list(inner):
                if child.tag not in _ABOUT:
                    wrapper.addprevious(child)
        parent.remove(wrapper)


def _lines(part: BlockItemContainer | Document, depth: int = 0) -> Iterator[str]:
    from docx.table import Table as DocxTable

    for block in part.iter_inner_content():
        if isinstance(block, DocxTable):
            yield from _rows(block, depth)
        else:
            text = block.text
            style = block.style.name if block.style is not None and text.strip() else ""
            mark = "- " if style and style.startswith("List") else ""
            yield mark + text


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
