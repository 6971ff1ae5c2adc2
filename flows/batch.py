"""Batches under Prefect: submit, give the worker back, collect later.

``extract_in_batches`` submits a job's batches, takes in what has ended, and then does not hold a worker for a day: with
``again_after`` seconds it ends as ``AwaitingRetry`` for that time, so that Prefect starts the same flow run once
more, which goes on from the ledger on disk. ``collect_batches`` does the same for an output folder that somebody else
filled; give it a schedule.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.schedules import Interval
from prefect.states import AwaitingRetry, Completed, Failed

from extractors.batch import errands
from extractors.batch.ledger import State as BatchState
from extractors.pipeline import run
from extractors.report import RunReport
from flows.blocks import settings_with
from flows.extract import final_state
from flows.form import JobForm
from flows.run_logs import show_ids

_DEFAULT_WAIT = 900


@flow(
    name="extract-in-batches",
    flow_run_name="extract-in-batches-{job.out}",
    description="Submit batches, give the worker back, come again until everything is a row or a ledger entry.",
    persist_result=False,
)
def extract_in_batches(job: JobForm, again_after: int = _DEFAULT_WAIT) -> State[dict[str, Any]]:
    """Extract through the provider's Batch API without holding a worker.

    Args:
        job: What to extract; its lane is batch or mixed.
        again_after: Seconds until the same flow run looks again.
    """
    show_ids()
    lane = job.lane if job.lane != "live" else "batch"
    report = run(
        job.model_copy(update={"lane": lane, "batch_wait": False}),
        settings=settings_with(job.credentials),
        engine_name="prefect",
    )
    show_batches(Path(job.out))
    return state_of(report, job.max_failure_rate, again_after=again_after)


@flow(
    name="collect-batches",
    flow_run_name="collect-batches-{out}",
    description="Take in what has ended of an output folder's batches; ask what failed or needs a correction.",
    persist_result=False,
)
def collect_batches(out: str) -> State[dict[str, Any]]:
    """Collect once; meant for a schedule.

    Args:
        out: The output folder.
    """
    show_ids()
    reports = errands.collect_batches(Path(out), settings=lambda job: settings_with(job.credentials))
    show_batches(Path(out))
    rows = sum(report.rows for report in reports)
    undone = sum(report.undone for report in reports)
    message = f"{rows} rows taken in, {undone} records undone" if reports else "no batch is under way"
    get_run_logger().info(message)
    return Completed(message=message, data={"runs": [report.as_dict() for report in reports]})


def state_of(report: RunReport, max_failure_rate: float, *, again_after: int) -> State[dict[str, Any]]:
    """The flow run's state: scheduled again while batches are under way, else as a live run's."""
    if report.stopped is not None and report.stopped.startswith("waiting:"):
        when = datetime.now(UTC) + timedelta(seconds=again_after)
        get_run_logger().info("%s; looked at again at %s", report.stopped, f"{when:%Y-%m-%d %H:%M:%S} UTC")
        return AwaitingRetry(scheduled_time=when, message=report.stopped)
    name, message = final_state(report, max_failure_rate)
    get_run_logger().info(message)
    if name == "Failed":
        return Failed(message=message, data=report.as_dict())
    return Completed(name=name, message=message, data=report.as_dict())


def show_batches(out: Path) -> None:
    """Progress and a table of the batches, from the service's counts in the ledger."""
    found = errands.find_batches(out)
    lines = sum(one.entry.lines for one in found)
    done = sum(
        one.entry.lines if one.entry.state in (BatchState.COLLECTED, BatchState.SETTLED) else one.entry.completed
        for one in found
    )
    if lines:
        create_progress_artifact(100.0 * done / lines, key="quarry-batches", description="Requests answered")
        rows = [
            {"batch": one.entry.name, "state": one.entry.state.value, "status": one.entry.status,
             "requests": one.entry.lines, "completed": one.entry.completed}
            for one in found[-100:]
        ]  # fmt: skip
        create_table_artifact(rows, key="quarry-batch-list", description="Batches")


if __name__ == "__main__":
    collect_batches.serve(name="collect-batches", schedules=[Interval(timedelta(minutes=15))])
