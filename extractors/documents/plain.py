"""Text that is stored as text: decoded, and that is all."""

from __future__ import annotations

import codecs
import re

from extractors.documents.converted import Unreadable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


def decoded(data: bytes) -> str:
    """UTF-8, or what the byte order mark says. Raises ``Unreadable`` naming the first wrong byte."""
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = data[error.start : error.start + 1].hex()
        raise Unreadable(f"is not {encoding}: byte 0x{wrong} at offset {error.start}") from error


def decoded_html(data: bytes) -> str:
    """As a browser reads it: a byte order mark, then what the page declares, then UTF-8, then windows-1252, which
    takes every byte (https://encoding.spec.whatwg.org/)."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data.decode(name, "replace")
    declared = _CHARSET.search(data[:4096])
    for name in (declared.group(1).decode("ascii") if declared else "utf-8", "utf-8"):
        try:
            # A page that says UTF-16 in bytes that could be read so far is not UTF-16.
            return data.decode("utf-8" if name.lower().startswith("utf-16") else name)
        except (UnicodeDecodeError, LookupError, ValueError):
            continue
    return data.decode("cp1252", "replace")
