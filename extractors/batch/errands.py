"""What can be done to the batches of an output folder between runs: find, collect, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from extractors.batch.desk import Desk
from extractors.batch.ledger import BatchEntry, BatchLedger, State
from extractors.endpoint import Settings
from extractors.errors import OutputError, QuarryError
from extractors.pipeline import run
from extractors.qwen.batch_client import BatchClient
from extractors.report import RunReport
from extractors.store import layout
from extractors.store.lock import Lock
from schemas.job import ExtractionJob


@dataclass(frozen=True, slots=True)
class Found:
    """A batch, and whose it is: the schema's name and the first digits of the recipe's id."""

    schema: str
    recipe: str
    folder: Path
    entry: BatchEntry


def find_batches(out: Path) -> list[Found]:
    """Every batch of an output folder, oldest first. Raises ``OutputError``."""
    found = [
        Found(name, layout.short_id(folder), folder, entry)
        for name, folders in layout.recipe_folders(out).items()
        for folder in folders
        for entry in BatchLedger(folder).entries()
    ]
    return sorted(found, key=lambda one: (one.entry.written_at, one.entry.name))


def collect_batches(
    out: Path, *, settings: Callable[[ExtractionJob], Settings | None] | None = None, wait: bool = False
) -> list[RunReport]:
    """Run the job of every recipe with unsettled batches once more, by default without waiting: what has ended is
    taken in, and what failed or needs a correction is asked. ``settings`` gives those of a job, the environment's where
    it gives none. Raises the errors of ``extractors.errors``, the first one, when all were tried."""
    runs = {(one.schema, one.recipe): one for one in find_batches(out) if one.entry.state is not State.SETTLED}
    jobs = [(_job_of(out, one, wait=wait), one.recipe) for one in runs.values()]
    reports: list[RunReport] = []
    trouble: QuarryError | None = None
    for job, recipe in jobs:
        try:
            reports.append(run(job, settings=settings(job) if settings else None, expect=recipe))
        except QuarryError as error:
            # The service keeps results for some days only: those of the other recipes are fetched all the same.
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return reports


def cancel_batches(out: Path, *, name: str | None = None, settings: Settings | None = None) -> list[Found]:
    """Cancel what is under way, all of it or one batch. Raises ``OutputBusy`` while a run holds the folder."""
    settings = settings or Settings.from_environment()
    lock = Lock(out)
    lock.take()
    try:
        cancelled = []
        for one in find_batches(out):
            if one.entry.state is not State.RUNNING or name not in (None, one.entry.name):
                continue
            with BatchClient(one.entry.address, api_key=settings.api_key) as client:
                desk = Desk(BatchLedger(one.folder), client, pause=time.sleep, now=time.time)
                cancelled.append(Found(one.schema, one.recipe, one.folder, desk.cancel(one.entry)))
        return cancelled
    finally:
        lock.release()


def _job_of(out: Path, found: Found, *, wait: bool) -> ExtractionJob:
    data = BatchLedger(found.folder).job()
    if data is None:
        raise OutputError(f"{found.folder} does not tell the job of its batches: run the same `quarry run` again")
    try:
        told = orjson.loads(data)
        return ExtractionJob.model_validate({**told, "out": str(out), "batch_wait": wait})
    except (ValidationError, ValueError) as error:
        raise OutputError(f"{found.folder}: the job of its batches cannot be read: {error}") from error
