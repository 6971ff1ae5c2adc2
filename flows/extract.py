"""The extract flow: plan, one task per chunk, report. The engine underneath is the direct one."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from extractors.engine import ChunkDone, Engine
from extractors.errors import ApprovalNeeded
from extractors.history import run_documents
from extractors.pipeline import Conductor, Control
from extractors.report import RunReport
from extractors.stages import run_in_stages
from extractors.store.plan import Chunk
from flows.alerts import FAILURE_RATE, alerts_of
from flows.approval import Approver, not_approved
from flows.artifacts import Artifacts
from flows.blocks import settings_with
from flows.events import emit
from flows.form import JobForm
from flows.limits import global_rate
from flows.onlooker import onlooker
from flows.run_logs import show_ids
from flows.signals import ended_by_signal
from schemas.job import ExtractionJob

_CHUNKS_AT_ONCE = 32


@task(name="chunk", task_run_name="chunk-{chunk_id}", cache_policy=NO_CACHE, persist_result=False)
def answer_chunk(chunk_id: str, engine: Engine, chunk: Chunk) -> ChunkDone:
    """Bring one chunk to its commit. Retries, limits and resume are the engine's own."""
    return engine.submit(chunk).result()


@flow(
    name="extract",
    flow_run_name="extract-{job.out}",
    description="Records in; typed Parquet and a failure ledger out. Run it again and only what is missing is asked.",
    task_runner=cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=_CHUNKS_AT_ONCE)),
    persist_result=False,
)
def extract(job: JobForm) -> State[dict[str, Any]]:
    """Extract what the job asks for.

    Args:
        job: What to extract, from where, with which model, into which folder, under which ceilings.
    """
    show_ids()
    watch = Artifacts(job, onlooker())
    approver = Approver(job, watch)
    control = Control()
    try:
        with global_rate(job.rate_limit_name) as permit, ended_by_signal(control) as signalled:
            report = run_in_stages(
                job,
                settings=settings_with(job.credentials),
                decide=approver.decide,
                told=approver.hear,
                conduct=conductor_of(job),
                watch=watch,
                permit=permit,
                control=control,
                engine_name="prefect",
            )
    except ApprovalNeeded as refusal:
        return not_approved(refusal)
    watch.finish(report)
    for alert in alerts_of(job, report, run_documents(job.out, name=report.name, recipe=report.recipe)):
        if not (alert.event == FAILURE_RATE and watch.alerted):
            emit(alert)
    name, message = final_state(report, job.max_failure_rate)
    get_run_logger().info(message)
    if (cancelled := signalled.cancelled(message)) is not None:
        return cancelled
    if name == "Failed":
        return Failed(message=message, data=report.as_dict())
    return Completed(name=name, message=message, data=report.as_dict())


def final_state(report: RunReport, max_failure_rate: float) -> tuple[str, str]:
    """The state's name and message: Completed, CompletedWithFailures, Stopped or Failed."""
    counts = (
        f"{report.records} records = {report.rows} rows + {report.failures} failures + "
        f"{report.skipped} already done + {report.undone} undone"
    )
    if report.failure_rate > max_failure_rate:
        return "Failed", f"failure rate {report.failure_rate:.1%} above the limit {max_failure_rate:.1%}: {counts}"
    if report.stopped:
        return "Stopped", f"stopped ({report.stopped}), the next run goes on: {counts}"
    if report.failures:
        return "CompletedWithFailures", counts
    return "Completed", counts


def conductor_of(job: ExtractionJob) -> Conductor:
    """Where chunks are answered: in this process's threads, or on a cluster. Raises ``JobError``."""
    if job.runner == "threads":
        return conduct_with_tasks
    from flows.on_dask import check_dask_job, conduct_on_dask

    check_dask_job(job)
    return conduct_on_dask(job)


def conduct_with_tasks(engine: Engine, chunks: Iterator[Chunk], window: int) -> Iterator[ChunkDone]:
    """One task run per chunk, ``window`` of them at once; results come in the order of completion."""
    waiting: dict[str, PrefectFuture[ChunkDone]] = {}
    trouble: BaseException | None = None
    for chunk in chunks:
        waiting[chunk.chunk_id] = answer_chunk.submit(
            chunk.chunk_id, cast(Engine, quote(engine)), cast(Chunk, quote(chunk))
        )
        while len(waiting) >= min(window, _CHUNKS_AT_ONCE):
            for future in _first_done(waiting):
                try:
                    yield future.result()
                except Exception as error:  # noqa: BLE001 - raised below, when the other chunks have ended
                    trouble = trouble or error
                    engine.stop(str(error))
        if engine.stopped is not None:
            break
    for future in list(waiting.values()):
        try:
            yield future.result()
        except Exception as error:  # noqa: BLE001 - raised below, when the other chunks have ended
            trouble = trouble or error
    if trouble is not None:
        raise trouble


def _first_done(waiting: dict[str, PrefectFuture[ChunkDone]]) -> list[PrefectFuture[ChunkDone]]:
    """Take the futures that are done out of ``waiting``, waiting for at least one."""
    inner = {future.wrapped_future: key for key, future in waiting.items()}  # type: ignore[attr-defined]
    done, _ = concurrent.futures.wait(inner, return_when=concurrent.futures.FIRST_COMPLETED)
    return [waiting.pop(inner[one]) for one in done]


if __name__ == "__main__":
    extract.serve(name="extract")
