"""Files and batches: request lines to bytes, result lines and batch objects read. Pure: no socket, no clock.

Facts from Model Studio's "OpenAI compatible - Batch (file input)". What differs between its pages is read in both
ways (``error.code`` and ``error.error_code``), and what a message may lack (``role``) is not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from extractors.errors import JobError
from extractors.qwen import chat
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply
from extractors.qwen.wire import load

CHAT_URL = "/v1/chat/completions"
TEST_URL = "/v1/chat/ds-test"
TEST_MODEL = "batch-test-model"
"""The free dry run: one fixed answer, at most 100 lines and 1 MB."""
_WINDOW = re.compile(r"(\d{1,4})([hd])")
_NAME = re.compile(rb'"custom_id":"([\w.-]+)"')


@dataclass(frozen=True, slots=True)
class BatchRules:
    """The most that the service takes. Megabytes are read as a million bytes, the smaller of the two readings."""

    requests: int = 50_000
    """Requests in a file."""
    file_bytes: int = 500_000_000
    line_bytes: int = 6_000_000
    """Older pages say 1 MB."""
    url: str = CHAT_URL


DRY_RUN = BatchRules(requests=100, file_bytes=1_000_000, line_bytes=1_000_000, url=TEST_URL)


class BatchStatus(StrEnum):
    """Where a batch stands, in the service's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    """Its file was refused as a whole: nothing was run."""
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self in (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """What was wrong with a file. ``line`` counts from 1; None: with the whole file."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchObject:
    """A batch as the service shows it. The counts are hints: failed lines may be counted as completed."""

    id: str
    status: BatchStatus
    input_file_id: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    problems: tuple[BatchProblem, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileObject:
    """An uploaded file."""

    id: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One line of an output or error file. ``status`` is the HTTP status of the line's own request; None where the
    line was not run to a response."""

    custom_id: str
    status: int | None
    body: Any
    error: Any


def check_window(window: str) -> str:
    """A completion window as the service takes it: whole hours or days, 24h to 336h (14d). Raises ``JobError``."""
    found = _WINDOW.fullmatch(window)
    hours = int(found[1]) * (24 if found[2] == "d" else 1) if found else 0
    if not 24 <= hours <= 336:
        raise JobError(f"--batch-window {window!r}: give whole hours or days from 24h to 336h (14d), such as 24h or 3d")
    return window


def request_line(custom_id: str, body: bytes, *, url: str = CHAT_URL) -> bytes:
    """A line of a request file. ``body`` is a chat request as it travels; nothing in the id needs an escape."""
    return b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n' % (custom_id.encode(), url.encode(), body)


def custom_id_in(line: bytes) -> str:
    """The id of a line that ``request_line`` made. Raises ``ValueError``."""
    found = _NAME.search(line, 0, 200)
    if found is None:
        raise ValueError("a request line without a custom_id")
    return found[1].decode()


def read_result(line: bytes) -> ResultLine | None:
    """A line of an output or error file; None for one that cannot be read."""
    try:
        data = load(line)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("custom_id"), str):
        return None
    response = data.get("response")
    status = body = None
    if isinstance(response, dict):
        status, body = response.get("status_code"), response.get("body")
    return ResultLine(data["custom_id"], status if isinstance(status, int) else None, body, data.get("error"))


def result_of(line: ResultLine, *, model: str, pricing: Pricing) -> ChatReply | CallError:
    """The answer or the error that a line brings. A line counts by its own status, whatever the batch's counts say."""
    body = line.body
    if line.error and (line.status is None or line.status != 200) and not body:
        body = {"error": _error_words(line.error)}
    status = line.status
    if status is None:
        # Nothing was run to a response, nor billed: but for what the request itself did wrong, it may be asked again.
        status = 200 if not line.error else 400 if error_code(line).lower().startswith("invalid") else 500
    return chat.decode(status, {}, orjson.dumps(body), model=model, pricing=pricing)


def error_code(line: ResultLine) -> str:
    """The code of a line's own error, in either spelling; empty where there is none."""
    return str(_error_words(line.error).get("code") or "") if line.error else ""


def read_batch(data: Any) -> BatchObject:
    """A batch object. Raises ``ValueError`` for what is none."""
    try:
        counts = data.get("request_counts") or {}
        told = (data.get("errors") or {}).get("data") or ()
        problems = tuple(
            BatchProblem(str(one.get("code") or ""), str(one.get("message") or ""), _whole(one.get("line")))
            for one in told
        )
        return BatchObject(
            id=str(data["id"]),
            status=BatchStatus(data["status"]),
            input_file_id=str(data.get("input_file_id") or ""),
            output_file_id=data.get("output_file_id") or None,
            error_file_id=data.get("error_file_id") or None,
            total=int(counts.get("total") or 0),
            completed=int(counts.get("completed") or 0),
            failed=int(counts.get("failed") or 0),
            problems=problems,
            metadata=data.get("metadata") or {},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a batch object ({type(error).__name__}: {error})") from error


def read_file(data: Any) -> FileObject:
    """A file object. Raises ``ValueError`` for what is none."""
    try:
        return FileObject(str(data["id"]), str(data.get("filename") or ""), int(data.get("bytes") or 0))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a file object ({type(error).__name__}: {error})") from error


def _error_words(error: Any) -> Mapping[str, Any]:
    if not isinstance(error, Mapping):
        return {"message": str(error)}
    code, message = error.get("code") or error.get("error_code"), error.get("message") or error.get("error_message")
    return {"code": code, "message": message}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
