"""Opening files: compression, byte order marks, and telling at once that a file is not UTF-8."""

from __future__ import annotations

import codecs
import gzip
import re
from pathlib import Path
from typing import BinaryIO, cast

from extractors.errors import SourceError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PROBE = 1 << 18
_SURROGATES = re.compile("[\ud800-\udfff]")


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes; ``.gz`` is unpacked. Raises ``SourceError``."""
    try:
        return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror or error}") from error


def encoding_of(start: bytes) -> str:
    """The encoding that the byte order mark tells, else utf-8."""
    return next((name for bom, name in _BOMS if start.startswith(bom)), "utf-8")


def probe(path: Path, *, header: bool) -> str:
    """The encoding of a table file. Raises ``SourceError`` for a file that is empty or plainly not UTF-8:
    its first line is not and is a ``header``, or most of its lines with non-ASCII bytes are not. Fewer are
    single broken lines."""
    try:
        with open_bytes(path) as file:
            start = file.read(_PROBE)
    except (OSError, EOFError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not start:
        raise SourceError(f"{path} is empty (0 bytes): there is nothing to extract from; check what wrote it")
    encoding = encoding_of(start)
    if encoding != "utf-8":
        return encoding
    lines = start.splitlines(keepends=True)
    if len(start) == _PROBE:
        # The probe may end within a character.
        lines[-1] = (
            codecs.getincrementaldecoder("utf-8")("surrogateescape")
            .decode(lines[-1])
            .encode("utf-8", "surrogateescape")
        )
    foreign = [line for line in lines if not line.isascii()]
    broken = [line for line in foreign if not is_utf8(line)]
    if broken and ((header and broken[0] is lines[0]) or (len(broken) > 1 and 2 * len(broken) > len(foreign))):
        guess = "utf-16" if start[:200].count(0) > 20 else "latin-1 (iso-8859-1) or windows-1252"
        offset = len(b"".join(lines[: lines.index(broken[0])])) + bad_byte(broken[0])
        raise SourceError(
            f"{path} is not UTF-8: byte 0x{start[offset]:02x} at offset {offset}; it may be {guess}. "
            f"Convert it first, for example: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        )
    if start[:200].count(0) > 20:
        raise SourceError(
            f"{path} looks like UTF-16 without a byte order mark; convert it first, for example: "
            f"iconv -f utf-16le -t utf-8 {path.name} > utf8-{path.name}"
        )
    return encoding


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def bad_byte(data: bytes) -> int:
    """The offset of the first byte that is not UTF-8. Raises ``ValueError`` when all are."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    raise ValueError("all bytes are UTF-8")


def without_surrogates(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
