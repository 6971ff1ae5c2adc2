"""``OUT/runs/<run-id>.prom``: a run's counters, as the textfile collector of Prometheus' node_exporter reads them.

The text exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/), written by
``prometheus_client``, without timestamps, which the collector refuses. Names follow Prometheus' rules: base units,
``_total`` for what only grows. Every series has ``run_id``, since the collector refuses two files with equal series.
The file is replaced whole, so that a reader sees one state or the next.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol

from extractors.errors import OutputError
from schemas.usage import Usage

if TYPE_CHECKING:
    from prometheus_client import Metric

logger = logging.getLogger(__name__)

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds in seconds: those of ``gen_ai.client.operation.duration`` in OpenTelemetry's conventions."""
EVERY_SECONDS = 1.0
"""Refreshed at a commit, but not more often: no scraper reads faster, and each time is a file that is synced."""

State = Literal["running", "completed", "stopped", "failed"]
STATES: tuple[State, ...] = ("running", "completed", "stopped", "failed")


class Limits(Protocol):
    """What is read of ``LimitStats``."""

    window: int
    in_flight: int
    waits: int
    paced_seconds: float
    rate_limited: int
    overloaded: int


class Ceilings(Protocol):
    """What is read of a ``Budget``: the money and the tokens that are left; None: no such ceiling."""

    @property
    def left(self) -> tuple[Decimal | None, int | None]: ...


class Counts:
    """The sums of a run so far. Written by the run's thread only."""

    def __init__(self) -> None:
        self.rows = self.failures = self.skipped = self.planned = self.chunks = self.retries = 0
        self.reasons: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.usage = Usage()
        self.buckets = [0] * (len(DURATION_BUCKETS) + 1)
        self.seconds = 0.0
        self.limits: Limits | None = None
        self.ceilings: Ceilings | None = None
        self.started = time.time()
        self.updated = self.started
        self.state: State = "running"

    def latency(self, seconds: float) -> None:
        """One answered call."""
        self.buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds


class MetricsFile:
    """Writes ``Counts`` with ``write`` (a function of the text). A file that cannot be written costs one warning."""

    def __init__(
        self,
        counts: Counts,
        write: Callable[[bytes], None],
        *,
        labels: Mapping[str, str],
        info: Mapping[str, str],
        currency: str,
        every: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        self._write = write
        self._labels = dict(labels)
        self._info = dict(info)
        self._currency = currency
        self._every = every
        self._clock = clock
        self._next = clock()
        self._warned = False

    def refresh(self, *, now: bool = False) -> None:
        """Write the file if the last time is long enough ago, or in any case ``now``."""
        if not now and self._clock() < self._next:
            return
        self._next = self._clock() + self._every
        self._counts.updated = time.time()
        try:
            self._write(self.text())
        except (OutputError, OSError) as error:
            if not self._warned:
                self._warned = True
                logger.warning("the run goes on without its metrics file: %s", error)

    def text(self) -> bytes:
        """The file's content now."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._families))
        return generate_latest(registry)

    def _families(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        counts, limits = self._counts, self._counts.limits
        names, own = list(self._labels), list(self._labels.values())

        def one(kind: type[Metric], name: str, told: str, value: float | Decimal | None) -> Iterable[Metric]:
            if value is not None:
                yield many(kind, name, told, (), [((), float(value))])

        def many(
            kind: type[Metric],
            name: str,
            told: str,
            by: tuple[str, ...],
            values: Iterable[tuple[tuple[str, ...], float]],
        ) -> Metric:
            family = kind(name, told, labels=[*names, *by])  # type: ignore[call-arg]
            for which, value in values:
                family.add_metric([*own, *which], value)  # type: ignore[attr-defined]
            return family

        def each(values: Mapping[str, int]) -> list[tuple[tuple[str, ...], float]]:
            return [((name,), float(count)) for name, count in sorted(values.items())]

        counter, gauge = CounterMetricFamily, GaugeMetricFamily
        yield many(
            gauge, "quarry_run_info", "What the run is; always 1.", tuple(self._info), [(tuple(self._info.values()), 1)]
        )
        yield many(
            gauge,
            "quarry_run_state",
            "1 for the state that the run is in.",
            ("state",),
            [((state,), float(state == counts.state)) for state in STATES],
        )
        yield from one(gauge, "quarry_run_start_time_seconds", "When the run began, Unix time.", counts.started)
        yield from one(gauge, "quarry_run_update_time_seconds", "When this was written, Unix time.", counts.updated)
        outcomes = {"row": counts.rows, "failure": counts.failures, "skipped": counts.skipped}
        yield many(
            counter, "quarry_records", "Records by outcome; skipped: decided before.", ("outcome",), each(outcomes)
        )
        undone = counts.planned - counts.rows - counts.failures
        yield from one(gauge, "quarry_records_undone", "Records to be decided that are not yet.", undone)
        yield many(counter, "quarry_failures", "Failed records by reason.", ("reason",), each(counts.reasons))
        yield from one(counter, "quarry_chunks", "Chunks committed.", counts.chunks)
        yield many(
            counter, "quarry_calls", "HTTP tries of committed chunks by result.", ("result",), each(counts.calls)
        )
        yield from one(counter, "quarry_call_retries", "HTTP tries that followed a failed one.", counts.retries)
        family = HistogramMetricFamily("quarry_call_duration_seconds", "Seconds of answered live calls.", labels=names)
        total, buckets = 0, []
        for bound, count in zip((*map(str, DURATION_BUCKETS), "+Inf"), counts.buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric(own, buckets, counts.seconds)
        yield family
        usage = counts.usage
        tokens = {"input": usage.input_tokens, "output": usage.output_tokens}
        yield many(counter, "quarry_tokens", "Tokens by type.", ("type",), each(tokens))
        yield from one(counter, "quarry_cached_input_tokens", "Input tokens from a cache.", usage.cached_tokens)
        yield from one(counter, "quarry_reasoning_output_tokens", "Output tokens of thought.", usage.reasoning_tokens)
        currency = ("currency",)
        if usage.cost is not None:
            spent = [((self._currency,), float(usage.cost))]
            yield many(counter, "quarry_cost", "Money of committed chunks.", currency, spent)
        money, tokens_left = counts.ceilings.left if counts.ceilings is not None else (None, None)
        if money is not None:
            left = [((self._currency,), float(money))]
            yield many(gauge, "quarry_budget_cost_left", "Money left below --max-cost.", currency, left)
        yield from one(gauge, "quarry_budget_tokens_left", "Tokens left below --max-tokens.", tokens_left)
        if limits is not None:
            yield from one(counter, "quarry_rate_limited", "Tries answered with a 429.", limits.rate_limited)
            yield from one(counter, "quarry_overloaded", "Tries answered with a 5xx.", limits.overloaded)
            yield from one(counter, "quarry_limit_waits", "Calls that waited for a limit.", limits.waits)
            yield from one(counter, "quarry_limit_paced_seconds", "Seconds paced by a limit.", limits.paced_seconds)
            yield from one(gauge, "quarry_calls_in_flight", "Calls in flight.", limits.in_flight)
            yield from one(gauge, "quarry_calls_window", "Calls that may be in flight.", limits.window)


class _Families:
    """A collector, as ``prometheus_client`` calls what gives metrics."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._collect = families

    def collect(self) -> Iterable[Metric]:
        return self._collect()
