"""Paths on an S3-compatible object store: what the store does with a folder, done with keys.

``s3://bucket/prefix``; region and credentials come from the environment as Arrow's ``S3FileSystem`` reads them
(``AWS_*``, profiles, the machine's role). The address of another store than Amazon's is ``AWS_ENDPOINT_URL`` or
``use_endpoint``. There are no folders, renames or appends on such a store: an object is put whole or not at all, and what
was put is seen by every later read and listing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator
from fnmatch import fnmatchcase
from pathlib import PosixPath
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from extractors.errors import JobError

SCHEME = "s3://"
_ENDPOINTS: dict[str, str] = {}


def use_endpoint(place: str, endpoint: str | None) -> None:
    """The address (``http://host:port``) at which this process finds a place's bucket from now on; None changes nothing."""
    if endpoint is not None and place.startswith(SCHEME):
        _ENDPOINTS[_bucket(place)] = endpoint


class ObjectPath(PosixPath):
    """A key of a bucket, with the methods of a ``Path`` that the store uses. ``str`` gives the ``s3://`` address."""

    def __str__(self) -> str:
        return SCHEME + self.key

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not a file of this machine")

    @property
    def key(self) -> str:
        """Bucket and key, as Arrow takes them."""
        return self.as_posix().removeprefix(SCHEME).removeprefix("s3:/")

    def as_posix(self) -> str:
        return super().__str__()

    @property
    def filesystem(self) -> fs.FileSystem:
        """The bucket's store."""
        bucket = self.key.partition("/")[0]
        endpoint = _ENDPOINTS.get(bucket) or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return _filesystem(endpoint)

    def opened(self) -> Any:
        """The object, for reading at any place. Raises ``OSError``."""
        return self.filesystem.open_input_file(self.key)

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.key) as stream:
            data: bytes = stream.read()
            return data

    def write_bytes(self, data: Any) -> int:
        """Put the object whole."""
        with self.filesystem.open_output_stream(self.key) as stream:
            stream.write(data)
        return len(data)

    def info(self) -> fs.FileInfo:
        """What the store says of the key; of type ``NotFound`` where there is nothing."""
        return self.filesystem.get_file_info(self.key)

    def is_file(self, **options: Any) -> bool:
        return bool(self.info().type == fs.FileType.File)

    def is_dir(self, **options: Any) -> bool:
        return bool(self.info().type == fs.FileType.Directory)

    def exists(self, **options: Any) -> bool:
        return bool(self.info().type != fs.FileType.NotFound)

    def resolve(self, strict: bool = False) -> ObjectPath:
        return self

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.filesystem.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Generator[ObjectPath, None, None]:
        yield from (self / name for name in sorted(self._names()))

    def glob(self, pattern: str, **options: Any) -> Generator[ObjectPath, None, None]:
        first, _, rest = pattern.partition("/")
        if not any(sign in first for sign in "*?["):
            inner = self / first
            if rest:
                yield from inner.glob(rest)
            elif inner.exists():
                yield inner
            return
        for name in sorted(self._names()):
            if fnmatchcase(name, first):
                if rest:
                    yield from (self / name).glob(rest)
                else:
                    yield self / name

    def _names(self) -> list[str]:
        try:
            found = self.filesystem.get_file_info(fs.FileSelector(self.key, allow_not_found=True))
        except FileNotFoundError:
            return []
        return [one.base_name for one in found]


def place(address: str) -> ObjectPath:
    """The path of an ``s3://`` address."""
    return ObjectPath("s3:/" + address.removeprefix(SCHEME).strip("/"))


@functools.lru_cache(maxsize=16)
def _filesystem(endpoint: str | None) -> fs.FileSystem:
    if endpoint is None:
        return fs.S3FileSystem()
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise JobError(f"the address of an object store must be like http://host:9000, not {endpoint!r}")
    return fs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme)


def _bucket(address: str) -> str:
    bucket = address.removeprefix(SCHEME).partition("/")[0]
    if not bucket:
        raise JobError(f"{address} names no bucket: give s3://bucket/prefix")
    return bucket


def known_to_duckdb(connection: Any, path: ObjectPath) -> None:
    """Let a DuckDB connection read ``s3://`` paths of the path's store through Arrow, without its httpfs extension."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    connection.register_filesystem(ArrowFSWrapper(path.filesystem))
