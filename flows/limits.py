"""A Prefect global limit as the pace of all machines together: taken a second's worth at a time, and strictly.

Make one with as many slots as calls a second, and the same decay::

    prefect gcl create qwen-calls --limit 10 --slot-decay-per-second 10

Prefect's own waiting is not used. It skips a limit that does not exist, and each refusal sets the limit's clock back
without giving back what had decayed by then (``concurrency_limits_v2.py``, seen in 3.8): machines that
wait and ask would starve each other. Here the limit is read, which changes nothing, and slots are taken only when
they should be there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from extractors.errors import JobError, ServerUnreachable
from extractors.pace import MARGIN

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds that Prefect's API may be away before the run ends."""
_LOCKED = 423


class _State(NamedTuple):
    """A global limit as it was read: slots taken at a time of the server's clock."""

    limit: int
    taken: float
    since: datetime
    decay: float
    active: bool


class GlobalRate:
    """A ``Permit`` by a Prefect global limit. Use ``global_rate``.

    A batch is ``ceil(decay)`` slots for ``floor(decay)`` calls, so that it never comes round in less than a second.
    Its calls are spread evenly, and what is not begun before the next machine may take its own lapses: so no
    second sees more calls than the limit's, whoever makes them. It costs two calls of Prefect's API a batch.
    """

    def __init__(
        self,
        name: str,
        client: SyncPrefectClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._client = client
        self._context = copy_context()
        self._clock = clock
        self._draw = draw
        self._asking = asyncio.Lock()
        self._left = 0
        self._lapses = self._next = 0.0
        self._slack = 0.0
        self._lost: float | None = None
        state = self._read()
        if not state.active:
            raise JobError(f"the Prefect limit {name!r} is not active: `prefect gcl enable {name}`")
        if state.decay <= 0:
            raise JobError(
                f"the Prefect limit {name!r} has no slot decay, so it is no rate: "
                f"`prefect gcl update {name} --slot-decay-per-second {state.limit}`"
            )
        self._slots = math.ceil(state.decay)
        self._calls = max(1, math.floor(state.decay))
        self._period = self._slots / state.decay
        self._apart = (1 + MARGIN) * self._period / self._calls
        if state.limit < self._slots:
            raise JobError(
                f"the Prefect limit {name!r} has fewer slots than decay in a second: "
                f"`prefect gcl update {name} --limit {self._slots}`"
            )
        if state.limit > self._slots:
            logger.warning("the Prefect limit %r lets up to %d calls through in one second", name, state.limit)

    async def __call__(self) -> float:
        """Seconds until it is worth asking again, or 0: one call may begin now."""
        async with self._asking:
            now = self._clock()
            if self._left and now < self._lapses:
                if now < self._next:
                    return self._next - now
                self._left -= 1
                self._next = now + self._apart
                return 0.0
            return await asyncio.to_thread(self._context.copy().run, self._take)

    def _take(self) -> float:
        """Take a batch, if its slots should be free by now."""
        try:
            state = self._read()
            elapsed = time.time() - state.since.timestamp()
            wait = (state.taken + self._slots - state.limit) / state.decay - elapsed + self._slack
            if wait > 0:
                # Everyone who waits reckons the same moment: the draw decides whose turn it is.
                return wait + self._draw() * self._period / 10
            asked = self._clock()
            self._client.increment_concurrency_slots(names=[self._name], slots=self._slots, mode="rate_limit")
        except httpx.HTTPStatusError as error:
            if error.response.status_code == _LOCKED:
                # Another machine was faster, or the clocks differ.
                self._slack = min(self._period, 2 * self._slack + self._period / 20)
                return self._period * (0.5 + self._draw() / 2)
            return self._trouble(error)
        except httpx.HTTPError as error:
            return self._trouble(error)
        self._lost = None
        self._slack /= 2
        self._left = self._calls - 1
        self._next = self._clock() + self._apart
        # The next batch may be granted a period after this one was, which was not before we asked.
        self._lapses = asked + self._period - self._apart
        return 0.0

    def _read(self) -> _State:
        """The limit as it is. Raises ``JobError`` where there is none."""
        try:
            found = self._client.read_global_concurrency_limit_by_name(self._name)
        except ObjectNotFound:
            raise JobError(
                f"there is no Prefect limit {self._name!r}: "
                f"`prefect gcl create {self._name} --limit 10 --slot-decay-per-second 10` makes one of 10 calls a second"
            ) from None
        if found.updated is None:
            raise JobError(f"the Prefect limit {self._name!r} does not say when it was taken from")
        return _State(found.limit, found.active_slots, found.updated, found.slot_decay_per_second, found.active)

    def _trouble(self, error: httpx.HTTPError) -> float:
        """Without the limit nothing may be asked: wait for Prefect to come back, but not for ever."""
        now = self._clock()
        self._lost = now if self._lost is None else self._lost
        if now - self._lost > _PATIENCE:
            raise ServerUnreachable(
                f"Prefect's API has not answered for {_PATIENCE:.0f} s ({type(error).__name__}), and without it the "
                f"limit {self._name!r} cannot be kept; run the same command again when it does"
            ) from error
        logger.warning("Prefect's API does not answer (%s): no call is made until it does", type(error).__name__)
        return 1.0


@contextmanager
def global_rate(name: str | None) -> Iterator[GlobalRate | None]:
    """The permit for a job's ``rate_limit_name``. Raises ``JobError`` for a limit that is missing or no rate."""
    if name is None:
        yield None
        return
    with get_client(sync_client=True) as client:
        yield GlobalRate(name, client)
