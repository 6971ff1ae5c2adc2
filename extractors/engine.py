"""The live lane: drives thousands of extractions over one event loop, chunk by chunk.

The loop runs in a thread of its own, so that the command line, a notebook cell and the tasks of a
Prefect flow all hand their chunks to the same limits and the same budget.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Protocol, TypeVar

from extractors.documents.places import with_boxes
from extractors.errors import (
    BudgetReached,
    KeyRejected,
    ModelMissing,
    OutputError,
    QuarryError,
    ServerUnreachable,
)
from extractors.extraction import CALL_REASONS
from extractors.images import Pictures, load_pictures
from extractors.longtext.begin import begin
from extractors.longtext.retrieval import Ranker
from extractors.packer import Packer, Question, share_key
from extractors.packing import whole_calls, with_packs
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, ErrorKind, Purpose
from extractors.recipe import Recipe
from extractors.report import Progress
from extractors.routing_report import Routed
from extractors.store.journal import entry_result, result_entry
from extractors.store.parts import Item
from extractors.store.plan import Chunk, Group, chunk_name
from extractors.store.store import Commit
from extractors.telemetry.ids import RECORD
from extractors.telemetry.observer import Observer
from extractors.tools.requests import ToolRequest, ToolResult, entry_tool, tool_entry, tool_record
from extractors.tools.running import ToolRunner
from extractors.vectors.asking import HelperCalls, HelperFailed
from extractors.vectors.preparing import Rankers
from schemas.ledger import CallRecord
from schemas.outcomes import Extracted, Failed, Outcome, Reason
from schemas.records import Record
from schemas.usage import Usage

logger = logging.getLogger(__name__)
_LONG = 50_000
"""Characters of a text whose chunks take more than some 0.1 s to choose."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What became of a chunk: its commit (None when nothing of it was finished) and what is left."""

    chunk: str
    commit: Commit | None
    undone: int
    failures_by_reason: dict[str, int] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()
    tries: int = 0
    replayed: int = 0
    tries_by_status: dict[str, int] = field(default_factory=dict)
    """HTTP tries by what became of them: ``ok`` or a kind of error."""
    retries: int = 0
    """Tries that followed a failed one of the same call."""
    routed: Routed = field(default_factory=Routed)
    unfinished: Usage = field(default_factory=Usage)
    """What was asked now for records that are left undone; it is in no commit."""


class Known(Protocol):
    """Answers from before, as ``journal.entry_result`` reads them, by request digest."""

    def get(self, request: str) -> dict[str, Any] | None: ...


class ChunkJournal(Protocol):
    """``Journal``, as far as the engine knows it."""

    def append(self, request: str, entry: Mapping[str, Any]) -> None: ...
    def append_all(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...


class ChunkStore(Protocol):
    """``Store``, as far as the engine knows it; a worker of another machine has one that commits nothing."""

    def journal(self, chunk_id: str) -> ChunkJournal: ...
    def commit(
        self, chunk_id: str, items: list[Item], calls: list[CallRecord], *, run_id: str, at: datetime
    ) -> Commit: ...
    def read_outcome(self, part_path: str, fingerprint: str) -> Outcome: ...


class Undone(Exception):
    """Inside the engine: this record was not finished, and nothing is wrong with it. ``tries`` are those of its
    last call, which no answer will ever hold."""

    def __init__(self, tries: tuple[CallError, ...] = ()) -> None:
        super().__init__("undone")
        self.tries = tries


class Engine:
    """Answers chunks. ``connect`` opens the stack of policies over a transport and gives the ``Call``.

    Use it as a context manager; ``submit`` may be called from any thread.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: ChunkStore,
        *,
        connect: Callable[[AsyncExitStack, asyncio.Event], Coroutine[Any, Any, Call]],
        dialect: str,
        run_id: str,
        replay: Known,
        alive: Callable[[], Coroutine[Any, Any, str | None]],
        pictures_at_once: int = 64,
        final_dialect: str | None = None,
        observer: Observer | None = None,
        ceilings: tuple[Decimal | None, int | None] = (None, None),
        rankers: Callable[[concurrent.futures.Executor], Rankers] | None = None,
    ) -> None:
        """``ceilings``: money and tokens that its chunks may take, wherever they are answered."""
        self.recipe = self._recipe = recipe
        self.run_id = run_id
        self.store = self._store = store
        self.ceilings = ceilings
        self._connect = connect
        self._dialect = dialect
        self._final_dialect = final_dialect or dialect
        self._run_id = run_id
        self._replay = replay
        self._alive = alive
        self._observer = observer
        self.progress = Progress()
        self.stopped: str | None = None
        self.fatal: QuarryError | None = None
        self._call: Call | None = None
        self._stack = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="quarry-engine", daemon=True)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="quarry-store")
        # What ranks the chunks of long records beside their words; it reads and writes the output in the writer's thread.
        self._rankers = None if rankers is None else rankers(self._writer)
        # A picture is in memory from before its record is asked until that has its outcome.
        self._pictures = asyncio.Semaphore(pictures_at_once)
        self._decoder = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="quarry-pictures")
        self._asking: set[asyncio.Task[Any]] = set()
        self._working: set[asyncio.Task[Any]] = set()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._tools = None if recipe.tools is None else ToolRunner(recipe.tools)
        self._packer = Packer(recipe, replay)

    def __enter__(self) -> Engine:
        self._thread.start()
        try:
            self._call = self._run(self._connect(self._stack, self._stopping))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._ended())
        if self._tools is not None:
            self._tools.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._writer.shutdown()
        self._decoder.shutdown()

    def submit(self, chunk: Chunk) -> concurrent.futures.Future[ChunkDone]:
        """Hand over a chunk. The future's exception is set only for errors that end the run."""
        return asyncio.run_coroutine_threadsafe(self._process(chunk), self._loop)

    def stop(self, why: str) -> None:
        """Ask nothing new: calls in flight are finished and what is done is committed."""
        self.stopped = self.stopped or why
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def abort(self) -> None:
        """Do not wait for the calls in flight either; what is done is still committed."""
        self.stop("aborted")
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._asking])

    # Inside the loop ----------------------------------------------------------------------------

    async def _ended(self) -> None:
        if self._working:
            # Who handed these chunks over has gone away (Ctrl-C, an error of its own), and other threads may wait for
            # their futures: what is done is committed, what is in flight is let go.
            self.abort()
        while self._working:
            await asyncio.wait(self._working)
        await self._stack.aclose()

    async def _process(self, chunk: Chunk) -> ChunkDone:
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await self._observed(chunk)

    async def _observed(self, chunk: Chunk) -> ChunkDone:
        if self._observer is None:
            return await self._work(chunk)
        with self._observer.chunk(chunk.chunk_id, chunk.size) as sums:
            done = await self._work(chunk)
            if done.commit is not None:
                sums |= {"quarry.rows": done.commit.rows, "quarry.failures": done.commit.failures}
            sums |= {"quarry.undone": done.undone, "quarry.tries": done.tries}
            return done

    async def _work(self, chunk: Chunk) -> ChunkDone:
        journal = self._store.journal(chunk.chunk_id)
        work = _ChunkWork()
        try:
            if self._recipe.records_per_call > 1:
                await self._answer_packed(chunk.groups, journal, work)
            else:
                await asyncio.gather(*(self._answer(group, journal, work) for group in chunk.groups))
            undone = sum(len(group.records) for group in chunk.groups) - len(work.items)
            commit = await self._commit(chunk, work, undone)
        finally:
            journal.close()
        if not undone:
            journal.discard()
        # Look-ups are rows of the calls, and no calls of a model.
        asked = work.calls if self._tools is None else [call for call in work.calls if call.tool is None]
        if self._recipe.records_per_call > 1:
            asked = whole_calls(asked)
        reasons: dict[str, int] = {}
        for item in work.items:
            if isinstance(item.outcome, Failed):
                reasons[item.outcome.reason.value] = reasons.get(item.outcome.reason.value, 0) + 1
        return ChunkDone(
            chunk.chunk_id,
            commit,
            undone,
            reasons,
            tuple(call.latency for call in asked if call.status == "ok"),
            len(asked),
            work.replayed,
            dict(Counter(call.status for call in asked)),
            sum(call.try_number > 1 for call in asked),
            routed=Routed() if self._recipe.policy.final is None else Routed.of(work.items, work.calls),
            unfinished=work.unfinished,
        )

    async def _commit(self, chunk: Chunk, work: _ChunkWork, undone: int) -> Commit | None:
        if not work.items:
            return None
        name = chunk.chunk_id if not undone else chunk_name([item.record for item in work.items])
        here = copy_context()  # what the store logs is about this chunk
        return await self._loop.run_in_executor(
            self._writer,
            lambda: here.run(
                self._store.commit, name, work.items, work.calls, run_id=self._run_id, at=datetime.now(UTC)
            ),
        )

    async def _answer_packed(self, groups: Sequence[Group], journal: ChunkJournal, work: _ChunkWork) -> None:
        """Bring all groups to their outcome, the short ones after they were asked together."""
        found, alone = self._packer.packs(groups)
        await asyncio.gather(
            *(self._answer_pack(pack, journal, work) for pack in found),
            *(self._answer(group, journal, work) for group in alone),
        )

    async def _answer_pack(self, pack: Sequence[Group], journal: ChunkJournal, work: _ChunkWork) -> None:
        """Ask about several records in one call, then bring each to its outcome."""
        RECORD.set(pack[0].records[0].record_id)
        await self._turn()
        question = self._packer.question(pack)
        if question is not None:
            await self._ask_pack(question, journal, work)
        await asyncio.gather(*(self._answer(group, journal, work) for group in pack))

    async def _ask_pack(self, question: Question, journal: ChunkJournal, work: _ChunkWork) -> None:
        """One call about several records. Each one's share of what comes back is kept before any is used."""
        one, request = question.asked[0], question.request
        try:
            result = await self._ask(request)
        except Undone as undone:
            if undone.tries:
                last = replace(undone.tries[-1], earlier=undone.tries[:-1])
                work.calls.extend(
                    call_records(one.record.record_id, one.record.fingerprint, one.digest, request, last, self._dialect)
                )
            return
        found = self._packer.shares(question, result)
        try:
            journal.append_all([(share_key(digest, share), result_entry(share)) for digest, share in found.items()])
        except OutputError as error:
            # A full disk, as for a record that is asked alone: what cannot be kept is not used, what is done is.
            self.fatal = self.fatal or error
            self.stop(str(error))
            work.unfinished += result.usage
            return
        self._count(result)
        work.shares.update(found)

    async def _answer(self, group: Group, journal: ChunkJournal, work: _ChunkWork) -> None:
        """Bring one fingerprint's records to their outcome, or leave them undone."""
        first = group.records[0]
        RECORD.set(first.record_id)
        try:
            if group.donor is not None:
                outcome = self._store.read_outcome(group.donor, first.fingerprint)
                items = [Item(record, outcome, merged=True) for record in group.records]
                calls: list[CallRecord] = []
            else:
                outcome, calls = await self._extract(group, journal, work)
                items = [Item(record, outcome, merged=i > 0) for i, record in enumerate(group.records)]
        except Undone:
            return
        work.items.extend(items)
        work.calls.extend(calls)
        if isinstance(outcome, Extracted):
            self.progress.rows += len(items)
        else:
            self.progress.failures += len(items)
            logger.info("a record failed: %s", outcome.reason.value)

    async def _extract(self, group: Group, journal: ChunkJournal, work: _ChunkWork) -> tuple[Outcome, list[CallRecord]]:
        """A record's outcome and calls. Its pictures are loaded in a thread, those of a few records at a time."""
        refs, limits = group.records[0].images, self._recipe.policy.images
        if not refs or limits is None:
            return await self._drive(group, journal, work, Pictures())
        async with self._pictures:
            if self.stopped is not None:
                raise Undone
            pictures = await self._loop.run_in_executor(self._decoder, load_pictures, refs, limits)
            return await self._drive(group, journal, work, pictures)

    async def _drive(
        self, group: Group, journal: ChunkJournal, work: _ChunkWork, pictures: Pictures
    ) -> tuple[Outcome, list[CallRecord]]:
        record = group.records[0]
        calls: list[CallRecord] = []
        asked_now = Usage()
        helped: HelperCalls | None = None
        ranker: Ranker | None = None
        request: ChatRequest | None = None
        try:
            await self._turn()
            if self._rankers is not None and record.problem is None:
                helped = self._helping(record, journal, work)
                try:
                    ranker = await self._rankers.ranker(record.text, helped)
                except HelperFailed as failed:
                    why = f"its chunks could not be ranked: {failed.error.message}"
                    reason = CALL_REASONS[failed.error.kind]
                    return Failed(reason, why, model=self._recipe.policy.name, usage=helped.usage), helped.calls
                finally:
                    work.replayed += helped.replayed
                    calls.extend(helped.calls)
            extraction = await self._aside(record, partial(begin, self._recipe, record, pictures, ranker=ranker))
            while (asked := extraction.next_request()) is not None:
                if isinstance(asked, ToolRequest):
                    found, row = await self._look_up(asked, record.record_id, journal, work)
                    calls.append(row)
                    extraction.receive(found)
                    continue
                request = asked
                digest = request.digest()
                entry = self._replay.get(digest)
                result: ChatReply | CallError
                if entry is not None:
                    result = entry_result(entry)
                    work.replayed += 1
                elif isinstance(share := work.shares.get(digest), ChatReply):
                    result = share
                    asked_now += share.usage
                else:
                    if share is not None:
                        asked_now += share.usage
                    result = await self._ask(request)
                    asked_now += result.usage
                    if self._recipe.records_per_call > 1:
                        result = self._packer.alone(digest, result, work.shares)
                    journal.append(digest, result_entry(result))
                    self._count(result)
                    await self._turn()
                calls.extend(
                    call_records(
                        record.record_id, record.fingerprint, digest, request, result, self._dialect_of(request)
                    )
                )
                answer = result if self._recipe.records_per_call == 1 else with_packs(result)
                await self._aside(record, partial(extraction.receive, answer))
        except Undone as undone:
            if undone.tries and request is not None:
                # They were made, and no answer will ever hold them.
                last = replace(undone.tries[-1], earlier=undone.tries[:-1])
                work.calls.extend(
                    call_records(record.record_id, record.fingerprint, digest, request, last, self._dialect_of(request))
                )
            work.unfinished += asked_now if helped is None else asked_now + helped.asked
            raise
        except OutputError as error:
            # A full disk: no record's fault, and what cannot be kept must not be paid for.
            self.fatal = self.fatal or error
            self.stop(str(error))
            work.unfinished += asked_now if helped is None else asked_now + helped.asked
            raise Undone from None
        except Exception as error:
            # A bug or an odd record must cost that record only; its trace goes to the log.
            logger.exception("record %s: internal error", record.record_id)
            return internal_failure(error, self._recipe, calls), calls
        outcome = extraction.outcome
        if outcome is not None and record.document is not None:
            outcome = await self._loop.run_in_executor(self._decoder, with_boxes, outcome, record)
        if outcome is None:
            return internal_failure(RuntimeError("the extraction ended without an outcome"), self._recipe, calls), calls
        if helped is not None and helped.usage.calls:
            outcome = replace(outcome, usage=outcome.usage + helped.usage)
        return outcome, calls

    async def _aside(self, record: Record, work: Callable[[], _T]) -> _T:
        """Do a record's computing: that of a long text, which takes up to seconds, in a thread, so that the answers of
        all other records are heard meanwhile."""
        if len(record.text) <= _LONG:
            return work()
        return await self._loop.run_in_executor(self._decoder, copy_context().run, work)

    async def _look_up(
        self, request: ToolRequest, record_id: str, journal: ChunkJournal, work: _ChunkWork
    ) -> tuple[ToolResult, CallRecord]:
        """What came of a look-up, and its row. It is in the journal before it is used, so that a run that was killed
        finds it there and does not make it again. Raises ``Undone`` when the run is ending."""
        digest = request.digest()
        entry = self._replay.get(digest)
        if entry is not None:
            work.replayed += 1
            result = entry_tool(entry)
            return result, tool_record(record_id, digest, request, result)
        if self.stopped is not None or self._tools is None:
            raise Undone
        task = asyncio.current_task()
        if task is not None:
            self._asking.add(task)
        self.progress.looking_up += 1
        try:
            result = await self._tools.run(request)
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
            raise Undone from None
        finally:
            self.progress.looking_up -= 1
            if task is not None:
                self._asking.discard(task)
        journal.append(digest, tool_entry(result))
        self.progress.looked_up += 1
        return result, tool_record(record_id, digest, request, result)

    def _helping(self, record: Record, journal: ChunkJournal, work: _ChunkWork) -> HelperCalls:
        """The calls that help to rank a record's chunks."""

        def told(name: str, request: ChatRequest, result: ChatReply | CallError) -> list[CallRecord]:
            dialect = "reranks" if request.purpose is Purpose.RERANK else "embeddings"
            return call_records(record.record_id, record.fingerprint, name, request, result, dialect)

        async def ask(request: ChatRequest) -> ChatReply | CallError:
            try:
                result = await self._ask(request)
            except Undone as undone:
                if undone.tries:
                    last = replace(undone.tries[-1], earlier=undone.tries[:-1])
                    work.calls.extend(told(request.digest(), request, last))
                raise
            self._count(result)
            return result

        return HelperCalls(record.fingerprint, ask=ask, replay=self._replay.get, journal=journal.append, tell=told)

    def _dialect_of(self, request: ChatRequest) -> str:
        return self._dialect if request.model == self._recipe.policy.name else self._final_dialect

    async def _ask(self, request: ChatRequest) -> ChatReply | CallError:
        """One question through the policies. Raises ``Undone`` when the run is ending."""
        if self.stopped is not None or self._call is None:
            raise Undone
        task = asyncio.current_task()
        if task is not None:
            self._asking.add(task)
        self.progress.in_flight += 1
        try:
            result = await self._call(request)
        except BudgetReached as reached:
            self.stop(f"budget: {reached}")
            raise Undone(reached.earlier) from None
        except QuarryError as error:
            self.fatal = self.fatal or error
            self.stop(str(error))
            raise Undone from None
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
            raise Undone from None
        finally:
            self.progress.in_flight -= 1
            if task is not None:
                self._asking.discard(task)
        if isinstance(result, CallError):
            await self._judge(result, request)
        return result

    async def _turn(self) -> None:
        """Wait for a turn to compute: one in each round of the event loop.

        Replies come in bunches, records in chunks. Working through them all before the loop looks at its sockets
        again would keep free places empty for that long, and the next replies would come as a larger bunch."""
        turn = self._loop.create_future()
        if not self._turns:
            self._loop.call_soon(self._next_turn)
        self._turns.append(turn)
        await turn

    def _next_turn(self) -> None:
        turn = self._turns.popleft()
        if not turn.done():
            turn.set_result(None)
        if self._turns:
            self._loop.call_soon(self._next_turn)

    async def _judge(self, error: CallError, request: ChatRequest) -> None:
        """Is it this call's trouble, or the whole run's? Raises ``Undone`` when the run must end."""
        if error.kind is ErrorKind.CANCELLED:
            raise Undone(error.earlier)
        if error.kind is ErrorKind.KEY:
            self.fatal = self.fatal or KeyRejected(self._about(error, request))
        elif error.kind is ErrorKind.MODEL:
            self.fatal = self.fatal or ModelMissing(self._about(error, request))
        elif error.kind is ErrorKind.CONNECTION:
            trouble = await self._alive()
            if trouble is None:
                return
            self.fatal = self.fatal or ServerUnreachable(trouble)
        else:
            return
        self.stop(str(self.fatal))
        raise Undone((*error.earlier, replace(error, earlier=())))

    def _about(self, error: CallError, request: ChatRequest) -> str:
        """What went wrong, and with the final model where it was that: its options are others than the draft's."""
        final = self._recipe.policy.final
        if final is None or request.model != final.name:
            return error.message
        return (
            f"the final model {final.name}: {error.message.replace('--model', '--final')}; it is named by --final or "
            "QWEN_FINAL_MODEL. Once it answers, the same command goes on, and the draft is not asked again"
        )

    def _count(self, result: ChatReply | CallError) -> None:
        progress, usage = self.progress, result.usage
        progress.calls += 1
        progress.input_tokens += usage.input_tokens
        progress.output_tokens += usage.output_tokens
        if progress.cost is not None:
            progress.cost = None if usage.cost is None else progress.cost + usage.cost

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@dataclass(slots=True)
class _ChunkWork:
    items: list[Item] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    replayed: int = 0
    unfinished: Usage = field(default_factory=Usage)
    shares: dict[str, ChatReply | CallError] = field(default_factory=dict)
    """What packs brought, by the digest of the question that each record would have been asked alone."""


def internal_failure(error: Exception, recipe: Recipe, calls: Sequence[CallRecord]) -> Failed:
    usage = sum(
        (
            Usage(1, call.input_tokens, call.output_tokens, cost=call.cost)
            for call in calls
            if call.status == "ok" and call.tool is None
        ),
        Usage(),
    )
    return Failed(Reason.INTERNAL, f"{type(error).__name__}: {error}"[:500], model=recipe.policy.name, usage=usage)


def call_records(
    record_id: str, fingerprint: str, digest: str, request: ChatRequest, result: ChatReply | CallError, dialect: str
) -> list[CallRecord]:
    """One row for each HTTP try of a call, the failed ones first."""
    rows = []
    for number, one in enumerate((*result.earlier, result), start=1):
        usage = one.usage
        http_status: int | None
        finish_reason: str | None
        raw: str | None
        error: str | None
        if isinstance(one, ChatReply):
            status, http_status, finish_reason, raw, error = "ok", 200, one.finish_reason, one.text, None
        else:
            status, http_status, finish_reason = one.kind.value, one.http_status, None
            raw, error = one.body or None, one.message
        rows.append(
            CallRecord(
                record_id=record_id,
                fingerprint=fingerprint,
                request=digest,
                model=one.model or request.model,
                dialect=dialect,
                mode=(one.mode or request.shape.mode).value,
                purpose=request.purpose.value,
                attempt=request.attempt,
                try_number=number,
                status=status,
                http_status=http_status,
                started_at=one.started_at,
                latency=one.latency,
                input_tokens=usage.input_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.output_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                cost=usage.cost,
                finish_reason=finish_reason,
                raw=raw,
                error=error,
                pack=one.pack,
            )
        )
    return rows
