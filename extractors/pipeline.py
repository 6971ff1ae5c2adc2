"""The main path.

read the source -> fingerprint -> skip what is committed -> merge identical -> cut into chunks -> for each
record: prompt, call, parse, validate, correct, ground, route -> outcome -> parts -> commit -> views
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel

from extractors.batch.checks import check_no_batches
from extractors.batch.lane import BatchLane
from extractors.budget import Amount
from extractors.collector import older_objects_set_aside
from extractors.connect import connect, liveness
from extractors.endpoint import Endpoint, Settings, resolve_endpoint, settings_of
from extractors.engine import ChunkDone, Engine, Known
from extractors.errors import JobError, SchemaError
from extractors.kept_prompts import compile_again
from extractors.limits import LimitStats, Permit
from extractors.qwen.batch_client import BatchClient
from extractors.recipe import Recipe, compile_recipe
from extractors.report import Progress, RunReport, new_run_id
from extractors.routing_report import Routed
from extractors.sources import Source, open_source
from extractors.store.catalog import build_catalog
from extractors.store.files import is_remote
from extractors.store.objects import use_endpoint
from extractors.store.plan import Chunk, Plan, PlanCounts, RetrySelection
from extractors.store.store import Store
from extractors.telemetry.observer import Observer
from extractors.vectors.preparing import Rankers
from schemas.arrow import SchemaMappingError
from schemas.job import ExtractionJob
from schemas.loading import load_schema
from schemas.usage import Usage

logger = logging.getLogger(__name__)

Conductor = Callable[["Engine", Iterator[Chunk], int], Iterable[ChunkDone]]
"""Hands chunks to the engine, keeping a few in flight, and yields them as they are done."""


class Watcher(Protocol):
    """Who looks on: a bar, a Prefect artifact, a test. Every method may be called from the run's thread."""

    def fetching(self, what: str, done: int, total: int) -> None:
        """Weights are being fetched: bytes so far and in all."""

    def planned(self, counts: PlanCounts, progress: Progress) -> None:
        """The plan is made; ``progress`` is live from here on."""

    def chunk_done(self, done: ChunkDone, progress: Progress) -> None:
        """A chunk was committed."""


class Silent:
    """A watcher that looks away."""

    def fetching(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def planned(self, counts: PlanCounts, progress: Progress) -> None:
        """Nothing."""

    def chunk_done(self, done: ChunkDone, progress: Progress) -> None:
        """Nothing."""


@dataclass(slots=True)
class Control:
    """A run's stop button. ``stop`` finishes what is in flight; a second ``stop`` does not wait for it."""

    _engine: Engine | BatchLane | None = None
    _asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def attach(self, engine: Engine | BatchLane) -> None:
        """Called by the run when there is something to stop."""
        with self._lock:
            self._engine = engine
            if self._asked:
                engine.stop("interrupted")

    def stop(self, why: str = "interrupted") -> None:
        """Safe from any thread and from a signal handler."""
        self._asked += 1
        if self._engine is not None:
            if self._asked > 1:
                self._engine.abort()
            else:
                self._engine.stop(why)


def run(
    job: ExtractionJob,
    *,
    settings: Settings | None = None,
    schema: type[BaseModel] | None = None,
    source: Source | None = None,
    retry: RetrySelection | None = None,
    model: str | None = None,
    conduct: Conductor | None = None,
    watch: Watcher | None = None,
    control: Control | None = None,
    permit: Permit | None = None,
    engine_name: str = "direct",
    only: Collection[str] | None = None,
    note: Mapping[str, Any] | None = None,
    expect: str | None = None,
) -> RunReport:
    """Run a job to its end: every record of the source becomes a row, a ledger entry, or stays undone.

    ``schema`` and ``source`` replace the job's own (a class at hand, a data frame, a ledger). ``retry`` asks again just for open
    failures, and ``model`` answers them in the place of the recipe's own. ``permit`` holds the job's
    ``rate_limit_name``. ``only`` asks just the texts with these fingerprints and leaves the others undone; ``note``
    is kept in the run's file. ``expect`` is the short id of the recipe that the job must make. The job's ``sample`` and ``approve_above`` are ``extractors.stages``' matter. Raises
    the errors of ``extractors.errors``; what was finished before one is committed, and the report is on disk.
    """
    watch = watch or Silent()
    if job.rate_limit_name is not None and permit is None:
        raise JobError("--rate-limit-name is a Prefect limit: run it with --engine prefect")
    if job.runner == "dask" and conduct is None and retry is None:
        raise JobError("--runner dask is Prefect's: run it with --engine prefect")
    settings = settings_of(job, settings)
    use_endpoint(job.out, job.s3_endpoint)
    if job.lane != "live" and is_remote(job.out):
        raise JobError(
            f"--lane {job.lane} keeps the batches' files beside the output, on a disk: {job.out} is on an object store"
        )
    started, clock = datetime.now(UTC), time.monotonic()
    endpoint = resolve_endpoint(job, settings)
    schema = schema or model_of(job)
    recipe = compile_again(job, schema, endpoint.policy, recipe=expect or (None if retry is None else retry.recipe))
    if retry is not None and retry.recipe not in (None, recipe.id[:8]):
        raise JobError(
            f"these records failed under recipe {retry.recipe}, and {_changed(recipe)}. Put it back, or run the job again; "
            f"other recipes' failures are asked again with --where \"recipe <> '{retry.recipe}'\""
        )
    if expect not in (None, recipe.id[:8]):
        # Run under another recipe, it would ask the whole source.
        raise JobError(
            f"the batches are those of recipe {expect}, and {_changed(recipe)}. Put it back to have them collected, or cancel "
            "them (`quarry batch cancel`) and run the job again"
        )
    answering = endpoint
    if model is not None:
        # The row belongs to the failed record's own recipe; only who answers, and how it is asked, differ.
        answering = resolve_endpoint(job, settings, model=model)
        # A calibration says nothing of another model's values, which keep their scores.
        known = job if answering.model == endpoint.model else job.model_copy(update={"calibration": None})
        stand_in = compile_recipe(known, schema, answering.policy, prompts=recipe.prompter.texts.own)
        recipe = replace(stand_in, id=recipe.id, document=recipe.document)
    run_id = new_run_id(started)
    with ExitStack() as stack:
        stack.enter_context(older_objects_set_aside())
        source = stack.enter_context(source or open_source(job))
        store = stack.enter_context(_open_store(job, recipe, source, retrying=retry is not None))
        plan = stack.enter_context(
            Plan.make(source, store.keys(), scratch=store.scratch, chunk_size=job.chunk_size, retry=retry)
        )
        to_do = plan.counts.new if only is None else plan.restrict(only)
        tally = _Tally(plan.counts, todo=to_do)
        observer = stack.enter_context(
            Observer(
                run_id,
                info={
                    "schema": recipe.name,
                    "recipe": recipe.id[:8],
                    "model": answering.model,
                    "engine": engine_name,
                    "lane": job.lane,
                },
                currency=answering.pricing.currency,
                write=partial(store.write_metrics, run_id),
                secret=answering.api_key,
            )
        )
        observer.planned(plan.counts)
        engine: Engine | BatchLane | None = None
        lane: BatchLane | None = None
        if plan.counts.new:
            replay = store.replay()
            address = stack.enter_context(answering.serve(progress=watch.fetching))
            final, final_address, final_traced = answering.final, "", None
            if final is not None:
                final_address = stack.enter_context(final.serve(progress=watch.fetching))
                final_traced = observer.layer(final_address, embedded=final.embedded is not None)
            traced = observer.layer(address, embedded=answering.embedded is not None)

            def watch_limits(stats: LimitStats) -> None:
                tally.watch_limits(stats)
                observer.limited_by(stats)

            rankers: Callable[[concurrent.futures.Executor], Rankers] | None = None
            if answering.helpers.models:
                rankers = partial(Rankers, recipe, answering.helpers, store.out, concurrency=answering.concurrency)

            def open_engine(taken: Amount, known: Known) -> Engine:
                left = _less(job, taken)
                return Engine(
                    recipe,
                    store,
                    ceilings=(left.max_cost, left.max_tokens),
                    connect=partial(
                        connect,
                        left,
                        answering,
                        address,
                        on_limits=watch_limits,
                        permit=permit,
                        final_address=final_address,
                        on_budget=observer.bounded_by,
                        traced=traced,
                        final_traced=final_traced,
                    ),
                    dialect=answering.dialect.name,
                    final_dialect=None if final is None else final.dialect.name,
                    run_id=run_id,
                    replay=known,
                    alive=liveness(address),
                    pictures_at_once=min(answering.concurrency, 64),
                    observer=observer,
                    rankers=rankers,
                )

            def conducted(engine: Engine, chunks: Iterator[Chunk]) -> Iterable[ChunkDone]:
                return (conduct or conduct_directly)(engine, chunks, _window(job, answering))

            def chunks() -> Iterator[Chunk]:
                return tally.limited(plan.chunks(), job.max_records)

            if job.lane == "live":
                check_no_batches(store)
                engine = stack.enter_context(open_engine(Amount(), replay))
                finished = conducted(engine, chunks())
            else:
                engine = lane = stack.enter_context(
                    BatchLane(
                        job,
                        answering,
                        recipe,
                        store,
                        client=BatchClient(address, api_key=answering.api_key),
                        run_id=run_id,
                        replay=replay,
                        live=open_engine,
                        conduct=conducted,
                    )
                )
                finished = lane.run(chunks)
            engine.progress.total = to_do
            engine.progress.folder = str(store.folder)
            (control or Control()).attach(engine)
            watch.planned(plan.counts, engine.progress)
            for done in finished:
                tally.add(done)
                observer.chunk_done(done)
                watch.chunk_done(done, engine.progress)
            if not tally.undone and retry is None:
                # Only now: a leftover journal may hold answers to what was not finished, and a retry
                # knows nothing of the records that an earlier run left undone.
                replay.discard()
                if lane is not None:
                    lane.settle(everything=True)
        else:
            watch.planned(plan.counts, Progress())
        # What DuckDB holds of the plan would be in memory beside the catalog's work.
        plan.close()
        report = tally.report(
            run_id=run_id,
            recipe=recipe,
            job=job,
            endpoint=answering,
            engine_name=engine_name,
            started=started,
            seconds=time.monotonic() - clock,
            stopped=engine.stopped if engine else None,
            saved=lane.saved if lane else None,
        )
        observer.ended(report, engine.fatal if engine is not None else None)
        store.write_run(run_id, {**report.as_dict(), **(note or {}), "job": job.model_dump(mode="json", by_alias=True)})
        build_catalog(job.out, at=job.catalog)
    if engine is not None and engine.fatal is not None:
        raise engine.fatal
    return report


def conduct_directly(engine: Engine, chunks: Iterator[Chunk], window: int) -> Iterator[ChunkDone]:
    """Keep ``window`` chunks in the engine. An error in one is raised after the others have ended."""
    waiting: set[concurrent.futures.Future[ChunkDone]] = set()
    trouble: BaseException | None = None
    for chunk in chunks:
        waiting.add(engine.submit(chunk))
        while len(waiting) >= window:
            finished, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in finished:
                if (error := future.exception()) is not None:
                    trouble = trouble or error
                    engine.stop(str(error))
                else:
                    yield future.result()
        if engine.stopped is not None:
            break
    for future in concurrent.futures.as_completed(waiting):
        if (error := future.exception()) is not None:
            trouble = trouble or error
        else:
            yield future.result()
    if trouble is not None:
        raise trouble


@dataclass(slots=True)
class _Tally:
    """Adds up what the chunks report."""

    counts: PlanCounts
    todo: int
    rows: int = 0
    failures: int = 0
    merged: int = 0
    chunks: int = 0
    tries: int = 0
    replayed: int = 0
    usage: Usage = field(default_factory=Usage)
    unfinished: Usage = field(default_factory=Usage)
    reasons: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    limits: LimitStats | None = None
    routed: Routed = field(default_factory=Routed)

    @property
    def undone(self) -> int:
        """Records that were to be done and are not."""
        return self.counts.new - self.rows - self.failures

    def limited(self, chunks: Iterator[Chunk], most: int | None) -> Iterator[Chunk]:
        """The chunks until ``most`` records have been taken."""
        left = math.inf if most is None else most
        for chunk in chunks:
            if left <= 0:
                return
            taken = chunk if chunk.size <= left else chunk.first(int(left))
            left -= taken.size
            if taken.size:
                yield taken

    def add(self, done: ChunkDone) -> None:
        self.tries += done.tries
        self.replayed += done.replayed
        self.routed += done.routed
        self.unfinished += done.unfinished
        if len(self.latencies) < 100_000:
            self.latencies.extend(done.latencies)
        for reason, count in done.failures_by_reason.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        if (commit := done.commit) is not None:
            self.chunks += 1
            self.rows += commit.rows
            self.failures += commit.failures
            self.merged += commit.merged
            self.usage += commit.usage

    def report(
        self,
        *,
        run_id: str,
        recipe: Recipe,
        job: ExtractionJob,
        endpoint: Endpoint,
        engine_name: str,
        started: datetime,
        seconds: float,
        stopped: str | None,
        saved: Decimal | None,
    ) -> RunReport:
        counts = self.counts
        undone = self.undone
        if stopped is None and undone and self.todo < counts.new and self.rows + self.failures == self.todo:
            stopped = f"sample: {self.todo} records asked"
        if stopped is None and undone and job.max_records is not None:
            stopped = f"max_records: {job.max_records} records asked"
        quantiles = statistics.quantiles(self.latencies, n=20) if len(self.latencies) > 1 else None
        return RunReport(
            run_id=run_id,
            recipe=recipe.id[:8],
            name=recipe.name,
            out=job.out,
            model=endpoint.model,
            engine=engine_name,
            started_at=started.isoformat(timespec="milliseconds"),
            records=counts.records,
            rows=self.rows,
            failures=self.failures,
            skipped=counts.records - counts.new,
            merged=self.merged,
            undone=undone,
            calls=self.usage.calls,
            tries=self.tries,
            input_tokens=self.usage.input_tokens,
            cached_tokens=self.usage.cached_tokens,
            output_tokens=self.usage.output_tokens,
            cost=self.usage.cost,
            currency=endpoint.pricing.currency,
            seconds=seconds,
            failures_by_reason=dict(sorted(self.reasons.items())),
            skipped_failures=counts.skipped_failures,
            duplicate_ids=counts.duplicate_ids,
            removed=counts.removed,
            chunks=self.chunks,
            replayed=self.replayed,
            rate_limited=self.limits.rate_limited if self.limits else 0,
            latency_p50=round(statistics.median(self.latencies), 4) if self.latencies else None,
            latency_p95=round(quantiles[18], 4) if quantiles else None,
            stopped=stopped,
            saved=saved,
            unfinished_calls=self.unfinished.calls,
            unfinished_tokens=self.unfinished.total_tokens,
            unfinished_cost=self.unfinished.cost,
            routing=None
            if endpoint.final is None
            else self.routed.as_dict(endpoint.final.model, calibrated=recipe.calibration is not None),
        )

    def watch_limits(self, stats: LimitStats) -> None:
        """Remember the limiter's counters, to be read when the run ends."""
        self.limits = stats


def model_of(job: ExtractionJob) -> type[BaseModel]:
    """The job's schema as a model class. Raises ``SchemaError``."""
    try:
        return load_schema(job.schema_spec)
    except SchemaMappingError as error:
        raise SchemaError(str(error)) from error


def _open_store(job: ExtractionJob, recipe: Recipe, source: Source, *, retrying: bool) -> Store:
    return Store.open(
        job.out,
        name=recipe.name,
        recipe_id=recipe.id,
        recipe=dict(recipe.document),
        codec=recipe.codec,
        kept=source.kept,
        ledger_text=job.ledger_text,
        retrying=retrying,
    )


def after(job: ExtractionJob, reports: Iterable[RunReport]) -> ExtractionJob:
    """The job with what these runs have left of its ceilings on money and tokens."""
    taken = Amount()
    for one in reports:
        taken += Amount(
            (one.cost or Decimal(0)) + (one.unfinished_cost or Decimal(0)),
            one.input_tokens + one.output_tokens + one.unfinished_tokens,
        )
    return _less(job, taken)


def _less(job: ExtractionJob, taken: Amount) -> ExtractionJob:
    """The job with what is left of its ceilings."""
    cost = None if job.max_cost is None else max(Decimal(0), job.max_cost - taken.cost)
    tokens = None if job.max_tokens is None else max(1, job.max_tokens - taken.tokens)
    return job.model_copy(update={"max_cost": cost, "max_tokens": tokens})


def _changed(recipe: Recipe) -> str:
    return (
        f"its job makes recipe {recipe.id[:8]} now: the schema, a prompt, the examples or a profile have changed since"
    )


def _window(job: ExtractionJob, endpoint: Endpoint) -> int:
    """Chunks in the engine at once: enough that the tail of one never leaves the lane idle."""
    return max(2, math.ceil(2 * endpoint.concurrency / job.chunk_size) + 1)
