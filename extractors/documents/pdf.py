"""A PDF's text page by page, where a value stands on its page, and a page as a picture. PDFium does the reading."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extractors.documents.converted import PAGE_END, Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import Kind

if TYPE_CHECKING:
    import pypdfium2 as pdfium

Box = tuple[float, float, float, float]
Span = tuple[int, int, str]
"""Where characters of a page begin and end, and what they are."""
FEW_CHARACTERS = 16
"""A page with fewer characters than this, and a picture on it, is a scanned page."""
DPI = 150
_POINTS = 72
_MOST_PIXELS = 16_000_000
_IMAGE = 3  # FPDF_PAGEOBJ_IMAGE
_ERRORS = {
    3: "is no PDF that can be read (broken)",
    4: "is encrypted and needs a password; save it without one",
    5: "is encrypted in a way that is not read; save it without a password",
}


def convert(data: bytes, limits: DocumentLimits) -> Converted:
    """The text of a PDF, each page ended with a form feed. Raises ``Unreadable``."""
    with _Opened(data) as document:
        count = len(document)
        if count > limits.pages:
            raise Unreadable(f"has {count:,} pages; at most {limits.pages:,} are read (document_max_pages)")
        texts: list[str] = []
        pictures: list[int] = []
        length = 0
        for number in range(count):
            page = _page(document, number)
            if page is None:
                texts.append("")
                continue
            try:
                text = _text(page)
                if len(text.strip()) < FEW_CHARACTERS and _has_picture(page):
                    pictures.append(number + 1)
            finally:
                page.close()
            texts.append(text)
            length += len(text)
            if length > limits.characters:
                raise Unreadable(f"has more than {limits.characters:,} characters of text")
        title = document.get_metadata_value("Title").strip()
    whole = "".join(text + PAGE_END for text in texts)
    return Converted(Kind.PDF.value, whole, count, tuple(pictures), title or None)


def boxes(data: bytes, spans: Mapping[int, Sequence[Span]]) -> dict[int, list[Box | None]]:
    """Where spans of characters stand: for each page (from 1) the boxes of its spans, whose offsets count from the page's
    beginning. What does not stand at its offset (a template put words before it, the file was changed) is looked for on
    its page, and has no box unless it is there once. A box is (left, top, right, bottom) in points from the upper left corner of the page as it is shown."""
    found: dict[int, list[Box | None]] = {}
    with _Opened(data) as document:
        for number, wanted in spans.items():
            page = _page(document, number - 1) if 0 < number <= len(document) else None
            if page is None:
                found[number] = [None] * len(wanted)
                continue
            try:
                found[number] = _boxes(page, wanted)
            finally:
                page.close()
    return found


def picture(path: str, page_number: int) -> bytes:
    """A page as a PNG of 150 dots an inch, fewer where that would be too many pixels. Raises ``Unreadable``."""
    with _Opened(Path(path).read_bytes()) as document:
        page = _page(document, page_number - 1) if 0 < page_number <= len(document) else None
        if page is None:
            raise Unreadable(f"has no page {page_number} that can be read")
        width, height = page.get_size()
        if not 0 < width * height < 1e12:
            raise Unreadable(f"has a page {page_number} of {width:.0f} x {height:.0f} points")
        scale = min(DPI / _POINTS, math.sqrt(_MOST_PIXELS / (width * height)))
        image = page.render(scale=scale).to_pil().convert("L")
        sink = io.BytesIO()
        image.save(sink, "PNG")
        return sink.getvalue()


class _Opened:
    """An open PDF; closing it closes what PDFium holds."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> pdfium.PdfDocument:
        import pypdfium2 as pdfium

        try:
            self._document = pdfium.PdfDocument(self._data)
            # Counting the pages walks the page tree, which is where broken files fail late.
            len(self._document)
        except pdfium.PdfiumError as error:
            code = getattr(error, "err_code", None)
            raise Unreadable(_ERRORS.get(int(code or 0), f"is no PDF that can be read ({error})")) from error
        return self._document

    def __exit__(self, *exc: object) -> None:
        self._document.close()


def _page(document: pdfium.PdfDocument, index: int) -> pdfium.PdfPage | None:
    import pypdfium2 as pdfium

    try:
        return document[index]
    except pdfium.PdfiumError:
        return None


def _text(page: pdfium.PdfPage) -> str:
    textpage = page.get_textpage()
    try:
        return _lines(textpage.get_text_range())
    finally:
        textpage.close()


def _lines(raw: str) -> str:
    """PDFium's text with plain line ends: what it gives as CR LF, and its marks of a hyphen at a line's end."""
    return (
        raw.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\ufffe", "-\n").replace("\x00", "")
    )


def _has_picture(page: pdfium.PdfPage) -> bool:
    return next(iter(page.get_objects(filter=[_IMAGE], max_depth=3)), None) is not None


def _boxes(page: pdfium.PdfPage, wanted: Sequence[Span]) -> list[Box | None]:
    import pypdfium2.raw as raw

    textpage = page.get_textpage()
    try:
        text = textpage.get_text_range()
        count = textpage.count_chars()
        characters = [chr(raw.FPDFText_GetUnicode(textpage.raw, at)) for at in range(count)]
        if "".join(characters) != text:
            # Where PDFium's text is not one character for each index there is no way back from one to the other.
            return [None] * len(wanted)
        # For each character of the page's text as it was converted, the index of PDFium's.
        back: list[int] = []
        for at, character in enumerate(characters):
            after = characters[at + 1] if at + 1 < count else ""
            back += [at] * (0 if character == "\r" and after == "\n" else len(_lines(character)))
        turned = page.get_rotation()
        left, bottom, right, top = _area(page, turned)
        found: list[Box | None] = []
        plain = _lines(text)
        for span in wanted:
            start, end = _standing(span, plain)
            inside = [textpage.get_charbox(at) for at in dict.fromkeys(back[start:end]) if characters[at].strip()]
            if not inside:
                found.append(None)
                continue
            box = (
                min(one[0] for one in inside) - left,
                top - max(one[3] for one in inside),
                max(one[2] for one in inside) - left,
                top - min(one[1] for one in inside),
            )
            found.append(_shown(box, right - left, top - bottom, turned))
        return found
    finally:
        textpage.close()


def _standing(span: Span, text: str) -> tuple[int, int]:
    """Where a span's characters stand on a page, an empty stretch if that is not known."""
    start, end, quote = span
    if text[start:end] == quote:
        return start, end
    at = text.find(quote) if text.count(quote) == 1 else len(text)
    return at, at + len(quote)


def _area(page: pdfium.PdfPage, turned: int) -> Box:
    """What of the page is shown: left, bottom, right, top, as it is stored. A box that a page has from the node above it
    is not told by PDFium, only its size."""
    width, height = page.get_size() if turned in (0, 180) else reversed(page.get_size())
    for box in (page.get_cropbox(fallback_ok=False), page.get_mediabox(fallback_ok=False)):
        if box is not None and abs(box[2] - box[0] - width) < 1 and abs(box[3] - box[1] - height) < 1:
            return (box[0], box[1], box[2], box[3])
    return (0.0, 0.0, width, height)


def _shown(box: Box, width: float, height: float, turned: int) -> Box:
    """A box of the page as it is stored, on the page as it is shown: turned clockwise by a multiple of 90 degrees."""
    left, top, right, bottom = box
    if turned == 90:
        box = (height - bottom, left, height - top, right)
    elif turned == 180:
        box = (width - right, height - bottom, width - left, height - top)
    elif turned == 270:
        box = (top, width - right, bottom, width - left)
    return (round(box[0], 2), round(box[1], 2), round(box[2], 2), round(box[3], 2))
