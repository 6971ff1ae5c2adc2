"""The batch lane: the same extractions as live, driven in rounds through files and batches.

A pass goes over the plan's chunks. Each open record's extraction is driven from its beginning with the answers that
are known; what reaches an outcome is committed, what asks something new is written to a request file. Nothing
of a record stays in memory between passes, so that a million of them need no more than their digests, and a run
that was killed goes on just as one that was not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

from extractors.batch.answers import Answers, digests_in, tag
from extractors.batch.checks import check_batch_job
from extractors.batch.desk import Desk
from extractors.batch.ledger import BatchEntry, BatchLedger, State
from extractors.batch.passes import Look, Passes
from extractors.batch.pending import Pending
from extractors.batch.purse import Purse, batch_pricing
from extractors.batch.request_files import RequestFile, RequestFiles
from extractors.budget import Amount
from extractors.endpoint import Endpoint
from extractors.engine import ChunkDone, Engine, Known
from extractors.errors import BatchRefused, KeyRejected, ModelMissing, QuarryError
from extractors.qwen.batch import BatchRules
from extractors.qwen.batch_client import BatchClient
from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from extractors.recipe import Recipe
from extractors.report import Progress
from extractors.store.journal import result_entry
from extractors.store.plan import Chunk
from extractors.store.store import Store
from schemas.job import ExtractionJob

logger = logging.getLogger(__name__)

Live = Callable[[Amount, Known], AbstractContextManager[Engine]]
"""Opens the live lane for what is left, below the ceilings less what the batches took, with the answers known."""
Conduct = Callable[[Engine, Iterator[Chunk]], Iterable[ChunkDone]]
_MOST_HELD = 300_000
"""Answers that are held (as places in files, some 180 bytes each) before they are committed, one batch more at most."""
_SLOWEST = 10
"""How many times the first interval the polls may come to be apart."""


class BatchLane:
    """Answers a plan's chunks. A context manager; ``stop`` may be called from any thread.

    ``used`` tells, for commits after a number, which requests they used, each with its commit's number."""

    def __init__(
        self,
        job: ExtractionJob,
        endpoint: Endpoint,
        recipe: Recipe,
        store: Store,
        *,
        client: BatchClient,
        run_id: str,
        replay: Known,
        live: Live,
        conduct: Conduct,
        patience: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_batch_job(job, endpoint)
        self._job = job
        self._store = store
        self._client = client
        self._run_id = self._series = run_id
        self._replay = replay
        self._live = live
        self._conduct = conduct
        self._now = now
        self._address = endpoint.base_url or ""
        self._share = endpoint.profile.batch_price
        self._pricing = batch_pricing(endpoint.pricing, self._share)
        self._purse = Purse(job.max_cost, job.max_tokens, pricing=self._pricing)
        self._rules = BatchRules(requests=job.batch_requests)
        self._ledger = BatchLedger(store.folder)
        self._stopping = threading.Event()
        self._desk = Desk(self._ledger, client, pause=self._pause, now=now, patience=patience)
        self._answers = Answers(model=endpoint.model, pricing=self._pricing)
        self._pending = Pending()
        self._made = 0
        self._round = 0
        self._engine: Engine | None = None
        self._ending: str | None = None
        """Why the run ends once what has come back is committed."""
        self.progress = Progress()
        self._passes = Passes(
            recipe,
            store,
            run_id=run_id,
            # A marker for the explicit cache buys nothing here.
            profile=endpoint.profile.model_copy(update={"cache": "none"}),
            pricing=self._pricing,
            attempts=job.transport_attempts,
            replay=replay,
            answers=self._answers,
            pending=self._pending,
            purse=self._purse,
            progress=self.progress,
        )
        self.stopped: str | None = None
        self.fatal: QuarryError | None = None
        self.saved: Decimal | None = Decimal(0) if self._pricing.known else None
        """What the same answers would have cost more, live and without a prompt cache."""

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._answers.close()
        self._client.__exit__()

    def stop(self, why: str) -> None:
        """Submit nothing new and wait for nothing: batches under way go on, and the next run collects them."""
        self.stopped = self.stopped or why
        self._passes.stopping = True
        self._stopping.set()
        if self._engine is not None:
            self._engine.stop(why)

    def abort(self) -> None:
        """The same, and do not wait for live calls in flight."""
        self.stop("aborted")
        if self._engine is not None:
            self._engine.abort()

    def run(self, chunks: Callable[[], Iterator[Chunk]]) -> Iterator[ChunkDone]:
        """Bring every record to its outcome, or leave it undone when the run is stopped. ``chunks`` gives the plan's
        chunks, the same every time. Sets ``fatal`` for what ends a run."""
        try:
            self._recover()
            dirty: set[int] | None = None
            while True:
                files = self._request_files()
                look = Look(files)
                yield from self._passes.over(chunks, dirty, look)
                if self._ending is not None:
                    self.stop(self._ending)
                if self.stopped is not None:
                    files.drop()
                    break
                files.finish()
                dirty = yield from self._send(chunks, look)
                if self.stopped is not None or not (dirty or self._pending.under_way()):
                    break
                if self._pending.under_way():
                    dirty |= self._wait()
                if self.stopped is not None:
                    break
            self.settle()
        except QuarryError as error:
            self.fatal = self.fatal or error
            self.stop(str(error))

    # Sending and waiting ------------------------------------------------------------------------

    def _send(self, chunks: Callable[[], Iterator[Chunk]], look: Look) -> Generator[ChunkDone, None, set[int]]:
        """Submit a pass's files, or ask its few requests live. Gives the chunks to look at again at once."""
        live = look.live
        taken = look.files.take()
        if self._job.lane == "mixed" and 0 < look.written <= self._job.live_tail and not look.unpaid:
            for one in taken:
                one.drop()
                self._purse.settle(one.worst, Amount())
            for number, places in look.chunks.items():
                live.setdefault(number, []).extend(places)
            taken = []
        while taken:
            # What is submitted is on disk; nothing of it is held while the next one is uploaded.
            self._submit(taken.pop(0), look)
        if live:
            yield from self._go_live(chunks, live)
        if look.unpaid and not self._pending.under_way():
            self.stop(f"budget: {self._purse.reached()}")
        return set(look.unpaid)

    def _submit(self, file: RequestFile, look: Look) -> None:
        self._ledger.keep_job(self._job.model_dump_json(by_alias=True).encode())
        entry = self._ledger.save(
            BatchEntry(
                name=file.name,
                run_id=self._run_id,
                round=int(file.tag.split("-")[1]),
                model=file.model,
                url=self._rules.url,
                window=self._job.batch_window,
                address=self._address,
                lines=file.lines,
                size=file.size,
                worst=file.worst,
                worst_line=file.worst_line,
                after=self._last_commit(),
                series=self._series,
                written_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        number = self._pending.add(entry, file.digests, chunks=look.of_file[file.name])
        self._pending.entries[number] = self._desk.submit(entry)
        self._show_progress()

    def _go_live(self, chunks: Callable[[], Iterator[Chunk]], live: Mapping[int, list[int]]) -> Iterator[ChunkDone]:
        """Ask what is left live: the same records, with the answers that they have."""

        def rest() -> Iterator[Chunk]:
            for number, chunk in enumerate(chunks()):
                if number in live:
                    yield Chunk.of([chunk.groups[place] for place in sorted(live[number])])

        taken = self._purse.spent + self._purse.reserved
        before_it = self._last_commit()
        with self._live(taken, _Both(self._replay, self._passes.known)) as engine:
            self._engine = engine
            if self.stopped is not None:
                engine.stop(self.stopped)
            before = (self.progress.rows, self.progress.failures)
            for done in self._conduct(engine, rest()):
                self.progress.rows = before[0] + engine.progress.rows
                self.progress.failures = before[1] + engine.progress.failures
                yield done
            self._engine = None
            self.progress.calls += engine.progress.calls
            self.progress.input_tokens += engine.progress.input_tokens
            self.progress.output_tokens += engine.progress.output_tokens
            if self.progress.cost is not None:
                cost = engine.progress.cost
                self.progress.cost = None if cost is None else self.progress.cost + cost
                self._purse.spent += Amount(cost or Decimal(0), 0)
            self._purse.spent += Amount(Decimal(0), engine.progress.input_tokens + engine.progress.output_tokens)
            self.fatal = self.fatal or engine.fatal
            if engine.stopped is not None:
                self.stop(engine.stopped)
        self._answers.forget(self._store.used_requests(before_it))
        for number, places in live.items():
            self._passes.gone_live(number, places)

    def _wait(self) -> set[int]:
        """Look at the batches until some have ended; the chunks that waited for them."""
        wait = self._job.batch_poll
        while True:
            dirty: set[int] = set()
            for number in self._pending.under_way():
                if self.stopped is not None:
                    return dirty
                entry = self._pending.entries[number]
                if entry.state is State.RUNNING:
                    entry = self._pending.entries[number] = self._desk.look(entry)
                if entry.state is State.RUNNING and self._too_old(entry):
                    self._pending.entries[number] = self._desk.cancel(entry, gone_live=True)
                if entry.state is State.ENDED:
                    dirty |= self._collect(number)
                    if len(self._answers) >= _MOST_HELD:
                        # The others have ended as well by now, and are collected when these are committed.
                        break
            self._show_progress()
            if dirty or self.stopped is not None:
                return dirty
            if not self._job.batch_wait:
                count = len(self._pending.under_way())
                self.stop(f"waiting: {count} batch{'es are' if count != 1 else ' is'} under way")
                return dirty
            self._pause(wait)
            wait = min(wait * 1.5, self._job.batch_poll * _SLOWEST)

    def _collect(self, number: int) -> set[int]:
        entry = self._desk.collect(self._pending.entries[number])
        digests = digests_in(self._ledger.requests(entry.name))
        entry = self._take(entry, digests, skip=None)
        self._pending.entries[number] = entry
        dirty = self._pending.ended(number)
        if entry.status == "failed" and not any(line is not None for _, _, line in entry.problems):
            words = "; ".join(f"{message} ({code})" for code, message, _ in entry.problems) or "no reason was given"
            raise BatchRefused(f"batch {entry.batch_id} was refused as a whole: {words}. Its records are undone")
        if entry.status == "cancelled" and not entry.gone_live:
            self._end(f"batch {entry.batch_id} was cancelled; the same command asks what is left of it")
        return dirty

    def _take(self, entry: BatchEntry, digests: list[bytes], *, skip: Mapping[bytes, int] | None) -> BatchEntry:
        taken = self._answers.take(
            entry, digests, output=self._ledger.output(entry.name), errors=self._ledger.errors(entry.name), skip=skip
        )
        fresh = entry.state is not State.COLLECTED
        if entry.gone_live:
            self._passes.live_only |= taken.left
        if fresh:
            self._purse.settle(entry.worst, taken.spent)
            usage = taken.usage
            self.progress.calls += usage.calls
            self.progress.input_tokens += usage.input_tokens
            self.progress.output_tokens += usage.output_tokens
            if self.progress.cost is not None:
                self.progress.cost = None if usage.cost is None else self.progress.cost + usage.cost
            if self.saved is not None:
                self.saved += (usage.cost or Decimal(0)) * (1 / self._share - 1) if self._share else Decimal(0)
            if taken.fatal is not None:
                kind = KeyRejected if taken.fatal.kind is ErrorKind.KEY else ModelMissing
                self.fatal = self.fatal or kind(taken.fatal.message)
                self._end(str(self.fatal))
            for word in ("missing", "duplicate", "foreign", "unreadable"):
                if count := getattr(taken, word):
                    logger.warning("batch %s: %d lines %s", entry.batch_id, count, word)
            entry = replace(entry, spent=taken.spent)
        return self._ledger.save(replace(entry, state=State.COLLECTED, tally=taken.counts()))

    # Durability ---------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Take up the batches that earlier runs left."""
        known = self._ledger.open()
        entries = [entry for entry in known if entry.state is not State.SETTLED]
        if not entries:
            return
        unfinished = [entry.series for entry in entries if entry.state is not State.COLLECTED and entry.series]
        if unfinished:
            # This run goes on from that one: what it took is not to be had again.
            self._series = unfinished[0]
            self._purse.spent += sum((one.spent for one in known if one.series == self._series), Amount())
        used = self._store.used_requests(min(entry.after for entry in entries))
        for entry in entries:
            found = self._desk.recover(entry)
            if found is None:
                continue
            digests = digests_in(self._ledger.requests(found.name))
            if found.state is State.COLLECTED:
                number = self._pending.add(found, ())
                self._pending.entries[number] = self._take(found, digests, skip=used)
            else:
                self._purse.reserved += found.worst
                self._pending.add(found, digests)

    def settle(self, *, everything: bool = False) -> None:
        """Put away the batches whose answers are all committed; those of records that are still open stay, unless
        ``everything`` of the source is decided: then what is left belonged to records that are gone."""
        for number, entry in self._pending.entries.items():
            if entry.state is not State.COLLECTED:
                continue
            if everything or not self._answers.hold(digests_in(self._ledger.requests(entry.name))):
                self._pending.entries[number] = settled = self._ledger.settle(entry)
                self._desk.tidy(settled)

    def _request_files(self) -> RequestFiles:
        self._round += 1
        round_number = self._round

        def named() -> tuple[str, str]:
            self._made += 1
            return f"quarry-{self._run_id}-{round_number:02}-{self._made:04}", tag(self._run_id, round_number)

        return RequestFiles(self._rules, named=named, path=self._ledger.requests)

    def _too_old(self, entry: BatchEntry) -> bool:
        hours = self._job.live_after
        old = hours is not None and self._now() - entry.created_at > hours * 3600
        return self._job.lane == "mixed" and old and not entry.gone_live

    def _last_commit(self) -> int:
        return max((commit.sequence for commit in self._store.commits()), default=0)

    def _show_progress(self) -> None:
        entries = [self._pending.entries[number] for number in self._pending.under_way()]
        self.progress.in_flight = sum(max(0, entry.lines - entry.completed) for entry in entries)

    def _end(self, why: str) -> None:
        self._ending = why
        self._passes.closing = True

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)


class _Both:
    """The journals' answers, and those of the batches, as the live lane reads them."""

    def __init__(self, replay: Known, known: Callable[[str], tuple[ChatReply | CallError | None, str]]) -> None:
        self._replay = replay
        self._known = known

    def get(self, request: str) -> dict[str, Any] | None:
        """The entry of a request that was answered before."""
        entry = self._replay.get(request)
        if entry is not None:
            return entry
        result, _ = self._known(request)
        return None if result is None else result_entry(result)
