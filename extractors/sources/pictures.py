"""From a cell to a record's picture: a path, an https address, a ``data:`` URL, or bytes.

What data says is not trusted. A path must stay below a root, links followed; no other scheme than https is taken,
and no address of this machine or a private network; an address is handed to the provider and never fetched here.
A picture is hashed when the source is read and loaded again when its record is asked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import orjson

from extractors.images import MOST_FILE_BYTES
from schemas.records import ImageRef

FROM_TEXT, FROM_BYTES = "quarry_picture", "quarry_picture_bytes"
"""The SQL functions that ``PictureFinder.register`` makes: a cell to a picture as JSON text."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
_SCHEMES = ("file", "data", "blob", "javascript", "oss", "s3", "gs", "ftp", "http", "https")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_NEARBY = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa")
_BLOCK = 1 << 20
_SHOWN = 200


class _Refused(Exception):
    """Why a cell is no picture that may be asked about."""


class PictureFinder:
    """Finds the pictures of one source. ``base`` is what relative paths start from, ``root`` what no path may
    leave, ``hosts`` the patterns that an address's host must match (none: any public host).

    ``scratch`` is a folder for pictures that are bytes in the source; it must be set before those are read.
    """

    def __init__(self, *, base: Path, root: Path | None = None, hosts: Sequence[str] = ()) -> None:
        self._base = base.resolve()
        self._root = (root or base).expanduser().resolve()
        self._hosts = tuple(host.lower() for host in hosts)
        self.scratch: Path | None = None

    def register(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make the two SQL functions on ``con``."""
        for name, function, kind in ((FROM_TEXT, self.from_text, "VARCHAR"), (FROM_BYTES, self.from_bytes, "BLOB")):
            con.create_function(name, function, [kind], "VARCHAR", null_handling="special", side_effects=True)  # type: ignore[call-overload]

    def unregister(self, con: duckdb.DuckDBPyConnection) -> None:
        """Take them away."""
        con.remove_function(FROM_TEXT)
        con.remove_function(FROM_BYTES)

    def from_text(self, cell: str | None) -> str | None:
        """The picture that a cell names, as JSON of ``ImageRef`` or with a ``problem``; None for an empty cell."""
        if cell is None or not cell.strip():
            return None
        try:
            return _told(self._find(cell.strip()))
        except _Refused as error:
            return _problem(str(error))

    def from_bytes(self, cell: bytes | None) -> str | None:
        """The same for a picture that is the cell itself."""
        if not cell:
            return None
        try:
            return _told(self._kept(cell, f"of {len(cell):,} bytes"))
        except _Refused as error:
            return _problem(str(error))

    def _find(self, cell: str) -> ImageRef:
        scheme = _SCHEME.match(cell)
        if scheme is not None and (scheme.group(2) or scheme.group(1).lower() in _SCHEMES):
            if scheme.group(1).lower() == "data":
                return self._inline(cell)
            check_address(cell, hosts=self._hosts)
            cell = "https" + cell[len("https") :]
            return ImageRef(cell, cell, hashlib.sha256(cell.encode("utf-8", "surrogatepass")).hexdigest())
        return self._file(cell)

    def _file(self, cell: str) -> ImageRef:
        shown = cell[:_SHOWN]
        try:
            path = (self._base / cell).resolve()
            if not path.is_relative_to(self._root):
                raise _Refused(
                    f"the picture {shown} lies outside of {self._root}, which paths from data may not leave; "
                    "--image-root names another folder"
                )
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _Refused(f"the picture {shown} is not a file")
            if status.st_size > MOST_FILE_BYTES:
                raise _Refused(
                    f"the picture {shown} has {status.st_size:,} bytes; at most {MOST_FILE_BYTES:,} are read"
                )
            return ImageRef(str(path), shown, _hash_of(path))
        except FileNotFoundError as error:
            raise _Refused(f"there is no picture {shown} (looked in {self._base})") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise _Refused(
                f"the picture {shown} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    def _inline(self, cell: str) -> ImageRef:
        head, comma, body = cell.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise _Refused("the picture is a data: URL that is not base64")
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _Refused(f"the picture is a data: URL that is not base64: {error}") from error
        return self._kept(data, f"of {len(data):,} bytes")

    def _kept(self, data: bytes, name: str) -> ImageRef:
        if len(data) > MOST_FILE_BYTES:
            raise _Refused(f"the picture has {len(data):,} bytes; at most {MOST_FILE_BYTES:,} are read")
        assert self.scratch is not None, "a source with pictures needs a scratch folder"
        self.scratch.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(data).hexdigest()
        path = self.scratch / digest
        if not path.exists():
            path.write_bytes(data)
        return ImageRef(str(path), name, digest)


def check_address(url: str, *, hosts: Sequence[str] = ()) -> None:
    """Raise, saying why, unless ``url`` is an https address of a public host that ``hosts`` allow.

    Hosts that are numbers are judged in every spelling that is read as an IPv4 address somewhere: only the usual
    one is taken. What a name resolves to is the provider's to judge, who fetches it.
    """
    shown = url[:_SHOWN]
    if any(character <= " " or character in '\\"<>^`{|}' or character >= "\x7f" for character in url):
        raise _Refused(f"the picture's address {shown!r} has characters that no address may have")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise _Refused(f"the picture's address {shown} cannot be read: {error}") from error
    if parts.scheme != "https":
        raise _Refused(f"the picture's address {shown} is {parts.scheme}:; only https and paths are taken")
    if parts.username is not None or parts.password is not None or port not in (None, 443):
        raise _Refused(f"the picture's address {shown} has a user, a password or a port")
    if not _is_public(host):
        raise _Refused(f"the picture's address {shown} is not one of a public host")
    if hosts and not any(fnmatchcase(host, pattern) for pattern in hosts):
        raise _Refused(f"the picture's host {host} is not among --image-hosts ({', '.join(hosts)})")


def _is_public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # Such as 127.1, 0x7f000001 and 0177.0.0.1, which some resolvers take for IPv4.
        number = labels[-1].isdigit() or labels[-1].startswith("0x")
        return _HOST.fullmatch(host) is not None and not number and labels[-1] not in _NEARBY
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    teredo = getattr(address, "teredo", None)
    return address.is_global and not address.is_multicast and inner is None and teredo is None


def pictures_of(told: str | None) -> tuple[tuple[ImageRef, ...], str | None]:
    """The pictures that the source told of, and the document that the text was read from."""
    if told is None:
        return (), None
    found = orjson.loads(told)
    if "document" in found:
        return (), _from_json(found["document"])
    pages = found.pop("pages", None)
    if pages is None:
        return (ImageRef(**found),), None
    place, name, digest = _from_json(found["place"]), found["name"], found["sha256"]
    return tuple(ImageRef(place, f"{name} (page {page})", digest, page) for page in pages), place


def as_json(place: str) -> str | dict[str, str]:
    """A path as a JSON value. A file's name is bytes, and not always UTF-8."""
    try:
        place.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(os.fsencode(place)).decode()}
    return place


def _from_json(place: str | dict[str, str]) -> str:
    return place if isinstance(place, str) else os.fsdecode(base64.b64decode(place["base64"]))


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _told(ref: ImageRef) -> str:
    return orjson.dumps({"place": _utf8(ref.place), "name": _utf8(ref.name), "sha256": ref.sha256}).decode()


def _problem(why: str) -> str:
    return orjson.dumps({"problem": _utf8(why)}).decode()


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
