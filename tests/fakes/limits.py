"""Rate limits that answer real 429s: requests and tokens per minute and per second, growth, calls in flight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.fakes.asked import Asked
from tests.fakes.faults import Fault
from tests.fakes.told import input_tokens

_MINUTE = 60.0


@dataclass(slots=True)
class _Window:
    """What was let through in the last ``seconds``."""

    seconds: float
    entries: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def sum(self, now: float) -> int:
        while self.entries and now - self.entries[0][0] >= self.seconds:
            self.total -= self.entries.popleft()[1]
        return self.total

    def add(self, now: float, amount: int) -> None:
        self.entries.append((now, amount))
        self.total += amount


@dataclass(slots=True)
class Limits:
    """Limits of one account, for each model apart. None: no such limit.

    ``rpm`` and ``tpm`` hold per minute and, as documented, per second as well (a sixtieth, at least one);
    ``burst`` is the share by which one second may exceed that sixtieth. Refused requests count for nothing.
    """

    rpm: int | None = None
    tpm: int | None = None
    in_flight: int | None = None
    per_second: bool = True
    burst: float = 1.0
    retry_after: float | None = None
    """Seconds that a 429 tells to wait; None: it does not say."""
    refused: int = 0
    _requests: dict[str, tuple[_Window, _Window]] = field(default_factory=dict)
    _tokens: dict[str, tuple[_Window, _Window]] = field(default_factory=dict)

    def refusal(self, asked: Asked, now: float, in_flight: int) -> Fault | None:
        """The 429 that answers a request above a limit; None lets it through and counts it."""
        found = self._find(asked, now, in_flight)
        if found is not None:
            self.refused += 1
        return found

    def _find(self, asked: Asked, now: float, in_flight: int) -> Fault | None:
        if self.in_flight is not None and in_flight > self.in_flight:
            return self._fault("limit_requests", "Too many requests in flight, please try again later.")
        model = asked["model"]
        minute, second = self._requests.setdefault(model, (_Window(_MINUTE), _Window(1.0)))
        if self.rpm is not None:
            if minute.sum(now) + 1 > self.rpm:
                return self._fault("limit_requests", "You exceeded your current requests list.")
            if self.per_second and second.sum(now) + 1 > max(1.0, self.rpm / 60 * self.burst):
                return self._fault("limit_burst_rate", "Request rate increased too quickly. Scale requests smoothly.")
        tokens = input_tokens(asked)
        used, just_now = self._tokens.setdefault(model, (_Window(_MINUTE), _Window(1.0)))
        if self.tpm is not None:
            # The first one always passes: a request larger than the limit could never be answered.
            above = used.sum(now) and used.sum(now) + tokens > self.tpm
            ahead = just_now.sum(now) and just_now.sum(now) + tokens > self.tpm / 60 * self.burst
            if above or (self.per_second and ahead):
                return self._fault("insufficient_quota", "You exceeded your current quota: allocated quota exceeded.")
        for window, amount in ((minute, 1), (second, 1), (used, tokens), (just_now, tokens)):
            window.sum(now)
            window.add(now, amount)
        return None

    def _fault(self, code: str, words: str) -> Fault:
        return Fault.status(429, code, words, retry_after=self.retry_after)
