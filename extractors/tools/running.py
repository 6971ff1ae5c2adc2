"""Runs look-ups: arguments checked, one time-out each, results as JSON of a bounded length.

A function that is not async runs in a thread of its own, an async one in an event loop that look-ups share, so that
neither holds up the engine. Python cannot end a thread: one whose time is up goes on unheard, and when ``MOST_LEFT``
do, look-ups fail at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from extractors.tools.requests import ToolRequest, ToolResult, Trouble
from extractors.tools.toolbox import Tool, Toolbox

logger = logging.getLogger(__name__)

MOST_RESULT = 20_000
"""Characters of a result as JSON at most: it goes into every later question about the record."""
MOST_AT_ONCE = 32
"""Look-ups that run at the same time."""
MOST_LEFT = 64
"""Threads that may go on after their time was up."""
_SAID = 300


class ToolRunner:
    """Runs the look-ups of one engine. ``close`` waits for nothing."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._running = 0
        """Threads that run a function."""
        self._waited_for = 0
        """Those of them whose time is not up."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, request: ToolRequest) -> ToolResult:
        """What came of a look-up. Raises nothing but ``CancelledError``, where its own task is cancelled."""
        tool = self._toolbox.tools.get(request.tool)
        if tool is None:
            names = ", ".join(self._toolbox.tools)
            return ToolResult(None, Trouble.UNKNOWN, f"there is no function {request.tool!r}; there are {names}")
        try:
            arguments = _arguments(tool, request.arguments)
        except ValidationError as error:
            return ToolResult(None, Trouble.ARGUMENTS, _told(error))
        async with self._places:
            return await self._timed(tool, arguments)

    def close(self) -> None:
        """Give up what still runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    async def _timed(self, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        limit = self._toolbox.timeout
        with self._lock:
            left = self._running - self._waited_for
        if left >= MOST_LEFT:
            said = f"{left} earlier look-ups have not come back in their {limit:g} s; no more are begun"
            return ToolResult(None, Trouble.TIMED_OUT, said, started_at=time.time())
        started_at, start = time.time(), time.perf_counter()
        running = asyncio.wrap_future(self._begun(tool, arguments))
        threads = tool.run is not None
        self._waited_for += threads
        try:
            await asyncio.wait([running], timeout=limit)
        finally:
            self._waited_for -= threads
            # One that is done stays as it is.
            late = running.cancel()
        text, trouble, message = None, None, ""
        if late:
            trouble, message = Trouble.TIMED_OUT, f"no result within {limit:g} s"
        elif running.cancelled():
            # By what it awaits, which is no cancelling of the record's task.
            trouble, message = Trouble.RAISED, "CancelledError: what it waited for was cancelled"
        elif (error := running.exception()) is None:
            text = running.result()
        elif isinstance(error, _Unfit):
            trouble, message = Trouble.RESULT, str(error)
        else:
            logger.info("the look-up %s failed", tool.spec.name, exc_info=error)
            trouble, message = Trouble.RAISED, _line(error)
        return ToolResult(text, trouble, message, time.perf_counter() - start, started_at)

    def _begun(self, tool: Tool, arguments: dict[str, Any]) -> concurrent.futures.Future[str]:
        if tool.run_async is not None:
            return asyncio.run_coroutine_threadsafe(_awaited(tool, arguments), self._own_loop())
        future: concurrent.futures.Future[str] = concurrent.futures.Future()
        here = copy_context()
        with self._lock:
            self._running += 1
        threading.Thread(
            target=lambda: here.run(self._work, tool, arguments, future),
            name=f"quarry-tool-{tool.spec.name}",
            daemon=True,
        ).start()
        return future

    def _work(self, tool: Tool, arguments: dict[str, Any], future: concurrent.futures.Future[str]) -> None:
        assert tool.run is not None
        try:
            text = _as_json(tool.run(arguments))
        except BaseException as error:  # noqa: BLE001 -- a function may even call exit()
            if future.set_running_or_notify_cancel():
                future.set_exception(_as_exception(error))
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(text)
        finally:
            with self._lock:
                self._running -= 1

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(self._loop,), name="quarry-tools", daemon=True).start()
        return self._loop


class _Unfit(Exception):
    """A result that cannot be told to a model."""


class _Raised(Exception):
    """What a future takes no exception of, such as ``SystemExit``, as one."""


def _arguments(tool: Tool, text: str) -> dict[str, Any]:
    """The arguments as Python values. Raises ``ValidationError``."""
    found = tool.arguments.model_validate_json(text.strip() or "{}")
    return {name: getattr(found, name) for name in type(found).model_fields}


async def _awaited(tool: Tool, arguments: dict[str, Any]) -> str:
    assert tool.run_async is not None
    try:
        return _as_json(await tool.run_async(arguments))
    except (SystemExit, KeyboardInterrupt) as error:
        # It would end the loop for all.
        raise _as_exception(error) from None


def _as_exception(error: BaseException) -> Exception:
    """The error as one that a future takes: it takes no ``StopIteration``, and nothing that would end a loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return _Raised(f"{type(error).__name__}: {error}".removesuffix(": "))


def _as_json(value: Any) -> str:
    """The result as JSON text. Raises ``_Unfit``."""
    try:
        text = to_json(value, inf_nan_mode="null").decode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _Unfit(f"the result is a {type(value).__name__}, which is no JSON: {_line(error)}") from error
    if len(text) > MOST_RESULT:
        raise _Unfit(f"the result has {len(text):,} characters; {MOST_RESULT:,} at most are told to a model")
    return text


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(_turn())
    loop.close()


def _turn() -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0)


def _told(error: ValidationError) -> str:
    """The problems in one line, in the words that the model can mend them by."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'/'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"] for one in problems[:5]
    )[:_SAID]


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split())[:_SAID]
    return said if isinstance(error, _Raised) else f"{type(error).__name__}: {said}" if said else type(error).__name__
