"""Looks on while a run goes: keeps its metrics file, sends its spans, and says in the log what happens.

The pipeline, the engine and the call each tell it what they do; none of them waits for it, and no error of it reaches
them. Without an OTLP endpoint there is no layer around the call, and nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from extractors.errors import QuarryError
from extractors.qwen.requests import Call
from extractors.report import RunReport
from extractors.telemetry.conventions import Attribute, Server
from extractors.telemetry.ids import CHUNK, RUN, within
from extractors.telemetry.metrics_file import Ceilings, Counts, Limits, MetricsFile
from extractors.telemetry.settings import TelemetrySettings
from extractors.telemetry.traced import Traced

if TYPE_CHECKING:
    from extractors.engine import ChunkDone
    from extractors.store.plan import PlanCounts
    from extractors.telemetry.otlp import Otlp

logger = logging.getLogger(__name__)


class Observer:
    """A run's. A context manager: inside, the log knows the run; at the end what is left is sent."""

    def __init__(
        self,
        run_id: str,
        *,
        info: Mapping[str, str],
        currency: str,
        write: Callable[[bytes], None],
        settings: TelemetrySettings | None = None,
        secret: SecretStr | None = None,
    ) -> None:
        self._run_id = run_id
        self._info = dict(info)
        self._currency = currency
        self._settings = settings or TelemetrySettings.from_environment(os.environ)
        self._secret = secret or SecretStr("")
        self._otlp: Otlp | None = None
        self._token: Token[str | None] | None = None
        self._ended = False
        self.counts = Counts()
        self._file = MetricsFile(self.counts, write, labels={"run_id": run_id}, info=self._info, currency=currency)

    def __enter__(self) -> Self:
        self._token = RUN.set(self._run_id)
        with self._safely():
            if self._settings.wanted:
                from extractors.telemetry.otlp import Otlp

                self._otlp = Otlp(self._settings, service_version=version("quarry"))
                told: dict[str, Attribute] = {f"quarry.{name}": value for name, value in self._info.items()}
                told |= {"quarry.run.id": self._run_id, "gen_ai.request.model": self._info["model"]}
                self._otlp.begin(told, workflow=self._info["schema"])
        logger.info("run begins: %s", self._info["schema"], extra=self._info)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not self._ended:
            self._end("failed", {}, error=_named(error))
            logger.error("run ends with an error: %s", _named(error))
        with self._safely():
            if self._otlp is not None:
                self._otlp.close()
        if self._token is not None:
            RUN.reset(self._token)

    def layer(self, address: str, *, embedded: bool) -> Callable[[Call], Call] | None:
        """What tells of each call to the model at this address; None where nobody listens."""
        if (otlp := self._otlp) is None:
            return None
        server, secret = Server.at(address, embedded=embedded), self._secret.get_secret_value()
        return lambda call: Traced(call, otlp.call, server, content=self._settings.content, secret=secret)

    def limited_by(self, limits: Limits) -> None:
        """The limiter's counters, to be read whenever the file is written."""
        self.counts.limits = limits

    def bounded_by(self, ceilings: Ceilings) -> None:
        """What is left below the ceilings."""
        self.counts.ceilings = ceilings

    def planned(self, counts: PlanCounts) -> None:
        """How many records there are, and how many are to be decided."""
        self.counts.planned = counts.new
        self.counts.skipped = counts.records - counts.new
        logger.info(
            "%d records: %d already done, %d to do",
            counts.records,
            self.counts.skipped,
            counts.new,
            extra={"records": counts.records, "skipped": self.counts.skipped, "planned": counts.new},
        )
        self._file.refresh()

    @contextmanager
    def chunk(self, chunk_id: str, size: int) -> Iterator[dict[str, Attribute]]:
        """The engine works on a chunk; what it puts into the dict becomes its span's attributes."""
        with within(RUN, self._run_id), within(CHUNK, chunk_id):
            begun = None
            with self._safely():
                begun = self._otlp.begin_chunk(chunk_id) if self._otlp is not None else None
            failed: str | None = None
            sums: dict[str, Attribute] = {"quarry.chunk.records": size}
            try:
                yield sums
            except BaseException as error:
                failed = _named(error)
                raise
            finally:
                with self._safely():
                    if self._otlp is not None and begun is not None:
                        self._otlp.end_chunk(begun, sums, error=failed)

    def chunk_done(self, done: ChunkDone) -> None:
        """A chunk has ended; count it and refresh the file."""
        counts, commit = self.counts, done.commit
        counts.retries += done.retries
        counts.calls.update(done.tries_by_status)
        counts.reasons.update(done.failures_by_reason)
        for seconds in done.latencies:
            counts.latency(seconds)
        if commit is None:
            return
        counts.chunks += 1
        counts.rows += commit.rows
        counts.failures += commit.failures
        counts.usage += commit.usage
        with within(CHUNK, done.chunk):
            logger.info(
                "chunk committed: %d rows, %d failures",
                commit.rows,
                commit.failures,
                extra={"rows": commit.rows, "failures": commit.failures, "tries": done.tries},
            )
        cost = commit.usage.cost
        with self._safely():
            if self._otlp is not None:
                outcomes = {"row": commit.rows, "failure": commit.failures}
                self._otlp.chunk_committed(outcomes, None if cost is None else float(cost), self._currency)
        self._file.refresh()

    def ended(self, report: RunReport, fatal: QuarryError | None = None) -> None:
        """The run has its report."""
        state = "failed" if fatal is not None else "stopped" if report.stopped else "completed"
        sums: dict[str, Attribute] = {
            "quarry.records": report.records,
            "quarry.rows": report.rows,
            "quarry.failures": report.failures,
            "quarry.skipped": report.skipped,
            "quarry.undone": report.undone,
            "quarry.calls": report.calls,
            "quarry.tries": report.tries,
            "gen_ai.usage.input_tokens": report.input_tokens,
            "gen_ai.usage.output_tokens": report.output_tokens,
        }
        if report.cost is not None:
            sums["quarry.cost"] = float(report.cost)
        self._end(state, sums, error=None if fatal is None else fatal.kind)
        plain = {name.rpartition(".")[2]: value for name, value in sums.items()}
        logger.info("run ends: %s", state, extra={**plain, "state": state, "seconds": round(report.seconds, 3)})

    def _end(self, state: str, sums: Mapping[str, Attribute], *, error: str | None) -> None:
        self._ended = True
        self.counts.state = state  # type: ignore[assignment]
        self._file.refresh(now=True)
        with self._safely():
            if self._otlp is not None:
                self._otlp.end({"quarry.run.state": state, **sums}, error=error)

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """Whatever happens in here must not reach the run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what looks on must not break what it looks at
            self._otlp = None
            # Its text may quote an address with a password.
            logger.warning("telemetry failed (%s): the run goes on without", type(error).__name__)


def _named(error: BaseException) -> str:
    return error.kind if isinstance(error, QuarryError) else type(error).__name__
