"""Every file operation of the store, so that crashes can be tested at each and object stores added."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from extractors.errors import OutputError

_TEMP = ".tmp-"


def write_whole(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the folder: the file is there whole or not at all.

    Raises ``OutputError`` naming the file; a half-written one is removed.
    """
    temp = path.with_name(f"{_TEMP}{path.name}.{os.getpid()}")
    try:
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename(temp, path)
    except OSError as error:
        remove(temp)
        raise explained(error, path) from error


def rename(temp: Path, path: Path) -> None:
    """Move into place and make the folder's entry durable."""
    temp.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(path: Path) -> None:
    """Delete a file that may not be there."""
    path.unlink(missing_ok=True)


def remove_stale(folder: Path) -> None:
    """Delete what a killed run was writing."""
    for path in folder.glob(f"{_TEMP}*"):
        remove(path)


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises ``OutputError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error


def set_aside(path: Path, folder: Path) -> None:
    """Move a damaged file to the quarantine folder."""
    make_folder(folder)
    if path.exists():
        path.replace(folder / path.name)


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def explained(error: OSError, path: Path) -> OutputError:
    """What went wrong with a file, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        try:
            free = f"{shutil.disk_usage(path.parent).free / 1024**2:,.0f} MiB free"
        except OSError:
            free = "free space unknown"
        return OutputError(f"no space to write {path} ({free}); what was committed is safe: make room and run it again")
    return OutputError(f"cannot write {path}: {error.strerror or error}; check the folder and its permissions")
