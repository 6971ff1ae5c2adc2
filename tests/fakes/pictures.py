"""The size of an image in a ``data:`` URL, read from its first bytes."""

from __future__ import annotations

import base64
import binascii
import struct
from functools import lru_cache

_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
FORMATS = ("bmp", "jpeg", "png", "tiff", "webp", "heic")


@lru_cache(maxsize=256)
def size_of(url: str) -> tuple[int, int] | None:
    """(width, height) in pixels; None for a remote image or one whose header is not understood."""
    try:
        data = data_of(url)
    except ValueError:
        return None
    return None if data is None else _size(data)


def data_of(url: str) -> bytes | None:
    """The bytes of a ``data:`` URL; None for another address, ``ValueError`` for broken base64."""
    if not url.startswith("data:"):
        return None
    head, _, packed = url.partition(",")
    if not head.endswith(";base64"):
        return b""
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error as error:
        raise ValueError("broken base64") from error


def format_of(data: bytes) -> str | None:
    """The format by its magic number: one of ``FORMATS``, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM"):
        return "bmp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return "heic" if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1") else None


def _size(data: bytes) -> tuple[int, int] | None:
    kind = format_of(data)
    if kind == "png" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if kind == "bmp" and len(data) >= 26:
        wide, high = struct.unpack("<ii", data[18:26])
        return wide, abs(high)
    if kind == "jpeg":
        return _jpeg(data)
    if kind == "webp" and len(data) >= 30:
        return _webp(data)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _JPEG_SIZES:
            high, wide = struct.unpack(">HH", data[at + 5 : at + 9])
            return wide, high
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        wide, high = struct.unpack("<HH", data[26:30])
        return wide & 0x3FFF, high & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
