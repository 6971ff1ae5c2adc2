"""Asking again after errors that pass: backoff with full jitter, the provider's own wishes first."""

from __future__ import annotations

import asyncio
import logging
import random as _random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from extractors.errors import BudgetReached
from extractors.qwen.errors_table import patience
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest

logger = logging.getLogger(__name__)

RETRY_AFTER_CAP = 300.0


class Retrying:
    """A ``Call`` that makes another one up to ``attempts`` times while its errors are ``retryable``.

    Other errors (the request's fault, refusals, a rejected key) and answers of any quality come back at
    once. Before try n+1 it waits a random time up to ``min(cap, base * 2**n)`` seconds; after ``Retry-After``
    it waits that long (at most 300 s) and a little more, so that callers do not come back as one; after a
    quota error, at least half of what the error table says. It gives up when a wait would end past
    ``total_seconds``, which counts the tries' own time and the waits between them, but not the time spent
    queueing for a slot. The result's ``earlier`` holds the failed tries, oldest first, and so does that of a
    ``BudgetReached`` that ends them.

    ``sleep`` and ``random`` (0 <= x < 1) are arguments for tests. Wrap a ``Limited`` with it, not the other
    way round: a wait must not hold a slot.
    """

    def __init__(
        self,
        call: Call,
        *,
        attempts: int = 4,
        total_seconds: float = 900.0,
        base: float = 0.5,
        cap: float = 60.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if attempts < 1:
            raise ValueError("attempts must be at least 1")
        self._call = call
        self._attempts = attempts
        self._total = total_seconds
        self._base = base
        self._cap = cap
        self._sleep = sleep
        self._random = random

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask, and ask again where that may help."""
        result = await self._call(request)
        if isinstance(result, ChatReply) or not result.retryable:
            return result
        earlier: tuple[CallError, ...] = ()
        spent = 0.0
        for tried in range(1, self._attempts):
            wait = self._wait(result, tried)
            spent += result.latency + wait
            if spent > self._total:
                break
            logger.info("%s after try %d, again in %.1f s: %s", result.kind.value, tried, wait, result.message[:200])
            earlier = (*earlier, result)
            await self._sleep(wait)
            try:
                result = await self._call(request)
            except BudgetReached as reached:
                reached.earlier = earlier
                raise
            if isinstance(result, ChatReply) or not result.retryable:
                break
        return replace(result, earlier=earlier) if earlier else result

    def _wait(self, error: CallError, tried: int) -> float:
        if error.retry_after is not None:
            return min(error.retry_after, RETRY_AFTER_CAP) + self._random() * self._base
        least = patience(error) / 2
        return least + self._random() * max(min(self._cap, self._base * 2.0 ** (tried - 1)), least)
