"""A run's artifacts: progress and figures after each chunk, the whole when it has ended. The words are ``flows.summary``'s.

Each is made once and then changed in place, so that a run leaves one of each key however many chunks it has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from extractors.engine import ChunkDone
from extractors.forecast import Forecast
from extractors.pipeline import Watcher
from extractors.report import Progress, RunReport
from extractors.store import files
from extractors.store.plan import PlanCounts
from flows.alerts import early_failure_alert
from flows.events import emit
from flows.summary import estimate_markdown, failures_markdown, fields_markdown, running_markdown, summary_markdown
from flows.tally import Tally
from schemas.job import ExtractionJob

logger = logging.getLogger(__name__)

_APART = 2.0
"""Seconds between two changes of the figures at least; the progress changes with each chunk."""
_REPORT = "report.html"


class Artifacts:
    """A watcher that shows a run in Prefect's UI, and to ``also``. ``clock`` gives seconds."""

    def __init__(self, job: ExtractionJob, also: Watcher, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._also = also
        self._clock = clock
        self._made: dict[str, UUID] = {}
        self._tally = Tally()
        self._told: float | None = None
        self._alerted = False

    def fetching(self, what: str, done: int, total: int) -> None:
        """The weights' download is shown to who else looks on, not in the UI."""
        self._also.fetching(what, done, total)

    def planned(self, counts: PlanCounts, progress: Progress) -> None:
        """Say what will be done, and open the progress bar."""
        self._also.planned(counts, progress)
        get_run_logger().info(
            "%d records: %d already done, %d to do, %d to ask",
            counts.records,
            counts.records - counts.new,
            counts.new,
            counts.distinct,
        )
        if counts.new:
            self._progress(0.0)

    def chunk_done(self, done: ChunkDone, progress: Progress) -> None:
        """One update per chunk."""
        self._also.chunk_done(done, progress)
        try:
            self._tally.add(done, files.place(progress.folder))
        except OSError as error:
            logger.warning("the figures leave out chunk %s, whose parts cannot be read: %s", done.chunk, error)
        if progress.total:
            self._progress(100.0 * progress.done / progress.total)
        self._alert(progress)
        now = self._clock()
        if self._told is None or now - self._told >= _APART:
            self._told = now
            self._put("quarry-summary", running_markdown(self._tally, progress), "What the run does")
            self._figures()

    def estimate(self, found: Forecast) -> None:
        """The forecast after the sample."""
        self._put("quarry-estimate", estimate_markdown(self._job, found), "Cost and time of the rest")

    def finish(self, report: RunReport) -> None:
        """The summary, the failures and the fields, as they are in the end."""
        file = files.place(report.out) / _REPORT
        text = summary_markdown(report, report_file=file if file.is_file() else None)
        self._put("quarry-summary", text, "What the run did")
        self._figures()

    @property
    def alerted(self) -> bool:
        """Whether the failure rate's alert was sent while the run lasted."""
        return self._alerted

    def _figures(self) -> None:
        self._put("quarry-failures", failures_markdown(self._tally, out=self._job.out), "Failures by reason")
        self._put("quarry-fields", fields_markdown(self._tally), "Rows with a value, by field")

    def _alert(self, progress: Progress) -> None:
        if not self._alerted:
            folder = files.place(progress.folder)
            recipe = folder.name.removeprefix("recipe=")
            alert = early_failure_alert(self._job, progress, name=folder.parent.name, recipe=recipe)
            if alert is not None:
                self._alerted = True
                emit(alert)

    def _progress(self, percent: float) -> None:
        if (known := self._made.get("quarry-progress")) is not None:
            update_progress_artifact(known, progress=percent)
            return
        made = create_progress_artifact(percent, key="quarry-progress", description="Records decided")
        self._made["quarry-progress"] = cast(UUID, made)

    def _put(self, key: str, markdown: str, description: str) -> None:
        if (known := self._made.get(key)) is None:
            self._made[key] = cast(UUID, create_markdown_artifact(markdown, key=key, description=description))
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(known, ArtifactUpdate(data=markdown, description=description))
