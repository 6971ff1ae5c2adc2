"""Every file operation of the store, so that crashes can be tested at each. On an object store (``objects``) a file is
put whole where a disk has write, fsync and rename, and there are no folders to make or to sync."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extractors.errors import OutputError
from extractors.store import objects
from extractors.store.objects import ObjectPath

_TEMP = ".tmp-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def place(out: str | Path) -> Path:
    """An output's path: on an object store for an ``s3://`` address."""
    if isinstance(out, ObjectPath):
        return out
    return objects.place(str(out)) if is_remote(out) else Path(out)


def is_remote(out: str | Path) -> bool:
    """Whether it is on an object store."""
    return isinstance(out, ObjectPath) or str(out).startswith(objects.SCHEME)


def write_whole(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the folder: the file is there whole or not at all.

    Raises ``OutputError`` naming the file; a half-written one is removed.
    """
    if isinstance(path, ObjectPath):
        try:
            path.write_bytes(data)
        except OSError as error:
            raise explained(error, path) from error
        return
    temp = temporary(path)
    try:
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename(temp, path)
    except OSError as error:
        remove(temp)
        raise explained(error, path) from error


def temporary(path: Path) -> Path:
    """The name under which a file is written until it is whole; ``remove_stale`` finds it."""
    return path.with_name(f"{_TEMP}{path.name}.{os.getpid()}")


def rename(temp: Path, path: Path) -> None:
    """Move into place and make the folder's entry durable."""
    if isinstance(temp, ObjectPath) and isinstance(path, ObjectPath):
        temp.filesystem.move(temp.key, path.key)
        return
    temp.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Make what was written to a file durable."""
    os.fsync(descriptor)


def remove(path: Path) -> None:
    """Delete a file that may not be there."""
    path.unlink(missing_ok=True)


def remove_stale(folder: Path, name: str = "*") -> None:
    """Delete what a killed run was writing: the temporary files of ``name`` (a glob)."""
    if isinstance(folder, ObjectPath):
        return  # nothing is ever half there
    for path in folder.glob(f"{_TEMP}{name}"):
        remove(path)


def is_temporary(path: Path, name: str) -> bool:
    """Whether a file is what a killed run left of ``name``."""
    return path.name.startswith(f"{_TEMP}{name}.")


def remove_folder(folder: Path) -> None:
    """Delete a folder with all that is in it; it may not be there."""
    shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably. Raises ``OutputError``."""
    if isinstance(path, ObjectPath):
        return
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error


def check_writable(path: Path) -> None:
    """Raises ``OutputError`` where a file of that name could not be written: before anything is paid for what goes into
    it. Nothing is made."""
    if isinstance(path, ObjectPath):
        return
    if path.is_dir():
        raise OutputError(f"{path} cannot be written: it is a folder; give the name of a file")
    above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir():
        raise OutputError(f"{path} cannot be written: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"{path} cannot be written: {above} gives no permission to; give another place")


def set_aside(path: Path, folder: Path) -> None:
    """Move a damaged file to the quarantine folder, beside those of its name that are there already."""
    if not path.exists():
        return
    make_folder(folder)
    target, number = folder / path.name, 1
    while target.exists():
        number += 1
        target = folder / f"{path.name}.{number}"
    try:
        rename(path, target)
    except OSError as error:
        raise explained(error, path) from error


def read(path: Path) -> bytes:
    """A file's bytes. Raises ``OSError``."""
    return path.read_bytes()


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file's columns. Raises ``OSError``."""
    wanted = None if columns is None else list(columns)
    if isinstance(path, ObjectPath):
        with path.opened() as file:
            return pq.read_table(file, columns=wanted)
    return pq.read_table(path, columns=wanted, partitioning=None)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, by name; none for a folder that is not there."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith(_TEMP))


def size_of(path: Path) -> int:
    """Bytes. Raises ``OSError``."""
    if not isinstance(path, ObjectPath):
        return path.stat().st_size
    if (size := path.info().size) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return int(size)


def differs(path: Path, *, size: int, sha256_hex: str | None) -> str | None:
    """What is wrong with a file that should have this size and, if given, this SHA-256; None when nothing is."""
    try:
        if sha256_hex is None:
            found, digest = size_of(path), None
        else:
            data = read(path)
            found, digest = len(data), sha256(data)
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error})"
    if found != size:
        return f"{path} has {found:,} bytes where its commit says {size:,}"
    if digest != sha256_hex:
        return f"{path} does not match the checksum in its commit"
    return None


class Log:
    """A file that grows by whole entries. What a kill left of an entry at its end is cut off when it is opened."""

    def __init__(self, path: Path, *, end: bytes) -> None:
        """Raises ``OSError``. ``end`` closes every entry."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size = os.fstat(self._descriptor).st_size
        if self.size:
            whole = read(path).rfind(end) + len(end)
            if whole != self.size:
                self._cut(whole)

    def append(self, data: bytes) -> None:
        """One entry, by one ``write`` of the kernel unless the disk is filling up. Raises ``OSError``; then
        what was written of the entry is cut off again."""
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            # A disk that cannot even do that leaves a torn entry, which the reader finds by its checksum.
            with contextlib.suppress(OSError):
                self._cut(self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Durable against the loss of power too."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Once."""
        os.close(self._descriptor)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self.size = size


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def explained(error: OSError, path: Path) -> OutputError:
    """What went wrong with a file, in words."""
    if error.errno in _FULL:
        try:
            free = f"{shutil.disk_usage(path.parent).free / 1024**2:,.0f} MiB free"
        except OSError:
            free = "free space unknown"
        return OutputError(f"no space to write {path} ({free}); what was committed is safe: make room and run it again")
    what = "the bucket, the endpoint and the credentials" if is_remote(path) else "the folder and its permissions"
    return OutputError(f"cannot write {path}: {error.strerror or error}; check {what}")
