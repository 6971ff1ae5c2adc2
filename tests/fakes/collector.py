"""An OTLP/HTTP collector on loopback: keeps the spans and metrics that it is sent, or refuses, or is slow."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class FakeCollector:
    """Use it as a context manager; ``url`` is what ``OTEL_EXPORTER_OTLP_ENDPOINT`` takes."""

    def __init__(self, *, status: int = 200, delay: float = 0.0) -> None:
        self.status = status
        self.delay = delay
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                time.sleep(collector.delay)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Who is slow is left: nothing to say."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Span]:
        """Every span that came, in the order of coming."""
        return [span for resource in self._traces() for scope in resource.scope_spans for span in scope.spans]

    @property
    def resource(self) -> dict[str, Any]:
        """Who sent the first spans."""
        return attributes(next(self._traces()).resource)

    @property
    def schema_urls(self) -> set[str]:
        """Which version of the conventions the spans say that they follow."""
        return {scope.schema_url for resource in self._traces() for scope in resource.scope_spans}

    @property
    def metrics(self) -> dict[str, Metric]:
        """The last state of each metric."""
        found = {}
        for path, _, body in self.posts:
            if path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    found |= {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
        return found

    def _traces(self) -> Iterator[Any]:
        for path, _, body in self.posts:
            if path == "/v1/traces":
                yield from ExportTraceServiceRequest.FromString(body).resource_spans


def attributes(holder: Any) -> dict[str, Any]:
    """The attributes of a span, an event, a data point or a resource as plain values."""
    return {one.key: _value(one.value) for one in holder.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, str(kind))
