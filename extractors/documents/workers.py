"""The processes that convert documents: a few, reused, ended when one takes too long, started again when one dies."""

from __future__ import annotations

import atexit
import base64
import contextlib
import os
import queue
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from extractors.documents.converted import Converted, DocumentLimits, Unreadable

_LENGTH = struct.Struct(">I")
_PATH = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
"""Where the process finds this package, without the folder in which the command was run: data may lie there."""
_SEVERAL = 500
"""Documents after which a process is replaced: what a parser leaks ends with it."""
_AHEAD = 2
"""Documents in work for each process, so that none waits for the reader."""


class DocumentWorkers:
    """Converts documents in ``count`` processes. Use it as a context manager, or close it; any thread may ask.

    A document that takes longer than its limit, or ends its process, costs nothing but itself."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or max(1, min(4, os.cpu_count() or 1))
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all = [_Process() for _ in range(self._count)]
        for process in self._all:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="quarry-documents")

    def __enter__(self) -> DocumentWorkers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.end()

    def converted(self, paths: Iterable[str], limits: DocumentLimits) -> Iterator[tuple[str, Converted | str]]:
        """Each path with its document, or with what is wrong with it, in the order given. A few are converted ahead."""
        waiting: list[tuple[str, Future[Converted | str]]] = []
        source = iter(paths)
        try:
            while True:
                for path in source:
                    waiting.append((path, self._threads.submit(self.convert, path, limits)))
                    if len(waiting) >= self._count * _AHEAD:
                        break
                if not waiting:
                    return
                path, first = waiting.pop(0)
                yield path, first.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def convert(self, path: str, limits: DocumentLimits) -> Converted | str:
        """One document, or what is wrong with it in words that go on after its name."""
        answer = self._ask({"do": "convert"}, path, limits)
        if "problem" in answer:
            return str(answer["problem"])
        return Converted(**(answer | {"pictures": tuple(answer["pictures"])}))

    def boxes(
        self, path: str, spans: Mapping[int, Sequence[tuple[int, int, str]]], limits: DocumentLimits
    ) -> dict[int, list[tuple[float, float, float, float] | None]]:
        """Where spans of a PDF's pages (start, end, quote) stand; nothing for a page that cannot be read (any more)."""
        answer = self._ask({"do": "boxes", "spans": {str(page): each for page, each in spans.items()}}, path, limits)
        return {
            int(page): [None if one is None else tuple(one) for one in found]
            for page, found in answer.get("boxes", {}).items()
        }

    def picture(self, path: str, page: int, limits: DocumentLimits) -> bytes:
        """A page as PNG. Raises ``Unreadable``."""
        answer = self._ask({"do": "picture", "page": page}, path, limits)
        if "problem" in answer:
            raise Unreadable(str(answer["problem"]))
        return base64.b64decode(answer["png"])

    def _ask(self, question: dict[str, Any], path: str, limits: DocumentLimits) -> dict[str, Any]:
        process = self._idle.get()
        # A file's name is bytes, and not always UTF-8.
        named = {"path": base64.b64encode(os.fsencode(path)).decode(), "limits": limits.as_dict()}
        try:
            return process.ask(question | named, seconds=limits.seconds)
        finally:
            self._idle.put(process)


class _Process:
    """One worker process, started when it is first asked."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._closed = False
        self._lock = threading.Lock()

    def ask(self, question: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """The answer; a ``problem`` where the process took too long or died."""
        running = self._started()
        try:
            self._write(running, orjson.dumps(question, option=orjson.OPT_NON_STR_KEYS))
            body = self._read(running, time.monotonic() + seconds)
        except TimeoutError:
            self.end(closed=False)
            return {"problem": f"took longer than {seconds:g} s to read (document_timeout)"}
        except (OSError, EOFError):
            code = self.end(closed=False)
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return {
                "problem": f"made its reader end ({how}): it is broken, or needs more memory than a document may take"
            }
        self._asked += 1
        if self._asked >= _SEVERAL:
            self.end()
            self._closed = False
        answer: dict[str, Any] = orjson.loads(body)
        return answer

    def end(self, *, closed: bool = True) -> int | None:
        """End the process now, and for good if ``closed``. Its exit code."""
        with self._lock:
            self._closed = self._closed or closed
            running, self._running = self._running, None
        if running is None:
            return None
        if not closed:
            # One that is dying by itself keeps its own exit code.
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(timeout=0.2)
        running.kill()
        code = running.wait()
        for pipe in (running.stdin, running.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the document workers are closed")
            if self._running is None or self._running.poll() is not None:
                self._asked = 0
                # The parser's words about a broken file are nobody's business; what counts is told in the answer.
                self._running = subprocess.Popen(
                    [sys.executable, "-P", "-m", "extractors.documents.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": _PATH},
                    start_new_session=True,
                )
            return self._running

    @staticmethod
    def _write(running: subprocess.Popen[bytes], body: bytes) -> None:
        assert running.stdin is not None
        running.stdin.write(_LENGTH.pack(len(body)) + body)
        running.stdin.flush()

    @staticmethod
    def _read(running: subprocess.Popen[bytes], deadline: float) -> bytes:
        """One answer. Raises ``TimeoutError``, and ``EOFError`` when the process is gone."""
        assert running.stdout is not None
        pipe = running.stdout.fileno()
        held = bytearray()
        wanted = _LENGTH.size
        with selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            while len(held) < wanted:
                left = deadline - time.monotonic()
                if left <= 0 or not waiting.select(left):
                    raise TimeoutError
                block = os.read(pipe, 1 << 20)
                if not block:
                    raise EOFError
                held += block
                if wanted == _LENGTH.size and len(held) >= _LENGTH.size:
                    wanted += _LENGTH.unpack(held[: _LENGTH.size])[0]
        return bytes(held[_LENGTH.size :])


@cache
def shared() -> DocumentWorkers:
    """The workers of this process, for what is asked of documents while a run goes on; ended with it."""
    workers = DocumentWorkers(2)
    atexit.register(workers.close)
    return workers
