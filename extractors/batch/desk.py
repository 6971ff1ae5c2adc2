"""The desk: takes request files to the service and brings results back, each step on disk before it is taken.

Upload, create, poll, download. A step whose reply was lost is looked up by the batch's own name before it is
taken again, so that nothing is submitted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from extractors.batch.ledger import BatchEntry, BatchLedger, State
from extractors.errors import BatchRefused, KeyRejected, ServerUnreachable
from extractors.qwen.batch import BatchObject, BatchStatus
from extractors.qwen.batch_client import BatchClient, BatchTrouble
from extractors.qwen.requests import ErrorKind

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_LOOKS = 3
"""Looks for a batch whose creation was not answered: a list may lag behind."""


class Desk:
    """One recipe's errands. ``pause`` waits so many seconds, or less when the run is stopped; ``attempts`` is how
    often a request is made; ``patience`` is the first wait between two, in seconds, doubled after each."""

    def __init__(
        self,
        ledger: BatchLedger,
        client: BatchClient,
        *,
        pause: Callable[[float], None],
        now: Callable[[], float],
        attempts: int = 4,
        patience: float = 1.0,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._pause = pause
        self._now = now
        self._attempts = attempts
        self._patience = patience

    def recover(self, entry: BatchEntry) -> BatchEntry | None:
        """What a killed run left: a batch that the service has is taken up, one that it has not is forgotten (None),
        and its requests are written anew."""
        if entry.state is State.CREATING and (found := self._find(entry)) is not None:
            return self._running(entry, found)
        if entry.state is State.CREATING or entry.state.withdrawable:
            self._withdraw(entry)
            return None
        return entry

    def submit(self, entry: BatchEntry) -> BatchEntry:
        """Upload and create. Raises the errors of ``extractors.errors`` that end a run."""
        path = self._ledger.requests(entry.name)
        entry = self._ledger.save(replace(entry, state=State.UPLOADING))
        uploaded = self._asked(lambda: self._client.upload(path, name=f"{entry.name}.jsonl"), "upload")
        entry = self._ledger.save(replace(entry, state=State.UPLOADED, file_id=uploaded.id))
        entry = self._ledger.save(replace(entry, state=State.CREATING))
        return self._running(entry, self._create(entry))

    def look(self, entry: BatchEntry) -> BatchEntry:
        """Where a batch stands now. A service that does not answer leaves the entry as it is."""
        assert entry.batch_id is not None
        batch_id = entry.batch_id
        try:
            batch = self._client.retrieve(batch_id)
        except BatchTrouble as trouble:
            if trouble.error.retryable:
                logger.warning("batch %s: %s; looked again later", entry.batch_id, trouble)
                return entry
            raise self._fatal(trouble, "look at") from trouble
        return self._told(entry, batch)

    def cancel(self, entry: BatchEntry, *, gone_live: bool = False) -> BatchEntry:
        """Have a batch stopped. What it has done is still to be collected."""
        assert entry.batch_id is not None
        batch_id = entry.batch_id
        entry = self._ledger.save(replace(entry, gone_live=entry.gone_live or gone_live))
        try:
            return self._told(entry, self._client.cancel(batch_id))
        except BatchTrouble as trouble:
            if trouble.error.kind is ErrorKind.KEY:
                raise self._fatal(trouble, "cancel") from trouble
            # It may have ended by itself just now: the next look tells.
            logger.warning("batch %s could not be cancelled: %s", entry.batch_id, trouble)
            return entry

    def collect(self, entry: BatchEntry) -> BatchEntry:
        """Bring the result files of an ended batch here."""
        for file_id, path in (
            (entry.output_file_id, self._ledger.output(entry.name)),
            (entry.error_file_id, self._ledger.errors(entry.name)),
        ):
            if file_id is not None and not path.exists():
                self._asked(lambda file_id=file_id, path=path: self._client.download(file_id, path), "download")  # type: ignore[misc]
        return entry

    def tidy(self, entry: BatchEntry) -> None:
        """Delete a settled batch's files at the service, which keeps a limited number of them."""
        for file_id in (entry.file_id, entry.output_file_id, entry.error_file_id):
            if file_id is not None:
                try:
                    self._client.delete(file_id)
                except BatchTrouble as trouble:
                    logger.warning("file %s stays at the service: %s", file_id, trouble)

    def _create(self, entry: BatchEntry) -> BatchObject:
        file_id = entry.file_id
        assert file_id is not None

        def create() -> BatchObject:
            try:
                return self._client.create(
                    file_id, endpoint=entry.url, window=entry.window, metadata={"ds_name": entry.name}
                )
            except BatchTrouble as trouble:
                if trouble.unclear and (found := self._find(entry)) is not None:
                    return found
                raise

        return self._asked(create, "create a batch of")

    def _find(self, entry: BatchEntry) -> BatchObject | None:
        """The batch with our name or our file, if the service has one."""
        for look in range(_LOOKS):
            if look:
                self._pause(self._patience * 2**look)
            for batch in self._asked(lambda: list(self._client.batches(ds_name=entry.name)), "list"):
                same = entry.file_id is not None and batch.input_file_id == entry.file_id
                if same or batch.metadata.get("ds_name") == entry.name:
                    return batch
        return None

    def _withdraw(self, entry: BatchEntry) -> None:
        try:
            if entry.file_id is not None:
                self._client.delete(entry.file_id)
            elif entry.state is State.UPLOADING:
                for file in self._client.files():
                    if file.name == f"{entry.name}.jsonl":
                        self._client.delete(file.id)
        except BatchTrouble as trouble:
            # An uploaded file that nothing refers to costs nothing.
            logger.warning("the file of %s stays at the service: %s", entry.name, trouble)
        self._ledger.remove(entry)

    def _running(self, entry: BatchEntry, batch: BatchObject) -> BatchEntry:
        created = replace(entry, state=State.RUNNING, batch_id=batch.id, created_at=self._now())
        return self._told(created, batch, always=True)

    def _told(self, entry: BatchEntry, batch: BatchObject, *, always: bool = False) -> BatchEntry:
        told = replace(
            entry,
            status=batch.status.value,
            completed=batch.completed,
            failed=batch.failed,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            problems=tuple((one.code, one.message[:500], one.line) for one in batch.problems),
            state=State.ENDED if BatchStatus(batch.status).ended else entry.state,
        )
        return self._ledger.save(told) if always or told != entry else entry

    def _asked(self, request: Callable[[], _T], what: str) -> _T:
        """Make a request until it succeeds, as often as is sensible."""
        wait = self._patience
        for attempt in range(1, self._attempts + 1):
            try:
                return request()
            except BatchTrouble as trouble:
                if not trouble.error.retryable or attempt == self._attempts:
                    raise self._fatal(trouble, what) from trouble
                logger.warning("%s: %s; tried again", what, trouble)
                self._pause(trouble.error.retry_after or wait)
                wait *= 2
        raise AssertionError("unreachable")

    def _fatal(self, trouble: BatchTrouble, what: str) -> KeyRejected | ServerUnreachable | BatchRefused:
        if trouble.error.kind is ErrorKind.KEY:
            return KeyRejected(str(trouble))
        if trouble.error.kind in (ErrorKind.CONNECTION, ErrorKind.TIMED_OUT, ErrorKind.OVERLOADED):
            return ServerUnreachable(
                f"cannot {what} batch files: {trouble}; run the same command again, nothing is submitted twice"
            )
        return BatchRefused(f"the service refused to {what} batch files: {trouble}; use --lane live for this model")
