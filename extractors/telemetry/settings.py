"""What the standard OpenTelemetry variables ask for. Reads the environment only; imports nothing of OpenTelemetry.

Names and meanings: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. What is not read here (headers, certificates, time-outs,
compression, sampling, batch sizes, resource attributes) the SDK reads by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURES = ("span_only", "span_and_event", "true")
"""Its values that put content on spans; ``true`` is the older spelling."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Which signals are sent, and whether prompts and answers go with them."""

    traces: bool
    metrics: bool
    content: bool = False

    @property
    def wanted(self) -> bool:
        """Whether anything is sent at all."""
        return self.traces or self.metrics

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> TelemetrySettings:
        """A signal is sent when an endpoint is set for it or for all, unless its exporter is ``none`` or
        ``OTEL_SDK_DISABLED`` is ``true``. What is asked for and cannot be done costs a warning, not the run."""
        if _read(environ, "OTEL_SDK_DISABLED") == "true":
            return cls(traces=False, metrics=False)
        return cls(
            traces=_signal(environ, "TRACES"),
            metrics=_signal(environ, "METRICS"),
            content=_read(environ, CAPTURE_VARIABLE) in _CAPTURES,
        )


def _signal(environ: Mapping[str, str], signal: str) -> bool:
    endpoint = (
        environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ""
    ).strip()
    if not endpoint:
        return False
    exporters = {one.strip() for one in _read(environ, f"OTEL_{signal}_EXPORTER").split(",")} - {""} or {"otlp"}
    if "otlp" not in exporters:
        if exporters != {"none"}:
            logger.warning(
                "OTEL_%s_EXPORTER=%s is not known: only otlp and none are", signal, ",".join(sorted(exporters))
            )
        return False
    protocol = _read(environ, f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or _read(environ, "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        logger.warning(
            "no %s are sent: the protocol %s is not spoken, only http/protobuf (OTEL_EXPORTER_OTLP_PROTOCOL; a collector "
            "takes it on port 4318)",
            signal.lower(),
            protocol,
        )
        return False
    try:
        parts = urlsplit(endpoint)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit:
        # The address itself may hold a password.
        logger.warning("no %s are sent: OTEL_EXPORTER_OTLP_ENDPOINT is no http(s) address", signal.lower())
    return fit


def _read(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip().lower()
