"""Documents that nobody should have to read: broken, huge, encrypted, bombs, wrongly named. Seeded."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from docx import Document
from fpdf import FPDF
from fpdf.enums import AccessPermission

Maker = Callable[[random.Random], tuple[str, bytes]]
"""Gives a file's suffix and its content."""


def pdf(text: str = "A kettle for 12.50 EUR.", *, pages: int = 1, password: str | None = None) -> bytes:
    """A PDF with the same text on each page."""
    made = FPDF()
    made.set_font("Helvetica", size=12)
    for _ in range(pages):
        made.add_page()
        made.multi_cell(0, 8, text)
    if password is not None:
        made.set_encryption("owner", password, permissions=AccessPermission.none())
    return bytes(made.output())


def docx(text: str = "A kettle for 12.50 EUR.") -> bytes:
    """A Word document of one paragraph."""
    made = Document()
    made.add_paragraph(text)
    sink = io.BytesIO()
    made.save(sink)
    return sink.getvalue()


def pdf_of(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1, the first being the catalog; the cross-reference table is right."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def stream(data: bytes, *, packed: bytes = b"/Filter /FlateDecode ") -> bytes:
    """A PDF stream object."""
    return b"<< %s/Length %d >>\nstream\n%s\nendstream" % (packed, len(data), data)


def one_page(content: bytes, *, box: bytes = b"[0 0 612 792]", more: bytes = b"") -> bytes:
    """A PDF of one page with that content stream object."""
    return pdf_of(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox %s /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> %s >> >>"
        % (box, more),
        content,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )


def zeros_packed(times: int) -> bytes:
    """``times`` megabytes of the same byte, packed to a thousandth."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(times)) + packer.flush()


def zipped(parts: dict[str, bytes]) -> bytes:
    """A zip archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return sink.getvalue()


def docx_with(document: bytes) -> bytes:
    """A Word document whose body is that XML."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx())) as good, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as bad:
        for member in good.namelist():
            bad.writestr(member, document if member == "word/document.xml" else good.read(member))
    return sink.getvalue()


def _flipped(data: bytes, rng: random.Random, share: float) -> bytes:
    out = bytearray(data)
    for _ in range(max(1, int(len(out) * share))):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


_W = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "ha ha ha ha ha ha ha ha ha ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b']><w:document xmlns:w="%s"><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>' % _W
)
_OUTSIDE = (
    b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<w:document xmlns:w="%s"><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p></w:body></w:document>' % _W
)

MAKERS: dict[str, Maker] = {
    "cut pdf": lambda rng: (".pdf", (good := pdf(pages=3))[: rng.randrange(1, len(good))]),
    "flipped pdf": lambda rng: (".pdf", _flipped(pdf(pages=3), rng, rng.choice((0.001, 0.01, 0.1)))),
    "encrypted pdf": lambda rng: (".pdf", pdf(password=f"secret{rng.random()}")),
    "pdf of noise": lambda rng: (".pdf", b"%PDF-1.7\n" + rng.randbytes(rng.randrange(10, 100_000))),
    "noise named pdf": lambda rng: (".pdf", rng.randbytes(rng.randrange(1, 10_000))),
    "pages without end": lambda rng: (
        ".pdf",
        pdf_of(
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R 2 0 R] /Count %d >>" % rng.randrange(2, 1000),
            b"<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 3 0 R] /Count 2 >>",
        ),
    ),
    "a billion pages": lambda rng: (
        ".pdf",
        pdf_of(
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count %d >>" % rng.randrange(10**6, 10**9),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 10 10] >>",
        ),
    ),
    "many pages": lambda rng: (".pdf", pdf(pages=rng.randrange(60, 120))),
    "enormous page": lambda rng: (".pdf", one_page(stream(b"", packed=b""), box=b"[0 0 %d 1e30]" % 10**12)),
    "packed content": lambda rng: (".pdf", one_page(stream(zeros_packed(rng.randrange(200, 900))))),
    "content in itself": lambda rng: (
        ".pdf",
        one_page(stream(b"/X Do", packed=b""), more=b"/XObject << /X 4 0 R >>"),
    ),
    "deep array": lambda rng: (".pdf", one_page(stream(b"[" * rng.randrange(10_000, 500_000), packed=b""))),
    "picture only": lambda rng: (
        ".pdf",
        one_page(
            stream(b"q 600 0 0 700 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x80 EI Q", packed=b""),
        ),
    ),
    "cut docx": lambda rng: (".docx", (good := docx())[: rng.randrange(1, len(good))]),
    "flipped docx": lambda rng: (".docx", _flipped(docx(), rng, 0.01)),
    "packed docx": lambda rng: (
        ".docx",
        zipped({"[Content_Types].xml": b"<x/>", "word/document.xml": b" " * rng.randrange(450, 700) * 1_000_000}),
    ),
    "laughs": lambda rng: (".docx", docx_with(_LAUGHS)),
    "outside entity": lambda rng: (".docx", docx_with(_OUTSIDE)),
    "deep docx": lambda rng: (
        ".docx",
        docx_with(b'<w:document xmlns:w="%s"><w:body>' % _W + b"<w:tbl><w:tr><w:tc>" * rng.randrange(200, 5_000)),
    ),
    "zip named docx": lambda rng: (".docx", zipped({"a.txt": b"hello"})),
    "many parts": lambda rng: (".docx", zipped({f"word/{n}.xml": b"" for n in range(12_000)})),
    "old word": lambda rng: (".docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + rng.randbytes(5_000)),
    "deep html": lambda rng: (".html", b"<html><body>" + b"<div>" * rng.randrange(10_000, 300_000) + b"end"),
    "many attributes": lambda rng: (".html", b"<p " + b"a=1 " * rng.randrange(10_000, 500_000) + b">text"),
    "cut html": lambda rng: (".html", b"<html><body><table><tr><td>one<td>two<!-- " + b"x" * rng.randrange(100_000)),
    "nul html": lambda rng: (".html", b"<p>a\x00b\x00\xff\xfe</p>" * rng.randrange(1, 1000)),
    "utf-16 html": lambda rng: (".html", "<p>Kessel für 12,50 €</p>".encode("utf-16")),
    "script only": lambda rng: (".html", b"<html><script>" + b"x=1;" * 1000 + b"</script></html>"),
    "pdf named html": lambda rng: (".html", pdf()),
    "html named pdf": lambda rng: (".pdf", b"<!doctype html><p>A kettle for 12.50 EUR.</p>"),
    "picture named pdf": lambda rng: (".pdf", b"\x89PNG\r\n\x1a\n" + rng.randbytes(500)),
    "gzip named md": lambda rng: (".md", b"\x1f\x8b" + rng.randbytes(500)),
    "binary markdown": lambda rng: (".md", rng.randbytes(2_000)),
    "surrogates in markdown": lambda rng: (".md", b"ok \xed\xa0\x80 end"),
    "empty": lambda rng: (rng.choice((".pdf", ".docx", ".html", ".md")), b""),
    "blanks": lambda rng: (rng.choice((".html", ".md")), b" \n\t" * rng.randrange(1, 100)),
    "long line": lambda rng: (".md", b"kettle " * rng.randrange(100_000, 500_000)),
}


def write(folder: Path, count: int, *, seed: int) -> Iterator[tuple[str, Path]]:
    """``count`` hostile documents, each kind in turn: what it is, and its file."""
    rng = random.Random(seed)
    names = list(MAKERS)
    for number in range(count):
        name = names[number % len(names)]
        suffix, content = MAKERS[name](rng)
        path = folder / f"{number:04}-{name.replace(' ', '-')}{suffix}"
        path.write_bytes(content)
        yield name, path
