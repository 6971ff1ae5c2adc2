"""A run's work on another machine: chunks come in, prepared parts go out. Who planned the run commits them.

A worker writes nothing but journals, into the output's own journal folder, so that what it was answered is found by
whoever does the chunk again. It has its own connections and slots; money and pace are shared (``purse``).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from extractors.budget import Budget
from extractors.connect import connect, liveness
from extractors.endpoint import Settings, resolve_endpoint
from extractors.engine import ChunkDone, Engine
from extractors.errors import JobError
from extractors.limits import LimitStats, Permit
from extractors.pipeline import model_of
from extractors.recipe import compile_recipe
from extractors.store import files
from extractors.store.commits import Commit, load_commits
from extractors.store.journal import Journal
from extractors.store.layout import recipe_folder
from extractors.store.objects import use_endpoint
from extractors.store.parts import Item, PartSchemas
from extractors.store.plan import Chunk
from extractors.store.prepared import Donors, Prepared, prepare, replay_of
from extractors.store.segments import journal_at, journals_in
from schemas.job import ExtractionJob
from schemas.ledger import CallRecord
from schemas.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker must know of a run to answer its chunks; there is no key in it."""

    job: ExtractionJob
    run_id: str
    recipe_id: str
    kept: pa.Schema
    after: int
    """The sequence of the last commit before the run."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A chunk as a worker hands it over. ``trouble`` is what ends the whole run: the kind of error and its text."""

    done: ChunkDone
    prepared: Prepared | None
    rate_limited: int
    stopped: str | None = None
    trouble: tuple[str, str] | None = None


class Session:
    """One run on one worker. ``answer`` may be called from several threads."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        settings: Settings,
        budget: Callable[[Decimal | None, int | None], Budget] = Budget,
        permit: Permit | None = None,
    ) -> None:
        """Raises ``JobError`` for a worker that does not see the output, or whose schema is another one."""
        job = assignment.job
        use_endpoint(job.out, job.s3_endpoint)
        endpoint = resolve_endpoint(job, settings)
        recipe = compile_recipe(job, model_of(job), endpoint.policy)
        if recipe.id != assignment.recipe_id:
            raise JobError(
                f"this worker makes recipe {recipe.id[:8]} of the job, and the run is {assignment.recipe_id[:8]}: "
                "install the same Quarry and the same schema on every machine, and give all the same profiles"
            )
        folder = recipe_folder(files.place(job.out), name=recipe.name, recipe_id=recipe.id)
        if not (folder / "recipe.json").is_file():
            raise JobError(
                f"this worker does not see {job.out}: it must be on storage that all machines share, or s3://"
            )
        self._folder = folder
        self._replay = replay_of(folder, lambda: load_commits(folder, verify="size"))
        self._learning = threading.Lock()
        self._stats: LimitStats | None = None
        schemas = PartSchemas(recipe.codec, assignment.kept, recipe_id=recipe.id)
        self._bench = _Bench(folder, schemas, ledger_text=job.ledger_text, after=assignment.after)
        address = endpoint.base_url or ""
        self._stack = ExitStack()
        self._engine = self._stack.enter_context(
            Engine(
                recipe,
                self._bench,
                connect=partial(
                    connect, job, endpoint, address, on_limits=self._watch, permit=permit, make_budget=budget
                ),
                dialect=endpoint.dialect.name,
                run_id=assignment.run_id,
                replay=self._replay,
                alive=liveness(address),
                pictures_at_once=min(endpoint.concurrency, 64),
            )
        )

    def answer(self, chunk: Chunk) -> Answered:
        """Bring a chunk to its parts. What another worker was answered before it was lost is not asked again."""
        with self._learning:
            # Those that were there when this session was opened too: another worker was writing them then.
            self._replay.add(journals_in(self._folder / "journal", f"{chunk.chunk_id}.*jsonl"))
        done = self._engine.submit(chunk).result()
        fatal = self._engine.fatal
        return Answered(
            done,
            None if done.commit is None else self._bench.take(done.commit),
            self._stats.rate_limited if self._stats else 0,
            self._engine.stopped,
            None if fatal is None else (type(fatal).__name__, str(fatal)),
        )

    def stop(self, why: str) -> None:
        """Ask nothing new."""
        self._engine.stop(why)

    def abort(self) -> None:
        """Do not wait for the calls in flight either."""
        self._engine.abort()

    def close(self) -> None:
        """End the connections. The journals stay: who commits deletes them."""
        self._stack.close()

    def _watch(self, stats: LimitStats) -> None:
        self._stats = stats


class _Bench:
    """What an engine needs of a store, where nothing is committed."""

    def __init__(self, folder: Path, schemas: PartSchemas, *, ledger_text: str, after: int) -> None:
        self._folder = folder
        self._schemas = schemas
        self._ledger_text = ledger_text
        self._after = after
        self._token = secrets.token_hex(4)
        self._prepared: dict[str, Prepared] = {}
        self._donors = Donors(schemas.codec)

    def journal(self, chunk_id: str) -> _Kept:
        name = f"{chunk_id}.{self._token}.jsonl"
        return _Kept(journal_at(self._folder / "journal" / name, after=self._after))

    def commit(self, chunk_id: str, items: list[Item], calls: list[CallRecord], *, run_id: str, at: datetime) -> Commit:
        prepared = prepare(chunk_id, items, calls, self._schemas, ledger_text=self._ledger_text, run_id=run_id)
        self._prepared[chunk_id] = prepared
        return prepared.commit

    def read_outcome(self, part_path: str, fingerprint: str) -> Outcome:
        return self._donors.outcome(part_path, fingerprint)

    def take(self, commit: Commit) -> Prepared:
        return self._prepared.pop(commit.chunk)


class _Kept:
    """A journal that outlives the chunk's work here: its answers count only when the commit is written elsewhere."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def append(self, request: str, entry: Mapping[str, Any]) -> None:
        self._journal.append(request, entry)

    def append_all(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._journal.append_all(entries)

    def close(self) -> None:
        self._journal.close()

    def discard(self) -> None:
        self._journal.close()
