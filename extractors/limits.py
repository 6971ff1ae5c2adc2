"""How many calls at once, and how many a minute: this run's door to what its account takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from extractors.account import Account, LimitStats
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest

__all__ = ["LimitStats", "Limited", "Permit", "rough_tokens"]

Permit = Callable[[], Awaitable[float]]
"""Asks a limit that is counted elsewhere, for all machines say: the seconds until it is worth asking again, or 0:
one call may begin now, and is counted. Raises ``QuarryError`` when the limit cannot be asked."""


class Limited:
    """A ``Call`` that lets at most ``concurrency`` calls through at once, in the order they came, within what its
    ``account`` takes (``Account``; one of its own if none is given). Close it when the run ends.

    ``rpm`` and ``tpm`` are spread evenly, since services enforce a sixtieth of them every second. The tokens
    of a call are estimated before (``estimate``) and set right after. A wait holds a place in the window,
    so whatever waits for long, like a retry, belongs outside. Cancelling a waiting call gives its place on.
    ``stopped`` says that waiting is over: who is here goes on at once, to be turned away behind.
    """

    def __init__(
        self,
        call: Call,
        *,
        concurrency: int,
        rpm: int | None = None,
        tpm: int | None = None,
        ramp: float = 0.0,
        account: Account | None = None,
        permit: Permit | None = None,
        estimate: Callable[[ChatRequest], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._call = call
        self._account = account or Account()
        self._share = self._account.join(concurrency=concurrency, rpm=rpm, tpm=tpm, ramp=ramp)
        self._permit = permit
        self._estimate = estimate or rough_tokens
        self._sleep = sleep
        self._clock = clock
        self._stopped = stopped
        self._turn = asyncio.Lock()
        self.stats = self._share.stats

    def close(self) -> None:
        """Give up the share in the account."""
        self._account.leave(self._share)

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask when there is room."""
        account, share = self._account, self._share
        epoch = await account.enter(share)
        result: ChatReply | CallError | None = None
        estimated = 0
        try:
            if account.paced or self._permit is not None:
                estimated = await self._pace(request)
                epoch = account.epoch
            result = await self._call(request)
            return result
        finally:
            account.leave_room(share, epoch, result, estimated=estimated)

    async def _pace(self, request: ChatRequest) -> int:
        """Wait for this call's turn; gives the estimated tokens. Only the first in line asks the account, so that
        who gives up takes nothing from the others."""
        began = self._clock()
        estimated = self._estimate(request)
        waited = False
        async with self._turn:
            while not self._stopped() and (wait := self._account.wait(self._clock(), estimated)) > 0:
                waited = True
                await self._sleep(wait)
            while self._permit is not None and not self._stopped() and (wait := await self._permit()) > 0:
                waited = True
                await self._sleep(wait)
        if waited:
            self.stats.waits += 1
            self.stats.paced_seconds += self._clock() - began
        return estimated


def rough_tokens(request: ChatRequest) -> int:
    """About how many tokens a call takes: a token for four bytes of the messages, and a quarter of the output
    that it may give, 512 at most."""
    sent = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return sent // 4 + min(request.max_output_tokens // 4, 512) + 1
