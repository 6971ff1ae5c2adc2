"""The journal of a chunk in flight: every finished call, durable before it counts.

One line an entry: CRC-32 in 8 hex digits, a space, compact JSON. Each is written by one ``write`` of
the kernel, which survives ``kill -9``; against power loss the file is synced once a second.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from extractors.qwen.requests import CallError, ChatReply, ErrorKind, Logprobs, Mode, ToolCall
from extractors.store import files
from schemas.usage import Usage

logger = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0
RETRY = "retry-"
"""What the journals of a retry begin with: a run over the source must not take their answers for left over."""

PACKED = "-packed"
"""After a request's digest: the share of a record that was asked among several and not answered, so that it is asked
alone. Its own answer, once there is one, holds the share among its ``earlier`` ones."""


def _not_copied(line: bytes) -> None:
    """Nothing."""


class Journal:
    """Append-only; opened on the first entry, so that a chunk without calls leaves no file.

    Its first line says after which commit it was begun: only later commits can have used its answers.
    """

    def __init__(self, path: Path, *, after: int = 0, copied: Callable[[bytes], None] = _not_copied) -> None:
        """``copied`` gets each entry once it is in the file."""
        self._path = path
        self._after = after
        self._copied = copied
        self._log: files.Log | None = None
        self._synced = 0.0

    def append(self, request: str, entry: Mapping[str, Any]) -> None:
        """Keep a call's result under its request's digest. Raises ``OutputError``; then the entry is not kept,
        and those before it are."""
        self.append_all([(request, entry)])

    def append_all(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Keep several requests' results, in one write: a process that is killed leaves all of them or none."""
        try:
            if self._log is None:
                self._log = files.Log(self._path, end=b"\n")
                self._synced = time.monotonic()
                if not self._log.size:
                    self._keep(opening_line(self._after))
            self._keep(*(_line({"request": request, **entry}) for request, entry in entries))
            if (now := time.monotonic()) - self._synced >= _SYNC_SECONDS:
                self._log.sync()
                self._synced = now
        except OSError as error:
            raise files.explained(error, self._path) from error

    def _keep(self, *lines: bytes) -> None:
        assert self._log is not None
        self._log.append(b"".join(lines))
        for line in lines:
            self._copied(line)

    def close(self) -> None:
        """Close the file; the entries stay."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def discard(self) -> None:
        """The chunk is committed: its journal has done its work."""
        self.close()
        files.remove(self._path)


class Replay:
    """The answers that earlier, interrupted runs left behind, by request digest.

    ``after`` is the sequence of the last commit before the oldest of them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.after = 0
        self._paths = list(paths)
        self._read_to: dict[Path, int] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._retried: dict[Path, list[str]] = {}
        starts = [after for path in paths if (after := self._read(path)) is not None]
        if starts:
            self.after = min(starts)

    def get(self, request: str) -> dict[str, Any] | None:
        """The entry of a request that was answered before."""
        return self._entries.get(request)

    def __len__(self) -> int:
        return len(self._entries)

    def forget(self, requests: Iterable[str]) -> None:
        """These answers have become outcomes; who asks the same again wants another answer."""
        for request in requests:
            self._entries.pop(request, None)

    def discard(self) -> None:
        """Nothing is undone any more: delete the files. A retry's stay while one of their answers is unused: it
        was paid for, and the same retry asks for it again."""
        waiting = [path for path, asked in self._retried.items() if any(one in self._entries for one in asked)]
        for path in self._paths:
            if path not in waiting:
                files.remove(path)
        self._paths = waiting

    def add(self, paths: Sequence[Path]) -> None:
        """Take these files' entries too; of a file that was read before, those that were written since."""
        self._paths += [path for path in paths if path not in self._read_to]
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> int | None:
        """Take a file's entries; gives the commit after which it was begun (0: not known). None for a file that is
        gone: its chunk was committed since the folder was listed, by the flow that this worker works for."""
        after = 0
        try:
            held = files.read(path)
        except FileNotFoundError:
            return None
        begin = self._read_to.get(path, 0)
        lines = held[begin:].split(b"\n")
        # A line without its end may be in the middle of being written, by a worker that lives.
        self._read_to[path] = len(held) - len(lines[-1])
        read_before = held.count(b"\n", 0, begin)
        for number, line in enumerate(lines, start=1):
            checksum, _, text = line.partition(b" ")
            if checksum != b"%08x" % zlib.crc32(text):
                if number < len(lines):
                    line_number = read_before + number
                    logger.warning("%s, line %d is damaged: that call is asked again", path, line_number)
                elif line:
                    logger.info("%s ends in the middle of a line: the run was killed while writing it", path)
                continue
            entry = _parsed(text)
            if "request" in entry:
                self._entries[entry["request"]] = entry
                if path.name.startswith(RETRY):
                    self._retried.setdefault(path, []).append(entry["request"])
            else:
                after = entry["after"]
        return after


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
        "mode": result.mode,
    }
    if result.pack is not None:
        entry["pack"] = result.pack
    if isinstance(result, ChatReply):
        entry |= {
            "text": result.text,
            "finish_reason": result.finish_reason,
            "thinking": result.thinking,
        }
        if result.logprobs is not None:
            entry["logprobs"] = [result.logprobs.ends, result.logprobs.values]
        if result.tool_calls:
            entry["tool_calls"] = [[call.id, call.name, call.arguments] for call in result.tool_calls]
    else:
        entry |= {
            "kind": result.kind.value,
            "message": result.message,
            "http_status": result.http_status,
            "code": result.code,
            "retry_after": result.retry_after,
            "body": result.body,
        }
    return entry


def entry_result(entry: Mapping[str, Any]) -> ChatReply | CallError:
    """The result that ``result_entry`` wrote."""
    calls, input_tokens, output_tokens, cached, reasoning, cost = entry["usage"]
    usage = Usage(calls, input_tokens, output_tokens, cached, reasoning, None if cost is None else Decimal(cost))
    earlier = tuple(one for one in map(entry_result, entry["earlier"]) if isinstance(one, CallError))
    mode = None if entry.get("mode") is None else Mode(entry["mode"])
    if "text" in entry:
        tokens = entry.get("logprobs")
        return ChatReply(
            text=entry["text"],
            finish_reason=entry["finish_reason"],
            usage=usage,
            model=entry["model"],
            latency=entry["latency"],
            thinking=entry["thinking"],
            started_at=entry["started_at"],
            earlier=earlier,
            mode=mode,
            logprobs=None if tokens is None else Logprobs(tuple(tokens[0]), tuple(tokens[1])),
            tool_calls=tuple(ToolCall(*call) for call in entry.get("tool_calls", ())),
            pack=entry.get("pack"),
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
        mode=mode,
        pack=entry.get("pack"),
    )


def opening_line(after: int) -> bytes:
    """The first line of a journal."""
    return _line({"after": after})


def _line(entry: Mapping[str, Any]) -> bytes:
    try:
        text = orjson.dumps(entry)
    except TypeError:
        # Lone surrogates: orjson refuses them, the standard library escapes them.
        text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = json.loads(text)
    assert isinstance(found, dict)
    return found
