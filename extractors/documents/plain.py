"""Text that is stored as text: decoded, and that is all."""

from __future__ import annotations

import codecs
import contextlib
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

_AS_BROWSERS = {
    **dict.fromkeys(
        ("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1", "l1"), "cp1252"
    ),
    **dict.fromkeys(("iso-8859-9", "iso8859-9", "latin5", "l5"), "cp1254"),
    **dict.fromkeys(("iso-8859-11", "iso8859-11", "tis-620"), "cp874"),
    **dict.fromkeys(("gb2312", "gb_2312-80", "gbk", "x-gbk", "chinese"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs", "cn-big5", "x-x-big5"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "ksc5601", "ksc_5601", "korean"), "cp949"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
}
"""Names that pages give, and what browsers take them for (https://encoding.spec.whatwg.org/#names-and-labels): a page that
says ISO-8859-1 has the euro sign and the quotation marks of windows-1252, one that says GB2312 any sign of GB 18030.
Bytes of a page that could be read so far are not UTF-16, whatever it says."""


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
    takes every byte (https://encoding.spec.whatwg.org/).

    A page with bytes that are none of what it declares is read as UTF-8 if it is that; else those bytes become U+FFFD."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data.decode(name, "replace")
    found = _CHARSET.search(data[:4096])
    declared = found.group(1).decode("ascii").lower() if found else ""
    named = _AS_BROWSERS.get(declared, declared)
    for name in (named, "utf-8"):
        with contextlib.suppress(UnicodeDecodeError, LookupError, ValueError):
            return data.decode(name)
    try:
        return data.decode(named, "replace")
    except (LookupError, ValueError):
        return data.decode("cp1252", "replace")
