"""One writer at a time: an advisory lock that dies with its owner."""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from extractors.errors import OutputBusy, OutputError
from extractors.store import files, layout


class Lock:
    """``flock`` on ``OUT/.lock``. The kernel releases it when the process ends, however it ends."""

    def __init__(self, out: Path, *, option: str = "--out") -> None:
        """``option`` is that by which another place is given."""
        self._option = option
        self._path = out / layout.LOCK
        self._file: int | None = None

    def take(self) -> None:
        """Raises ``OutputBusy`` when another run has it, naming that run."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise files.explained(error, self._path) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 400).decode("utf-8", "replace").strip()
            os.close(file)
            raise OutputBusy(
                f"{self._path.parent} is in use by another run ({holder or 'holder unknown'}); wait for it, stop it, "
                f"or give another {self._option}"
            ) from None
        except OSError as error:
            os.close(file)
            raise OutputError(
                f"{self._path} cannot be locked ({error.strerror or error}): the file system of {self._option} must know flock"
            ) from error
        text = f"pid {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
        try:
            os.pwrite(file, text.encode(), 0)
            os.ftruncate(file, len(text))
        except OSError as error:
            os.close(file)
            raise files.explained(error, self._path) from error
        self._file = file

    def check(self) -> None:
        """The kernel keeps it for us: nothing to check."""

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
