"""The layer of a call that tells of it when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from extractors.errors import BudgetReached
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest
from extractors.telemetry.conventions import Server, Told, told

logger = logging.getLogger(__name__)


class Traced:
    """A ``Call`` that gives ``tell`` what became of another one, in the conventions' words.

    It belongs outside of every policy, since a span covers a call with all its tries. One that was never sent (the run
    was stopped, the budget spent) is not told, and neither is one that is cancelled in flight: when it began, only the
    transport knew. An error of ``tell`` costs a warning, once, and nothing more is told.
    """

    def __init__(
        self, call: Call, tell: Callable[[Told], None], server: Server, *, content: bool = False, secret: str = ""
    ) -> None:
        self._call = call
        self._tell: Callable[[Told], None] | None = tell
        self._server = server
        self._content = content
        self._secret = secret

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask, and tell."""
        try:
            result = await self._call(request)
        except BudgetReached as reached:
            if reached.earlier:
                self._told(request, replace(reached.earlier[-1], earlier=reached.earlier[:-1]))
            raise
        self._told(request, result)
        return result

    def _told(self, request: ChatRequest, result: ChatReply | CallError) -> None:
        if self._tell is None:
            return
        try:
            found = told(request, result, self._server, content=self._content, secret=self._secret)
            if found is not None:
                self._tell(found)
        except Exception as error:  # noqa: BLE001 - what looks on must not break what it looks at
            self._tell = None
            logger.warning("telemetry failed (%s): calls are not told any more", type(error).__name__)
