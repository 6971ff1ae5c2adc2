"""A pass over a plan's chunks: what can be decided from the answers is, what asks something new is written down."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from extractors.batch.answers import Answers
from extractors.batch.pending import Pending
from extractors.batch.purse import Purse
from extractors.batch.request_files import RequestFiles
from extractors.budget import worst_case
from extractors.documents.places import with_boxes
from extractors.engine import ChunkDone, Known, call_records, internal_failure
from extractors.errors import QuarryError
from extractors.extraction import Extraction
from extractors.images import Pictures, load_pictures
from extractors.qwen import chat
from extractors.qwen.dialects import CHAT
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind
from extractors.recipe import Recipe
from extractors.report import Progress
from extractors.store.journal import entry_result
from extractors.store.parts import Item
from extractors.store.plan import Chunk, Group, chunk_name
from extractors.store.store import Store
from schemas.ledger import CallRecord
from schemas.outcomes import Extracted, Failed, Outcome

logger = logging.getLogger(__name__)


class Look:
    """What one pass found to ask."""

    def __init__(self, files: RequestFiles) -> None:
        self.files = files
        self.written = 0
        self.chunks: dict[int, list[int]] = {}
        """A chunk -> its groups with a request in the files."""
        self.of_file: dict[str, set[int]] = {}
        """A file -> the chunks with a request in it."""
        self.live: dict[int, list[int]] = {}
        self.unpaid: set[int] = set()
        """Chunks with requests that the ceiling has no room for yet."""


class Passes:
    """Goes over chunks as often as there is something new to decide.

    ``attempts`` is how often a request is tried whose failures are worth another try."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        *,
        run_id: str,
        profile: Profile,
        pricing: Pricing,
        attempts: int,
        replay: Known,
        answers: Answers,
        pending: Pending,
        purse: Purse,
        progress: Progress,
    ) -> None:
        self._recipe = recipe
        self._store = store
        self._run_id = run_id
        self._profile = profile
        self._pricing = pricing
        self._attempts = attempts
        self._replay = replay
        self._answers = answers
        self._pending = pending
        self._purse = purse
        self.progress = progress
        self._left: dict[int, int] = {}
        """A chunk that was looked at -> its open groups, a bit each."""
        self.live_only: set[bytes] = set()
        """Requests that no batch is to answer any more."""
        self.stopping = False
        """Look at no further chunk."""
        self.closing = False
        """Ask nothing new: what has come back is committed, then the run ends."""

    def over(self, chunks: Callable[[], Iterator[Chunk]], wanted: set[int] | None, look: Look) -> Iterator[ChunkDone]:
        """Decide what can be decided of the ``wanted`` chunks (None: all), and put the rest into ``look``."""
        for number, chunk in enumerate(chunks()):
            if self.stopping:
                return
            if wanted is not None and number not in wanted:
                continue
            open_groups = self._left.get(number)
            items: list[Item] = []
            calls: list[CallRecord] = []
            left = 0
            used: list[bytes] = []
            for place, group in enumerate(chunk.groups):
                if open_groups is not None and not open_groups >> place & 1:
                    continue
                found = self._answer(group, number, place, look, used)
                if found is None:
                    left |= 1 << place
                    continue
                outcome, its_calls = found
                merged = group.donor is not None
                items += [Item(record, outcome, merged=merged or i > 0) for i, record in enumerate(group.records)]
                calls += its_calls
            self._left[number] = left
            if items:
                yield self._commit(chunk, items, calls, used, whole=open_groups is None and not left)

    def _answer(
        self, group: Group, number: int, place: int, look: Look, used: list[bytes]
    ) -> tuple[Outcome, list[CallRecord]] | None:
        """A group's outcome, or None while it is open: then its next request is on its way."""
        record = group.records[0]
        if group.donor is not None:
            return self._store.read_outcome(group.donor, record.fingerprint), []
        calls: list[CallRecord] = []
        digests: list[bytes] = []
        try:
            limits = self._recipe.policy.images
            pictures = load_pictures(record.images, limits) if record.images and limits is not None else Pictures()
            extraction = Extraction(self._recipe, record, pictures)
            while (request := extraction.next_request()) is not None:
                digest = request.digest()
                result, lane = self.known(digest)
                if result is None:
                    result = self._ask(request, digest, number, place, look)
                    if result is None:
                        return None
                else:
                    calls += call_records(record.record_id, record.fingerprint, digest, request, result, lane)
                    digests.append(bytes.fromhex(digest))
                extraction.receive(result)
        except QuarryError:
            raise
        except Exception as error:
            # A bug or an odd record must cost that record only; its trace goes to the log.
            logger.exception("record %s: internal error", record.record_id)
            return internal_failure(error, self._recipe, calls), calls
        used += digests
        assert extraction.outcome is not None
        return with_boxes(extraction.outcome, record), calls

    def gone_live(self, number: int, places: Iterable[int]) -> None:
        """These groups of a chunk were answered live."""
        for place in places:
            self._left[number] &= ~(1 << place)

    def known(self, digest: str) -> tuple[ChatReply | CallError | None, str]:
        """A request's final answer and the lane it came through; None where it must be asked (again)."""
        entry = self._replay.get(digest)
        if entry is not None:
            return entry_result(entry), CHAT.name
        result, tries = self._answers.result(digest)
        if isinstance(result, CallError) and (result.fatal or (result.retryable and tries < self._attempts)):
            return None, "batch"
        return result, "batch"

    def _ask(self, request: ChatRequest, digest: str, number: int, place: int, look: Look) -> CallError | None:
        """Have a request asked; an error for one that cannot be."""
        key = bytes.fromhex(digest)
        if self._pending.waits(key, number):
            return None
        if key in self.live_only:
            look.live.setdefault(number, []).append(place)
            return None
        if self.closing:
            return None
        body = chat.encode(request, profile=self._profile)
        if (why := look.files.too_long(body)) is not None:
            return CallError(ErrorKind.TOO_LONG, why, request.model, code="batch_line_size")
        worst = worst_case(request, self._pricing)
        if not self._purse.reserve(worst):
            look.unpaid.add(number)
            return None
        name = look.files.add(request, body, digest=digest, worst=worst)
        look.written += 1
        look.of_file.setdefault(name, set()).add(number)
        look.chunks.setdefault(number, []).append(place)
        return None

    def _commit(
        self, chunk: Chunk, items: list[Item], calls: list[CallRecord], used: list[bytes], *, whole: bool
    ) -> ChunkDone:
        name = chunk.chunk_id if whole else chunk_name([item.record for item in items])
        commit = self._store.commit(name, items, calls, run_id=self._run_id, at=datetime.now(UTC))
        self._answers.forget(used)
        reasons: dict[str, int] = {}
        for item in items:
            if isinstance(item.outcome, Extracted):
                self.progress.rows += 1
            else:
                self.progress.failures += 1
            if isinstance(item.outcome, Failed):
                reasons[item.outcome.reason.value] = reasons.get(item.outcome.reason.value, 0) + 1
        return ChunkDone(
            chunk.chunk_id,
            commit,
            chunk.size - len(items),
            reasons,
            (),
            len(calls),
            tries_by_status=dict(Counter(call.status for call in calls)),
            retries=sum(call.try_number > 1 for call in calls),
        )
