"""How soon the next call may begin: so many a minute, spread evenly; and a gentle start. Pure: time is an argument."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MARGIN = 0.1
"""Seconds of jitter between here and the provider's counter that do no harm; costs an eleventh of the rate."""
_LATE = 0.05
"""Seconds that may be caught up after this process woke too late. Any longer pause is not saved up."""


class Pace:
    """At most ``per_minute`` units, and in any ``1 + MARGIN`` seconds at most a sixtieth of them, rounded down:
    services enforce that sixtieth each second. A single call of more units than that goes alone."""

    def __init__(self, per_minute: int) -> None:
        self._next = float("-inf")
        self._begun: deque[list[float]] = deque()
        """When units were taken in the last window, and how many."""
        self._sum = 0.0
        self.set_rate(per_minute)

    def set_rate(self, per_minute: int) -> None:
        """Another rate from now on; what was taken still counts."""
        allowed = per_minute / 60
        self._allowed = math.floor(allowed) or 1
        self._each = (1 + MARGIN) / (math.floor(allowed) or allowed)

    def wait(self, now: float, units: float) -> float:
        """Seconds until so many units may be taken."""
        begun = self._begun
        while begun and now - begun[0][0] >= 1 + MARGIN:
            self._sum -= begun.popleft()[1]
        wait = max(0.0, self._next - now)
        if self._sum > 0 and self._sum + units > self._allowed:
            wait = max(wait, begun[0][0] + 1 + MARGIN - now)
        return wait

    def take(self, now: float, units: float) -> None:
        """Take them, right after a ``wait`` of 0."""
        self._begun.append([now, units])
        self._sum += units
        due = self._next if now - self._next <= _LATE else now
        self._next = due + units * self._each

    def correct(self, units: float) -> None:
        """An earlier guess was off by so many units."""
        self._next += units * self._each
        if self._begun:
            # Which of them it was does not matter within a second.
            self._begun[-1][1] += units
            self._sum += units

    def is_past(self, now: float) -> bool:
        """Whether nothing that was taken still counts."""
        return self._next <= now and (not self._begun or now - self._begun[-1][0] >= 1 + MARGIN)


@dataclass(slots=True)
class Ramp:
    """The first ``calls`` begin evenly over ``seconds``: a provider that guards against steep growth sees a slope."""

    seconds: float
    calls: int
    _since: float | None = None
    _begun: int = 0

    def wait(self, now: float) -> float:
        """Seconds until the next one may begin."""
        if self._since is None:
            self._since = now
        return max(0.0, self._since + self.seconds * self._begun / self.calls - now)

    def take(self, now: float) -> bool:
        """One begins; True when it was the last that is held back."""
        self._begun += 1
        return self._begun >= self.calls
