"""The journal of a chunk in flight: every finished call, durable before it counts.

One line an entry: CRC-32 in 8 hex digits, a space, compact JSON. Each is written by one ``write`` of
the kernel, which survives ``kill -9``; against power loss the file is synced once a second.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from extractors.store import files
from schemas.usage import Usage

logger = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0


class Journal:
    """Append-only; opened on the first entry, so that a chunk without calls leaves no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._synced = 0.0

    def append(self, request: str, entry: Mapping[str, Any]) -> None:
        """Keep a call's result under its request's digest. Raises ``OutputError``."""
        line = orjson.dumps({"request": request, **entry}, default=_plain)
        data = b"%08x %b\n" % (zlib.crc32(line), line)
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                self._synced = time.monotonic()
            written = os.write(self._file, data)
            if written != len(data):
                os.write(self._file, data[written:])
            if (now := time.monotonic()) - self._synced >= _SYNC_SECONDS:
                os.fdatasync(self._file)
                self._synced = now
        except OSError as error:
            raise files.explained(error, self._path) from error

    def close(self) -> None:
        """Close the file; the entries stay."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """The chunk is committed: its journal has done its work."""
        self.close()
        files.remove(self._path)


class Replay:
    """The answers that earlier, interrupted runs left behind, by request digest."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._entries: dict[str, dict[str, Any]] = {}
        for path in paths:
            self._read(path)

    def get(self, request: str) -> dict[str, Any] | None:
        """The entry of a request that was answered before."""
        return self._entries.get(request)

    def __len__(self) -> int:
        return len(self._entries)

    def discard(self) -> None:
        """Nothing is undone any more: delete the files."""
        for path in self._paths:
            files.remove(path)
        self._paths = []

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        lines = data.split(b"\n")
        if lines[-1]:
            logger.info("%s ends in the middle of a line: the run was killed while writing it", path)
        for number, line in enumerate(lines[:-1], start=1):
            checksum, _, text = line.partition(b" ")
            if checksum != b"%08x" % zlib.crc32(text):
                logger.warning("%s, line %d is damaged: that call is asked again", path, number)
                continue
            entry = orjson.loads(text)
            self._entries[entry["request"]] = entry


def result_entry(result: ChatReply | CallError) -> dict[str, Any]:
    """A call's result as JSON values; ``entry_result`` is its exact inverse."""
    usage = result.usage
    entry: dict[str, Any] = {
        "usage": [
            usage.calls,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            None if usage.cost is None else str(usage.cost),
        ],
        "model": result.model,
        "latency": result.latency,
        "started_at": result.started_at,
        "earlier": [result_entry(one) for one in result.earlier],
    }
    if isinstance(result, ChatReply):
        entry |= {
            "text": _clean(result.text),
            "finish_reason": result.finish_reason,
            "thinking": _clean(result.thinking),
        }
    else:
        entry |= {
            "kind": result.kind.value,
            "message": _clean(result.message),
            "http_status": result.http_status,
            "code": result.code,
            "retry_after": result.retry_after,
            "body": _clean(result.body),
        }
    return entry


def entry_result(entry: Mapping[str, Any]) -> ChatReply | CallError:
    """The result that ``result_entry`` wrote."""
    calls, input_tokens, output_tokens, cached, reasoning, cost = entry["usage"]
    usage = Usage(calls, input_tokens, output_tokens, cached, reasoning, None if cost is None else Decimal(cost))
    earlier = tuple(one for one in map(entry_result, entry["earlier"]) if isinstance(one, CallError))
    if "text" in entry:
        return ChatReply(
            text=entry["text"],
            finish_reason=entry["finish_reason"],
            usage=usage,
            model=entry["model"],
            latency=entry["latency"],
            thinking=entry["thinking"],
            started_at=entry["started_at"],
            earlier=earlier,
        )
    return CallError(
        kind=ErrorKind(entry["kind"]),
        message=entry["message"],
        model=entry["model"],
        http_status=entry["http_status"],
        code=entry["code"],
        retry_after=entry["retry_after"],
        body=entry["body"],
        latency=entry["latency"],
        usage=usage,
        started_at=entry["started_at"],
        earlier=earlier,
    )


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8; they become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _plain(value: Any) -> Any:
    return str(value)
