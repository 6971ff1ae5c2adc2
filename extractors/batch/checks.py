"""What the batch lane cannot do, and what the live lane must not do beside it."""

from __future__ import annotations

from extractors.batch.ledger import BatchLedger, State
from extractors.endpoint import Endpoint
from extractors.errors import JobError
from extractors.qwen.batch import check_window
from extractors.qwen.dialects import CHAT
from extractors.store.store import Store
from schemas.job import ExtractionJob


def check_batch_job(job: ExtractionJob, endpoint: Endpoint) -> None:
    """Raises ``JobError`` for what the Batch API cannot do."""
    check_window(job.batch_window)
    if endpoint.embedded is not None:
        raise JobError(f"--lane {job.lane}: the embedded model has no Batch API; choose a hosted model or --lane live")
    if endpoint.dialect is not CHAT and job.dialect != "auto":
        raise JobError(f"--lane {job.lane} sends chat requests: leave --dialect {job.dialect} out, or use --lane live")
    if not endpoint.profile.batch:
        raise JobError(
            f"--lane {job.lane}: {endpoint.model} is not taken by the Batch API, as far as its profile "
            f"({endpoint.profile.name}) says; use --lane live, or set batch = true for it in a profiles file (QUARRY_PROFILES)"
        )


def check_no_batches(store: Store) -> None:
    """Raises ``JobError`` for a live run over records that batches answer, or have answered: they would be paid
    twice."""
    open_ones = [entry for entry in BatchLedger(store.folder).entries() if entry.state is not State.SETTLED]
    if open_ones:
        raise JobError(
            f"{len(open_ones)} batches of this recipe are not settled ({open_ones[0].name}): run with --lane batch to go "
            "on, or `quarry batch cancel` and --lane mixed --live-tail 50000 to ask live just what they did not answer"
        )
