"""How many calls at once, and how many a minute: an adaptive window, and two paced schedules."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, ErrorKind

logger = logging.getLogger(__name__)

_CUT = 0.75
_SUCCESSES_A_STEP = 25


@dataclass(slots=True)
class LimitStats:
    """What the limiter sees. ``window`` is how many calls may be in flight now; ``waits`` counts calls
    that had to queue or were paced; ``paced_seconds`` is the time they were paced for."""

    window: int
    in_flight: int = 0
    most_in_flight: int = 0
    waits: int = 0
    paced_seconds: float = 0.0
    rate_limited: int = 0
    overloaded: int = 0
    cuts: int = 0


class Limited:
    """A ``Call`` that lets at most ``concurrency`` calls through at once, in the order they came.

    The window starts full. A 429 cuts it to three quarters, and so does a burst of 5xx (at least two, and
    a twentieth of the window, since the last cut); calls that began before a cut cannot cause another, so
    that one burst is one cut. 25 answers in a row of any length widen it by one. It stays within 1 and
    ``concurrency``.

    ``rpm`` and ``tpm`` are spread evenly, since services enforce a sixtieth of them every second. The tokens
    of a call are estimated before (``estimate``) and set right after. A wait holds a place in the window,
    so whatever waits for long, like a retry, belongs outside. Cancelling a waiting call gives its place on.
    """

    def __init__(
        self,
        call: Call,
        *,
        concurrency: int,
        rpm: int | None = None,
        tpm: int | None = None,
        estimate: Callable[[ChatRequest], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._call = call
        self._concurrency = concurrency
        self._estimate = estimate or rough_tokens
        self._sleep = sleep
        self._clock = clock
        self._requests = _Schedule(rpm) if rpm else None
        self._tokens = _Schedule(tpm) if tpm else None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._epoch = 0
        self._good = 0
        self._broken = 0
        self.stats = LimitStats(window=concurrency)

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask when there is room."""
        stats = self.stats
        if stats.in_flight < stats.window and not self._waiting:
            stats.in_flight += 1
        else:
            await self._queue()
        if stats.in_flight > stats.most_in_flight:
            stats.most_in_flight = stats.in_flight
        try:
            estimated = await self._pace(request) if self._requests or self._tokens else 0
            epoch = self._epoch
            result = await self._call(request)
            if self._tokens is not None:
                used = result.usage.total_tokens
                # A reply that tells no usage took what was estimated; an error that tells none took nothing.
                self._tokens.correct((used or (estimated if isinstance(result, ChatReply) else 0)) - estimated)
            if isinstance(result, ChatReply):
                self._succeeded()
            elif result.kind is ErrorKind.RATE_LIMITED or result.kind is ErrorKind.OVERLOADED:
                self._pushed_back(result, epoch)
            return result
        finally:
            stats.in_flight -= 1
            if self._waiting:
                self._wake()

    async def _queue(self) -> None:
        self.stats.waits += 1
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # Let in and cancelled in the same moment: the room goes to the next.
                self.stats.in_flight -= 1
            else:
                # ``_wake`` may have passed over it already.
                with suppress(ValueError):
                    self._waiting.remove(place)
            self._wake()
            raise

    def _wake(self) -> None:
        stats = self.stats
        while self._waiting and stats.in_flight < stats.window:
            place = self._waiting.popleft()
            if not place.done():
                stats.in_flight += 1
                place.set_result(None)

    async def _pace(self, request: ChatRequest) -> int:
        """Wait for this call's turn in both schedules; gives the estimated tokens."""
        now = self._clock()
        estimated = 0
        turn = now
        if self._requests is not None:
            turn = max(turn, self._requests.take(now, 1))
        if self._tokens is not None:
            estimated = self._estimate(request)
            turn = max(turn, self._tokens.take(now, estimated))
        if turn > now:
            self.stats.waits += 1
            self.stats.paced_seconds += turn - now
            await self._sleep(turn - now)
        return estimated

    def _succeeded(self) -> None:
        self._good += 1
        if self._good >= _SUCCESSES_A_STEP:
            self._good = 0
            if self.stats.window < self._concurrency:
                self.stats.window += 1

    def _pushed_back(self, error: CallError, epoch: int) -> None:
        stats = self.stats
        if error.kind is ErrorKind.RATE_LIMITED:
            stats.rate_limited += 1
        else:
            stats.overloaded += 1
        if epoch != self._epoch:
            return
        if error.kind is ErrorKind.OVERLOADED:
            self._broken += 1
            if self._broken < max(2, stats.window / 20):
                return
        self._epoch += 1
        self._good = self._broken = 0
        narrower = max(1, int(stats.window * _CUT))
        if narrower < stats.window:
            stats.window = narrower
            stats.cuts += 1
            logger.info("%s: %d calls at once from now on", error.kind.value, narrower)


class _Schedule:
    """Turns spread evenly over time: each unit takes its share of a minute. Unused time is not saved up."""

    def __init__(self, per_minute: int) -> None:
        self._each = 60.0 / per_minute
        self._next = float("-inf")

    def take(self, now: float, units: int) -> float:
        """When a call of so many units may go; the time after it is taken."""
        turn = max(now, self._next)
        self._next = turn + units * self._each
        return turn

    def correct(self, units: int) -> None:
        """The last estimate was off by so many units."""
        self._next += units * self._each


def rough_tokens(request: ChatRequest) -> int:
    """About how many tokens a call takes: a token for four bytes of the messages, and a quarter of the output
    that it may give, 512 at most."""
    sent = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return sent // 4 + min(request.max_output_tokens // 4, 512) + 1
