"""One call before the fan-out, so that the prefix which all share is in the provider's cache when the others come.

A cache entry is written when the reply has ended, so parallel first calls all miss and all pay the full price
(the provider's page on context caches). Replayed answers need none of this: they never come here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from extractors.qwen.profiles import Profile
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, Purpose

logger = logging.getLogger(__name__)

LONGEST = 30.0
"""Seconds after which the others go anyway."""
_LEAST = {"implicit": 256, "explicit": 1024}
"""Tokens below which a prefix is not cached, by the kind of cache."""
_BYTES_A_TOKEN = 4


def worth_waiting_for(profile: Profile) -> bool:
    """Whether a repeated prefix is cheaper there. The embedded server and unknown servers keep a prefix for each slot,
    which a single call does not fill."""
    return profile.cache != "none" and not (profile.loopback or profile.embedded)


class WarmUp:
    """A ``Call`` whose first one goes alone: the others wait until it has ended, well or not, for ``longest``
    seconds at most. Put it outside of the limits and retries: who waits here holds no slot and no money.

    A prefix that is too short to be cached is not waited for. ``sleep`` may end early, as it does when the run is
    stopped: then all go on, to be turned away behind.
    """

    def __init__(
        self,
        call: Call,
        *,
        profile: Profile,
        longest: float = LONGEST,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._call = call
        self._least = _LEAST.get(profile.cache, 0) * _BYTES_A_TOKEN
        self._longest = longest
        self._sleep = sleep
        self._warm = asyncio.Event()
        self._begun = False

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask; the first one at once, those that come meanwhile when it has ended."""
        if self._warm.is_set() or request.purpose is not Purpose.EXTRACT or _prefix(request) < self._least:
            return await self._call(request)
        if self._begun:
            await self._warm.wait()
            return await self._call(request)
        self._begun = True
        clock = asyncio.create_task(self._give_up())
        try:
            result = await self._call(request)
        finally:
            clock.cancel()
            self._warm.set()
        logger.info("the prefix of %s is warm: %d tokens of it were cached before", request.model, _cached(result))
        return result

    async def _give_up(self) -> None:
        await self._sleep(self._longest)
        self._warm.set()


def _prefix(request: ChatRequest) -> int:
    """Bytes of what stands before the record."""
    return sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages[:-1])


def _cached(result: ChatReply | CallError) -> int:
    return result.usage.cached_tokens
