"""How many requests arrived, and when."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """Counts of one server. Only the server's thread writes to it; times are of ``time.monotonic``."""

    count: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    left_early: int = 0
    """Streams and replies that the client closed before their end."""
    arrivals: array[float] = field(default_factory=lambda: array("d"))

    def rates(self, seconds: float = 1.0) -> list[int]:
        """Arrivals in each window of ``seconds``, one after the other from the first arrival on."""
        found: list[int] = []
        for at in self.arrivals:
            window = int((at - self.arrivals[0]) / seconds)
            found += [0] * (window + 1 - len(found))
            found[window] += 1
        return found

    def highest_rate(self, seconds: float = 1.0) -> int:
        """The most arrivals in any window of ``seconds``, wherever it begins."""
        return most_within(self.arrivals, seconds)

    def forget(self) -> None:
        self.count = self.most_in_flight = self.left_early = 0
        del self.arrivals[:]


def most_within(times: array[float], seconds: float) -> int:
    """The most of rising ``times`` in any half-open window of ``seconds``."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
