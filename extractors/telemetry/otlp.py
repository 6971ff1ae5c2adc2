"""Sends a run's spans and metrics over OTLP, from threads of the OpenTelemetry SDK, and never waits for them.

Imported only when an endpoint is configured (``TelemetrySettings``), because OpenTelemetry takes a tenth of a second to
import. The providers are a run's own: nothing global is set, so an application's OpenTelemetry is left as it is; its
current span, or the one that ``TRACEPARENT`` names, is the parent of the run's.

The span queue is bounded and drops what does not fit; a collector that is down, slow or refuses costs one warning; and
the end of a run waits ``FLUSH_SECONDS`` for the last batch, no longer.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extractors.telemetry.conventions import OPERATION, SCHEMA_URL, Attribute, Told
from extractors.telemetry.ids import CHUNK, RECORD, RUN
from extractors.telemetry.metrics_file import DURATION_BUCKETS
from extractors.telemetry.settings import TelemetrySettings

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 3.0
_QUEUE = 8192
"""Spans that may wait: some seconds of a fast run. ``OTEL_BSP_MAX_QUEUE_SIZE`` says otherwise."""
_TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
"""1 to 67,108,864: the conventions' advice for ``gen_ai.client.token.usage``."""
_OF_METRICS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)
_NANO = 1_000_000_000
_PARENT: ContextVar[Context | None] = ContextVar("quarry_span", default=None)
_SDK_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
)


class Otlp:
    """One run's traces and metrics: ``begin`` it, ``end`` it with its sums, ``close`` it to send what is left."""

    def __init__(self, settings: TelemetrySettings, *, service_version: str) -> None:
        self._trouble = trouble = _Trouble()
        self._made = 0
        _hush()
        given = {SERVICE_VERSION: service_version}
        if "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") and not os.environ.get(
            "OTEL_SERVICE_NAME"
        ):
            given[SERVICE_NAME] = "quarry"
        resource = Resource.create(given)
        self._spans: TracerProvider | None = None
        self._meters: MeterProvider | None = None
        self._exporters: list[_Spans | _Metrics] = []
        self._sender: _Spans | None = None
        if settings.traces:
            self._sender = spans = _Spans(trouble)
            size = None if os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) else _QUEUE
            self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._spans.add_span_processor(BatchSpanProcessor(spans, max_queue_size=size))
            self._exporters.append(spans)
        if settings.metrics:
            metrics = _Metrics(trouble)
            reader = PeriodicExportingMetricReader(metrics)
            self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
            self._exporters.append(metrics)
        self._tracer = (self._spans or trace.NoOpTracerProvider()).get_tracer(
            "quarry", service_version, schema_url=SCHEMA_URL
        )
        self._metrics = _Instruments(self._meters, service_version) if self._meters is not None else None
        self._run: Span | None = None

    # The run and its chunks ---------------------------------------------------------------------

    def begin(self, attributes: Mapping[str, Attribute], *, workflow: str) -> None:
        """The run's own span."""
        carrier = {"traceparent": os.environ.get("TRACEPARENT", ""), "tracestate": os.environ.get("TRACESTATE", "")}
        here = trace.get_current_span().get_span_context().is_valid
        parent = None if here else TraceContextTextMapPropagator().extract(carrier)
        self._run = self._tracer.start_span(
            f"invoke_workflow {workflow}",
            context=parent,
            attributes={
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": workflow,
                **attributes,
            },
        )

    def begin_chunk(self, chunk: str) -> Any:
        """A chunk's span, from which the calls of this task hang until ``end_chunk``."""
        span = self._tracer.start_span(
            "chunk",
            context=trace.set_span_in_context(self._run) if self._run is not None else None,
            attributes={"quarry.run.id": RUN.get() or "", "quarry.chunk.id": chunk},
        )
        token = _PARENT.set(trace.set_span_in_context(span))
        return span, token

    def end_chunk(self, begun: Any, attributes: Mapping[str, Attribute], *, error: str | None) -> None:
        """What became of it."""
        span, token = begun
        _PARENT.reset(token)
        _finish(span, attributes, error)

    def end(self, attributes: Mapping[str, Attribute], *, error: str | None) -> None:
        """The run's span ends, with its sums."""
        if self._run is not None:
            _finish(self._run, attributes, error)
            self._run = None

    # Calls --------------------------------------------------------------------------------------

    def call(self, told: Told) -> None:
        """A span of a call that has ended, and its metrics."""
        if self._spans is not None:
            span = self._tracer.start_span(
                f"{OPERATION} {told.attributes['gen_ai.request.model']}",
                context=_PARENT.get(),
                kind=SpanKind.CLIENT,
                start_time=int(told.start * _NANO),
                attributes={
                    **told.attributes,
                    "quarry.run.id": RUN.get() or "",
                    "quarry.chunk.id": CHUNK.get() or "",
                    "quarry.record.id": RECORD.get() or "",
                },
            )
            self._made += span.is_recording()  # a sampler may have chosen to leave this trace out
            for at, failure in told.failed_tries:
                span.add_event("quarry.try.failed", failure, timestamp=int(at * _NANO))
            if told.error is not None:
                span.set_status(Status(StatusCode.ERROR, told.error))
            span.end(end_time=int(told.end * _NANO))
        if self._metrics is not None:
            self._metrics.call(told)

    def chunk_committed(self, outcomes: Mapping[str, int], cost: float | None, currency: str) -> None:
        """Records by outcome, and money."""
        if self._metrics is not None:
            self._metrics.committed(outcomes, cost, currency)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is left, for some seconds at most; what cannot be sent by then is dropped."""
        flushing = threading.Thread(target=self._shut_down, name="quarry-otlp-flush", daemon=True)
        flushing.start()
        flushing.join(seconds)
        if flushing.is_alive():
            self._trouble.late(seconds, self._exporters[0]._endpoint)
            # Ends the waits between an exporter's tries; its thread is a daemon, and no exit waits for it.
            for exporter in self._exporters:
                exporter.shutdown()
        elif self._sender is not None and self._sender.sent < self._made:
            self._trouble.drop(self._made - self._sender.sent)

    def _shut_down(self) -> None:
        for provider in (self._spans, self._meters):
            if provider is not None:
                provider.shutdown()


def _finish(span: Span, attributes: Mapping[str, Attribute], error: str | None) -> None:
    span.set_attributes(attributes)
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR, error))
    span.end()


class _Instruments:
    """The metrics of the conventions, and Quarry's own. No ids among the attributes: each would be a new series."""

    def __init__(self, provider: MeterProvider, version: str) -> None:
        meter = provider.get_meter("quarry", version, schema_url=SCHEMA_URL)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self._records = meter.create_counter("quarry.records", unit="{record}", description="Records by outcome.")
        self._cost = meter.create_counter("quarry.cost", unit="{currency}", description="Money by currency.")

    def call(self, told: Told) -> None:
        named = {name: told.attributes[name] for name in _OF_METRICS if name in told.attributes}
        ended = named if told.error is None else {**named, "error.type": told.error}
        self._duration.record(max(0.0, told.end - told.start), ended)
        for kind in ("input", "output"):
            tokens = told.attributes.get(f"gen_ai.usage.{kind}_tokens")
            if isinstance(tokens, int):
                self._tokens.record(tokens, {**named, "gen_ai.token.type": kind})

    def committed(self, outcomes: Mapping[str, int], cost: float | None, currency: str) -> None:
        for outcome, count in outcomes.items():
            if count:
                self._records.add(count, {"quarry.record.outcome": outcome})
        if cost:
            self._cost.add(cost, {"quarry.currency": currency})


class _Trouble:
    """Says once that nothing arrives."""

    def __init__(self) -> None:
        self._said = False

    def refused(self, what: str, endpoint: str) -> None:
        """An export failed."""
        self._say("%s cannot be sent to %s; the run goes on without (is a collector there?)", what, _where(endpoint))

    def late(self, seconds: float, endpoint: str) -> None:
        """The run has ended before everything was sent."""
        self._say("the last spans and metrics could not be sent to %s within %.0f s", _where(endpoint), seconds)

    def drop(self, spans: int) -> None:
        """The queue was full, or an export failed."""
        self._say("%d spans were dropped: the collector is slower than the run (OTEL_BSP_MAX_QUEUE_SIZE)", spans)

    def _say(self, message: str, *values: object) -> None:
        if not self._said:
            self._said = True
            logger.warning("telemetry: " + message, *values)


def _where(endpoint: str) -> str:
    """The host and port; not the address as it was given, which may hold a password."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class _Spans(OTLPSpanExporter):
    def __init__(self, trouble: _Trouble) -> None:
        super().__init__()
        self._trouble = trouble
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._trouble.refused("spans", self._endpoint)
        else:
            self.sent += sum(span.kind is SpanKind.CLIENT for span in spans)
        return result


class _Metrics(OTLPMetricExporter):
    def __init__(self, trouble: _Trouble) -> None:
        super().__init__()
        self._trouble = trouble

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        if result is not MetricExportResult.SUCCESS:
            self._trouble.refused("metrics", self._endpoint)
        return result


class _Drop(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


_DROP = _Drop()


def _hush() -> None:
    """The SDK's own lines about an export that failed: one for each batch, with the address in them."""
    for name in _SDK_LOGGERS:
        quiet = logging.getLogger(name)
        if _DROP not in quiet.filters:
            quiet.addFilter(_DROP)
