"""The journal of an output on an object store, where nothing can be appended to.

Entries go to a file on this machine first, as always, and within two seconds (or 64 entries) to the store as small
objects. A process that is killed loses nothing that another one on its machine cannot read; a machine that is lost
costs the calls of its last two seconds.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path

from extractors.errors import OutputError
from extractors.home import journals_folder
from extractors.store import files
from extractors.store.journal import Journal, opening_line

logger = logging.getLogger(__name__)
SECONDS = 2.0
ENTRIES = 64


def journal_at(path: Path, *, after: int) -> Journal:
    """The journal of a path: appended to in place, or in segments on an object store."""
    return SegmentedJournal(path, after=after) if files.is_remote(path) else Journal(path, after=after)


def spool_of(folder: Path) -> Path:
    """Where this machine keeps the journals of a folder on an object store."""
    return journals_folder(os.environ) / hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def journals_in(folder: Path, pattern: str = "*.jsonl") -> list[Path]:
    """A folder's journals; those of an object store and of this machine where it is on one."""
    found = files.listed(folder, pattern)
    return found + files.listed(spool_of(folder), pattern) if files.is_remote(folder) else found


class SegmentedJournal(Journal):
    """A journal on this machine whose entries also go to ``path``'s store, as ``<name>.<n>.jsonl``."""

    def __init__(self, path: Path, *, after: int) -> None:
        spool = spool_of(path.parent)
        files.make_folder(spool)
        super().__init__(spool / path.name, after=after, copied=self._copy)
        self._remote = path
        self._opening = opening_line(after)
        self._waiting: list[bytes] = []
        self._timer: threading.Timer | None = None
        self._few = threading.Lock()
        self._putting = threading.Lock()
        self._segments: list[Path] = []

    def close(self) -> None:
        """Close the file and put what is left. An error of the store is a warning: the file has the entries."""
        super().close()
        with self._few:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._put()

    def discard(self) -> None:
        """Delete the file and the segments."""
        with self._few:
            self._waiting = []
        super().discard()
        for path in self._segments:
            files.remove(path)

    def _copy(self, line: bytes) -> None:
        if line == self._opening:
            return
        with self._few:
            self._waiting.append(line)
            full = len(self._waiting) >= ENTRIES
            if self._timer is not None and not full:
                return
            if self._timer is not None:
                self._timer.cancel()
            # A thread of its own either way: the engine's loop does not wait for the store.
            self._timer = threading.Timer(0.0 if full else SECONDS, self._put)
            self._timer.daemon = True
            self._timer.start()

    def _put(self) -> None:
        with self._putting:
            with self._few:
                lines, self._waiting, self._timer = self._waiting, [], None
            if not lines:
                return
            path = self._remote.with_name(f"{self._remote.stem}.{len(self._segments)}.jsonl")
            try:
                files.write_whole(path, self._opening + b"".join(lines))
                self._segments.append(path)
            except OutputError as error:
                logger.warning("%s; %d answers are on this machine only for now", error, len(lines))
                with self._few:
                    self._waiting = lines + self._waiting
