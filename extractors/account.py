"""What one model of one account takes, shared by every run of this process: calls in flight, requests and tokens a
minute.

Providers count an account and a model, not a run. Each run holds a ``Share``; runs may live in event loops and
threads of their own, so counting happens under a lock, and who waits is woken in its own loop. Nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic import SecretStr

from extractors.pace import Pace, Ramp
from extractors.qwen.errors_table import Limit, row_of
from extractors.qwen.requests import CallError, ChatReply, ErrorKind

logger = logging.getLogger(__name__)

_CUT = 0.75
_MOST_A_STEP = 25
_LONGEST_RAMP = 16.0
_INSTANT = 1e-6


@dataclass(slots=True)
class LimitStats:
    """What a run sees of the limits. ``window`` is how many calls the account may have in flight now;
    ``waits`` counts calls that had to queue or were paced; ``paced_seconds`` is the time they were paced for."""

    window: int
    in_flight: int = 0
    most_in_flight: int = 0
    waits: int = 0
    paced_seconds: float = 0.0
    rate_limited: int = 0
    overloaded: int = 0
    cuts: int = 0


@dataclass(slots=True, eq=False)
class Place:
    """A call that waits to be let in."""

    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    let_in: bool = False

    def wake(self) -> None:
        """Let it go on, in its own loop."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self._go()
        else:
            self.loop.call_soon_threadsafe(self._go)

    def _go(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


@dataclass(slots=True, eq=False)
class Share:
    """One run's part in an account: its own ceilings, and its calls that wait."""

    concurrency: int
    rpm: int | None
    tpm: int | None
    stats: LimitStats
    waiting: deque[Place] = field(default_factory=deque)
    gone: bool = False
    """It has left, and its places with it; a call of it that ends later gives none back."""

    @property
    def has_room(self) -> bool:
        """Whether one more of this run's calls may be in flight."""
        return self.stats.in_flight < self.concurrency


class Account:
    """The limits of one model of one account. Safe to use from any thread.

    The window of calls in flight starts full: the largest ``concurrency`` of the runs that share it. A 429 cuts
    it to three quarters, and so does a burst of 5xx (at least two, and a twentieth of the window, since the last
    cut); calls that began before a cut cannot cause another, so that one burst is one cut. 25 answers in a row of any
    length widen it by one. Runs take turns at it, and none passes its own ``concurrency``.

    Of the runs' ``rpm`` and ``tpm`` the lowest holds for all. A 429 that says that calls began too steeply starts a
    ramp: the next window of calls begins evenly over a second, over two the next time, up to 16.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: deque[Share] = deque()
        self._requests: Pace | None = None
        self._tokens: Pace | None = None
        self._ramp: Ramp | None = None
        self._ramp_seconds = 0.0
        self._epoch = self._good = self._broken = 0
        self.window = 0
        self.in_flight = 0
        self.paced = False
        """Whether calls must ask ``wait`` before they begin."""

    def join(self, *, concurrency: int, rpm: int | None = None, tpm: int | None = None, ramp: float = 0.0) -> Share:
        """A run begins. ``ramp`` is over how many seconds its first window of calls is spread."""
        with self._lock:
            before = self._ceiling()
            share = Share(concurrency, rpm, tpm, LimitStats(concurrency))
            self._shares.append(share)
            if not before:
                self.window = concurrency
                self._good = self._broken = 0
                self._ramp_seconds = ramp
                self._ramp = Ramp(ramp, concurrency) if ramp else None
            else:
                self.window += max(0, concurrency - before)
            self._set_paces()
            share.stats.window = self.window
            return share

    def leave(self, share: Share) -> None:
        """A run has ended. The places of calls that are still in flight, where it was broken off, are given back."""
        with self._lock:
            if share.gone:
                return
            share.gone = True
            self._shares.remove(share)
            self.in_flight -= share.stats.in_flight
            self.window = min(self.window, self._ceiling())
            self._set_paces()
            self._admit()

    def idle(self, now: float) -> bool:
        """Whether nothing needs to be remembered of it."""
        with self._lock:
            paces = [pace for pace in (self._requests, self._tokens) if pace is not None]
            return not self._shares and all(pace.is_past(now) for pace in paces)

    async def enter(self, share: Share) -> int:
        """Wait for room; gives the epoch that ``leave_room`` wants back. Cancelling gives the place on."""
        with self._lock:
            if not share.waiting and share.has_room and self.in_flight < self.window:
                self._let_in(share)
                return self._epoch
            loop = asyncio.get_running_loop()
            place = Place(loop, loop.create_future())
            share.waiting.append(place)
            share.stats.waits += 1
        try:
            await place.turn
        except asyncio.CancelledError:
            with self._lock:
                if place.let_in:
                    # Let in and cancelled in the same moment: the room goes to the next.
                    self._give_back(share)
                elif place in share.waiting:
                    share.waiting.remove(place)
                self._admit()
            raise
        return self._epoch

    def wait(self, now: float, tokens: int) -> float:
        """Seconds until a call of so many tokens may begin; 0: it begins now, and is counted."""
        with self._lock:
            wait = self._requests.wait(now, 1) if self._requests is not None else 0.0
            if self._tokens is not None:
                wait = max(wait, self._tokens.wait(now, tokens))
            if self._ramp is not None:
                wait = max(wait, self._ramp.wait(now))
            if wait > _INSTANT:
                return wait
            if self._requests is not None:
                self._requests.take(now, 1)
            if self._tokens is not None:
                self._tokens.take(now, tokens)
            if self._ramp is not None and self._ramp.take(now):
                self._ramp = None
                self._set_paces()
            return 0.0

    @property
    def epoch(self) -> int:
        """Counts the cuts: a call that began before one cannot cause the next."""
        return self._epoch

    def leave_room(self, share: Share, epoch: int, result: ChatReply | CallError | None, *, estimated: int = 0) -> None:
        """A call has ended (None: with an exception); its room goes to who waits, and its result is learned from."""
        with self._lock:
            self._give_back(share)
            if result is not None:
                if self._tokens is not None:
                    # A reply that tells no usage took what was estimated; an error that tells none took nothing.
                    used = result.usage.total_tokens or (estimated if isinstance(result, ChatReply) else 0)
                    self._tokens.correct(used - estimated)
                if isinstance(result, ChatReply):
                    self._good += 1
                    if self._good >= min(_MOST_A_STEP, self.window):
                        self._good = 0
                        self.window = min(self.window + 1, self._ceiling())
                elif result.kind is ErrorKind.RATE_LIMITED or result.kind is ErrorKind.OVERLOADED:
                    self._pushed_back(share.stats, result, epoch)
            share.stats.window = self.window
            self._admit()

    def _pushed_back(self, stats: LimitStats, error: CallError, epoch: int) -> None:
        if error.kind is ErrorKind.RATE_LIMITED:
            stats.rate_limited += 1
        else:
            stats.overloaded += 1
        if epoch != self._epoch:
            return
        if error.kind is ErrorKind.OVERLOADED:
            self._broken += 1
            if self._broken < max(2, self.window / 20):
                return
        self._epoch += 1
        self._good = self._broken = 0
        if row_of(error).limit is Limit.BURST:
            self._ramp_seconds = min(_LONGEST_RAMP, 2 * self._ramp_seconds or 1.0)
            self._ramp = Ramp(self._ramp_seconds, self.window)
            self._set_paces()
        narrower = max(1, int(self.window * _CUT))
        if narrower < self.window:
            self.window = narrower
            stats.cuts += 1
            logger.info("%s: %d calls at once from now on", error.kind.value, narrower)

    def _admit(self) -> None:
        """Let in who waits while there is room, each run in its turn."""
        passed = 0
        while self.in_flight < self.window and passed < len(self._shares):
            share = self._shares[0]
            if share.waiting and share.has_room:
                passed = 0
                place = share.waiting.popleft()
                place.let_in = True
                self._let_in(share)
                place.wake()
            else:
                passed += 1
            self._shares.rotate(-1)

    def _let_in(self, share: Share) -> None:
        self.in_flight += 1
        stats = share.stats
        stats.in_flight += 1
        if stats.in_flight > stats.most_in_flight:
            stats.most_in_flight = stats.in_flight

    def _give_back(self, share: Share) -> None:
        share.stats.in_flight -= 1
        if not share.gone:
            self.in_flight -= 1

    def _ceiling(self) -> int:
        return max((share.concurrency for share in self._shares), default=0)

    def _set_paces(self) -> None:
        rpm = min((share.rpm for share in self._shares if share.rpm), default=None)
        tpm = min((share.tpm for share in self._shares if share.tpm), default=None)
        self._requests = _at(self._requests, rpm, keep=not self._shares)
        self._tokens = _at(self._tokens, tpm, keep=not self._shares)
        self.paced = self._requests is not None or self._tokens is not None or self._ramp is not None


def _at(pace: Pace | None, per_minute: int | None, *, keep: bool) -> Pace | None:
    """The pace at another rate. What was begun a moment ago still counts, also for a run that comes next."""
    if per_minute is None:
        return pace if keep else None
    if pace is None:
        return Pace(per_minute)
    pace.set_rate(per_minute)
    return pace


class Accounts:
    """The accounts that this process has calls at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], Account] = {}

    def at(self, address: str, key: SecretStr, model: str, *, now: float) -> Account:
        """The account of a model at an address under a key, of which only a hash is kept."""
        secret = key.get_secret_value().encode()
        name = (urlsplit(address).netloc, hashlib.blake2b(secret, digest_size=16).hexdigest(), model)
        with self._lock:
            for other in [known for known, account in self._known.items() if known != name and account.idle(now)]:
                del self._known[other]
            return self._known.setdefault(name, Account())


ACCOUNTS = Accounts()
"""Those of this process."""
