"""Request files: one model and one thinking setting in each, cut where the service's limits are reached."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from extractors.budget import Amount
from extractors.qwen.batch import BatchRules, request_line
from extractors.qwen.requests import ChatRequest
from extractors.store import files

_BUFFER = 1 << 20


@dataclass(slots=True)
class RequestFile:
    """A file that is being written, or is whole."""

    name: str
    tag: str
    model: str
    path: Path
    temp: Path
    file: BinaryIO
    lines: int = 0
    size: int = 0
    worst: Amount = field(default_factory=Amount)
    worst_line: Amount = field(default_factory=Amount)
    _digests: bytearray = field(default_factory=bytearray)
    """One after the other, for a list of a million would be large; all are of one length."""

    @property
    def digests(self) -> list[bytes]:
        """The requests' digests, in the order of the lines."""
        width = len(self._digests) // max(1, self.lines)
        return [bytes(self._digests[at : at + width]) for at in range(0, len(self._digests), max(1, width))]

    def add(self, line: bytes, digest: bytes, worst: Amount) -> None:
        """One request more. Raises ``OSError``."""
        self.file.write(line)
        self.lines += 1
        self.size += len(line)
        self._digests += digest
        self.worst += worst
        self.worst_line = Amount(max(self.worst_line.cost, worst.cost), max(self.worst_line.tokens, worst.tokens))

    def finish(self) -> None:
        """Whole and durable under its own name. Raises ``OutputError``."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            files.rename(self.temp, self.path)
        except OSError as error:
            raise files.explained(error, self.path) from error

    def drop(self) -> None:
        """It is not wanted after all."""
        self.file.close()
        files.remove(self.temp)
        files.remove(self.path)


class RequestFiles:
    """Writes requests to as many files as the rules ask for.

    ``named`` gives the name and the tag of the next file (the tag begins every ``custom_id`` in it), ``path`` its
    place. Whole files wait in ``whole`` to be taken."""

    def __init__(self, rules: BatchRules, *, named: Callable[[], tuple[str, str]], path: Callable[[str], Path]) -> None:
        self._rules = rules
        self._named = named
        self._path = path
        self._open: dict[tuple[str, bool | None, int | None], RequestFile] = {}
        self.whole: list[RequestFile] = []

    def too_long(self, body: bytes) -> str | None:
        """Why a request fits into no file; None when it does."""
        most = min(self._rules.line_bytes, self._rules.file_bytes)
        size = len(body) + 160
        if size <= most:
            return None
        return (
            f"the request is {size:,} bytes long, and a line of a batch may have {most:,}; "
            "ask this record with --lane live, or split it"
        )

    def add(self, request: ChatRequest, body: bytes, *, digest: str, worst: Amount) -> str:
        """Write one request that is not ``too_long``; the name of its file. Raises ``OutputError`` (a full disk)."""
        key = (request.model, request.thinking, request.thinking_budget)
        target = self._open.get(key)
        if target is not None and (
            target.lines >= self._rules.requests or target.size + len(body) + 160 > self._rules.file_bytes
        ):
            self._close(key)
            target = None
        try:
            if target is None:
                target = self._open[key] = self._new(request.model)
            line = request_line(f"{target.tag}{digest}", body, url=self._rules.url)
            target.add(line, bytes.fromhex(digest), worst)
        except OSError as error:
            raise files.explained(error, self._path("requests")) from error
        return target.name

    def finish(self) -> None:
        """Make the last files whole."""
        for key in list(self._open):
            self._close(key)

    def take(self) -> list[RequestFile]:
        """The whole files that nobody has taken yet."""
        taken, self.whole = self.whole, []
        return taken

    def drop(self) -> None:
        """Delete what is not taken."""
        for one in (*self._open.values(), *self.whole):
            one.drop()
        self._open.clear()
        self.whole = []

    def _new(self, model: str) -> RequestFile:
        name, tag = self._named()
        path = self._path(name)
        temp = files.temporary(path)
        return RequestFile(name, tag, model, path, temp, temp.open("wb", buffering=_BUFFER))

    def _close(self, key: tuple[str, bool | None, int | None]) -> None:
        done = self._open.pop(key)
        done.finish()
        self.whole.append(done)
