"""A free trial of files and batches: the service's test model and address, one line, a fixed answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from extractors.endpoint import Settings
from extractors.errors import BatchRefused, JobError, KeyRejected
from extractors.qwen.batch import DRY_RUN, TEST_MODEL, BatchObject, request_line
from extractors.qwen.batch_client import BatchClient, BatchTrouble
from extractors.qwen.requests import ErrorKind


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went: the batch as it ended, and the bytes of its output file."""

    batch: BatchObject
    output: bytes


def try_batches(
    settings: Settings,
    *,
    address: str | None = None,
    poll: float = 60.0,
    most_looks: int = 60,
    pause: Callable[[float], None] = time.sleep,
) -> Trial:
    """Upload one line for the test model, create, poll every ``poll`` seconds, download, delete. Costs nothing.

    Raises ``JobError`` without an address, ``KeyRejected``, and ``BatchRefused`` for whatever does not work."""
    address = address or settings.credentials.address()
    if address is None:
        raise JobError("give --base-url, or set DASHSCOPE_REGION or QWEN_BASE_URL_COMPAT")
    body = orjson.dumps({"model": TEST_MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    with (
        tempfile.TemporaryDirectory(prefix="quarry-trial-") as folder,
        BatchClient(address, api_key=settings.api_key) as client,
    ):
        path = Path(folder) / "trial.jsonl"
        path.write_bytes(request_line("trial-1", body, url=DRY_RUN.url))
        try:
            uploaded = client.upload(path, name="quarry-trial.jsonl")
            batch = client.create(uploaded.id, endpoint=DRY_RUN.url, window="24h", metadata={"ds_name": "quarry-trial"})
            for _ in range(most_looks):
                batch = client.retrieve(batch.id)
                if batch.status.ended:
                    break
                pause(poll)
            if batch.output_file_id is None:
                why = "; ".join(one.message for one in batch.problems) or f"it is {batch.status.value}"
                raise BatchRefused(f"the trial batch {batch.id} brought nothing: {why}")
            client.download(batch.output_file_id, path)
            for file_id in (uploaded.id, batch.output_file_id):
                client.delete(file_id)
        except BatchTrouble as trouble:
            if trouble.error.kind is ErrorKind.KEY:
                raise KeyRejected(str(trouble)) from trouble
            raise BatchRefused(f"batches do not work at {client.root}: {trouble}") from trouble
        return Trial(batch, path.read_bytes())
