"""A look-up that the pure core asks for, and what came of it: its row among the calls, its line in the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from schemas.ledger import CallRecord

TOOL = "tool"
"""The purpose, dialect and mode of a look-up's row."""


class Trouble(StrEnum):
    """How a look-up goes wrong."""

    UNKNOWN = "unknown"
    """There is no function of that name."""
    ARGUMENTS = "arguments"
    """The arguments are no JSON, or not what the function takes."""
    TIMED_OUT = "timed_out"
    RAISED = "raised"
    RESULT = "result"
    """The result is no JSON, or too long."""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One look-up of one record: ``step`` counts the record's look-ups from 1, ``arguments`` is what the model wrote."""

    record: str
    """The record's fingerprint."""
    step: int
    tool: str
    arguments: str
    model: str
    """Who asked for it."""
    shown: str = ""
    """A hash of what the model was shown of the record: each window of a long one has steps of its own."""

    def digest(self) -> str:
        """32 hex digits that name this look-up: the same in any process."""
        told = "\x00".join(("tool", self.record, self.shown, str(self.step), self.tool, self.arguments))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a look-up: ``text`` is JSON, or else ``trouble`` and ``message`` say what went wrong. ``latency`` is
    in seconds, ``started_at`` in Unix seconds."""

    text: str | None
    trouble: Trouble | None = None
    message: str = ""
    latency: float = 0.0
    started_at: float = 0.0


def tool_entry(result: ToolResult) -> dict[str, Any]:
    """The result as JSON values, for the journal; ``entry_tool`` is its exact inverse."""
    return {"tool": [result.text, result.trouble, result.message, result.latency, result.started_at]}


def entry_tool(entry: Mapping[str, Any]) -> ToolResult:
    """The result that ``tool_entry`` wrote."""
    text, trouble, message, latency, started_at = entry["tool"]
    return ToolResult(text, None if trouble is None else Trouble(trouble), message, latency, started_at)


def tool_record(record_id: str, digest: str, request: ToolRequest, result: ToolResult) -> CallRecord:
    """The look-up's row in the table of calls."""
    return CallRecord(
        record_id=record_id,
        fingerprint=request.record,
        request=digest,
        model=request.model,
        dialect=TOOL,
        mode=TOOL,
        purpose=TOOL,
        attempt=request.step,
        try_number=1,
        status="ok" if result.trouble is None else "error",
        http_status=None,
        started_at=result.started_at,
        latency=result.latency,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        cost=Decimal(0),
        finish_reason=None,
        raw=result.text,
        error=None if result.trouble is None else f"{result.trouble.value}: {result.message}",
        tool=request.tool,
        arguments=request.arguments,
    )
