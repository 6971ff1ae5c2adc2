"""``runner: dask``: a task a chunk on the workers of a Dask cluster; what they hand over is committed here.

A worker that dies costs its chunks' calls in flight: Dask does the chunks again elsewhere, and the answers that
it had are found in its journals.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import distributed
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

import extractors.errors
from extractors.endpoint import resolve_endpoint
from extractors.engine import ChunkDone, Engine
from extractors.errors import InternalError, JobError
from extractors.pipeline import Conductor
from extractors.remote import Answered, Assignment, Session
from extractors.store.plan import Chunk
from extractors.store.store import Store
from flows.blocks import settings_with
from flows.limits import global_rate
from flows.shared_limits import SharedLimits, both, budget_of, turns_of
from schemas.job import ExtractionJob

_sessions: dict[str, tuple[Session, ExitStack]] = {}
_opening = threading.Lock()


@task(name="chunk", task_run_name="chunk-{chunk_id}", cache_policy=NO_CACHE, persist_result=False)
def answer_on_worker(chunk_id: str, work: bytes) -> Answered:
    """Answer one chunk in a worker's process; its parts come back unwritten. ``work`` is pickled, so that Prefect does not
    look for futures in every record."""
    assignment, chunk = pickle.loads(work)
    return _session(assignment).answer(chunk)


def check_dask_job(job: ExtractionJob) -> None:
    """Raises ``JobError`` for what a cluster cannot do."""
    if job.lane != "live":
        raise JobError(f"--runner dask answers live; leave it out for --lane {job.lane}, which hardly computes")
    if job.final is not None or job.high_accuracy:
        raise JobError("--final and --high-accuracy ask two models in one process; leave --runner dask out")
    if job.tpm is not None:
        raise JobError("--tpm is counted in one process; with --runner dask use --rpm or --rate-limit-name")
    if resolve_endpoint(job, settings_with(job.credentials)).embedded is not None:
        raise JobError("--runner dask needs a model at an address: the embedded one would compete with the workers")


def conduct_on_dask(job: ExtractionJob) -> Conductor:
    """Hands chunks to a cluster: the one at ``dask_address``, or one of processes on this machine."""

    def conduct(engine: Engine, chunks: Iterator[Chunk], window: int) -> Iterator[ChunkDone]:
        store = cast(Store, engine.store)
        assignment = Assignment(job, engine.run_id, engine.recipe.id, store.kept, store.sequence)
        with _runner(job, window) as runner:
            client = runner.client
            # Not the job's own: a sample before this may have taken its part.
            max_cost, max_tokens = engine.ceilings
            limits = SharedLimits(engine.run_id, max_cost=max_cost, max_tokens=max_tokens, rpm=job.rpm)
            client.register_plugin(limits, name=limits.name)
            try:
                yield from _conducted(engine, store, chunks, _Cluster(runner, client, assignment))
            finally:
                client.run(close_session, engine.run_id)
                client.unregister_scheduler_plugin(limits.name)

    return conduct


class _Cluster:
    """Chunks on their way, and what is told to all workers."""

    def __init__(self, runner: DaskTaskRunner, client: distributed.Client, assignment: Assignment) -> None:
        self._runner = runner
        self._client = client
        self._assignment = assignment
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.waiting: dict[str, PrefectDaskFuture[Answered]] = {}

    @property
    def full(self) -> bool:
        """Whether every thread of the workers has a chunk, and each worker one more to go on with."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        room: int = sum(worker["nthreads"] + 1 for worker in workers)
        return len(self.waiting) >= max(2, room)

    def submit(self, chunk: Chunk) -> None:
        future = self._runner.submit(
            answer_on_worker,
            {"chunk_id": chunk.chunk_id, "work": pickle.dumps((self._assignment, chunk))},
        )
        self.waiting[chunk.chunk_id] = future
        future.wrapped_future.add_done_callback(lambda _: self._done.put(chunk.chunk_id))  # type: ignore[no-untyped-call]

    def finished(self, seconds: float) -> Answered | None:
        """A chunk that is done, waiting for one no longer than this. Raises what ended its task."""
        try:
            future = self.waiting.pop(self._done.get(timeout=seconds))
        except queue.Empty:
            return None
        try:
            return future.result()
        finally:
            # Before its journals go: Dask does a chunk again whose result is still wanted when its worker dies.
            future.wrapped_future.release()  # type: ignore[no-untyped-call]

    def tell(self, what: Callable[..., None], *told: Any) -> None:
        self._client.run(what, self._assignment.run_id, *told)


def _conducted(engine: Engine, store: Store, chunks: Iterator[Chunk], cluster: _Cluster) -> Iterator[ChunkDone]:
    trouble: BaseException | None = None
    told = False
    rest = iter(chunks)
    more = True
    while more or cluster.waiting:
        while more and engine.stopped is None and not cluster.full:
            chunk = next(rest, None)
            if chunk is None:
                more = False
            else:
                cluster.submit(chunk)
        if engine.stopped is not None:
            more = False
            if not told:
                cluster.tell(stop_session, engine.stopped)
                told = True
        try:
            answered = cluster.finished(0.5) if cluster.waiting else None
            if answered is not None:
                yield _committed(answered, engine, store)
        except Exception as error:  # noqa: BLE001 - raised below, when the other chunks have ended
            trouble = trouble or _explained(error)
            engine.stop(str(error))
    if trouble is not None:
        raise trouble


def _committed(answered: Answered, engine: Engine, store: Store) -> ChunkDone:
    """Write a chunk's parts and commit, and take note of why its worker stopped, if it did."""
    done = answered.done
    if answered.prepared is not None:
        commit = store.keep(answered.prepared, run_id=engine.run_id, at=datetime.now(UTC))
        done = replace(done, commit=commit)
        _count(engine, done)
    if not done.undone:
        store.discard_journals(done.chunk)
    if answered.trouble is not None:
        kind, said = answered.trouble
        engine.fatal = engine.fatal or getattr(extractors.errors, kind, InternalError)(said)
    if answered.stopped is not None:
        engine.stop(answered.stopped)
    return done


def _count(engine: Engine, done: ChunkDone) -> None:
    """The progress that a bar shows, a chunk at a time."""
    progress, commit = engine.progress, done.commit
    assert commit is not None
    usage = commit.usage
    progress.rows += commit.rows
    progress.failures += commit.failures
    progress.calls += usage.calls
    progress.input_tokens += usage.input_tokens
    progress.output_tokens += usage.output_tokens
    if progress.cost is not None:
        progress.cost = None if usage.cost is None else progress.cost + usage.cost


def _explained(error: Exception) -> Exception:
    if isinstance(error, distributed.KilledWorker):
        return InternalError(
            f"a chunk killed every worker that it was given to ({error}); what was committed is safe: look at the "
            "workers' logs (memory?), then run the same command again"
        )
    return error


def _runner(job: ExtractionJob, window: int) -> DaskTaskRunner:
    if job.dask_address is not None:
        return DaskTaskRunner(address=job.dask_address)
    options: dict[str, Any] = {"processes": True, "threads_per_worker": window, "dashboard_address": "127.0.0.1:0"}
    if job.dask_workers is not None:
        options["n_workers"] = job.dask_workers
    get_run_logger().info("starting a Dask cluster on this machine")
    return DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs={**options, "host": "127.0.0.1"})


# In the workers' processes ----------------------------------------------------------------------------


def _session(assignment: Assignment) -> Session:
    """The run's session in this worker, opened by its first chunk."""
    with _opening:
        if assignment.run_id not in _sessions:
            worker = distributed.get_worker()
            job = assignment.job
            with ExitStack() as stack:
                permit = stack.enter_context(global_rate(job.rate_limit_name))
                session = Session(
                    replace(assignment, job=job.model_copy(update={"rpm": None})),
                    settings=settings_with(job.credentials),
                    budget=budget_of(assignment.run_id, worker),
                    permit=permit if job.rpm is None else both(turns_of(assignment.run_id, worker), permit),
                )
                stack.callback(session.close)
                _sessions[assignment.run_id] = (session, stack.pop_all())
        return _sessions[assignment.run_id][0]


def stop_session(run_id: str, why: str) -> None:
    """On a worker: ask nothing new in this run."""
    if run_id in _sessions:
        session, _ = _sessions[run_id]
        session.abort() if why == "aborted" else session.stop(why)


def close_session(run_id: str) -> None:
    """On a worker: the run is over."""
    with _opening:
        found = _sessions.pop(run_id, None)
    if found is not None:
        found[1].close()


__all__ = ["answer_on_worker", "check_dask_job", "close_session", "conduct_on_dask", "stop_session"]
