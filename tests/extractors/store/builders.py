"""Small outputs for the store's tests: one schema, its items and calls, and a store to put them into."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from extractors.qwen.requests import ChatReply
from extractors.store.parts import Item
from extractors.store.store import Commit, Store
from schemas.arrow import RowCodec
from schemas.evidence import Evidence, Match
from schemas.ledger import CallRecord
from schemas.outcomes import Attempt, Extracted, Failed, FieldProblem, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECIPE = "ab" * 32
SKU = pa.schema([("sku", pa.string())])


class Line(BaseModel):
    label: str
    position: int


class Thing(BaseModel):
    """What is extracted."""

    name: str
    lines: list[Line] = []


def record(number: int, text: str | None = None, **changes: Any) -> Record:
    text = f"thing {number}" if text is None else text
    defaults = {"record_id": f"r{number:04}", "fingerprint": content_fingerprint(text), "kept": {"sku": f"s{number}"}}
    return Record(text=text, **(defaults | changes))


USAGE = Usage(1, 100, 20, cost=Decimal("0.0025"))


def row(number: int, name: str | None = None, *, merged: bool = False, **changes: Any) -> Item:
    """A record that became a row, with one line and one piece of evidence."""
    one = record(number, **changes)
    value = Thing(name=name or f"name {number}", lines=[Line(label="a", position=7), Line(label="b", position=8)])
    evidence = [Evidence("name", Match.EXACT, one.text[:5], 0, 5), Evidence("lines/0/label", Match.UNGROUNDED)]
    return Item(one, Extracted(value, evidence, "qwen-plus", [attempt()], USAGE, ("name",), ("price",), True), merged)


def failure(number: int, reason: Reason = Reason.INVALID, **changes: Any) -> Item:
    """A record that failed."""
    problems = (FieldProblem("name", "string_type", "must be a string", "1"),)
    outcome = Failed(reason, "no good answer", "qwen-plus", problems, (attempt(),), USAGE, {"name": 1})
    return Item(record(number, **changes), outcome)


def attempt() -> Attempt:
    return Attempt(1, "extract", "qwen-plus", '{"name": 1}', "stop", 100, 20, None)


def call(number: int) -> CallRecord:
    return CallRecord(
        record_id=f"r{number:04}",
        fingerprint=content_fingerprint(f"thing {number}"),
        request=f"{number:032x}",
        model="qwen-plus",
        dialect="chat",
        mode="json_schema",
        purpose="extract",
        attempt=1,
        try_number=1,
        status="ok",
        http_status=200,
        started_at=1.7e9,
        latency=0.5,
        input_tokens=100,
        cached_tokens=0,
        output_tokens=20,
        reasoning_tokens=0,
        cost=USAGE.cost,
        finish_reason="stop",
        raw='{"name": 1}',
        error=None,
    )


def open_store(out: Path, **changes: Any) -> Store:
    options: dict[str, Any] = {
        "name": "thing",
        "recipe_id": RECIPE,
        "recipe": {"prompt": "…"},
        "codec": RowCodec(Thing),
        "kept": SKU,
    }
    return Store.open(out, **(options | changes))


def answer_of(one: CallRecord) -> ChatReply:
    """The reply that a call of ``call`` got."""
    return ChatReply(one.raw or "", "stop", USAGE, one.model, one.latency, started_at=one.started_at)


def put(store: Store, chunk: str, items: Sequence[Item], calls: Sequence[CallRecord] = ()) -> Commit:
    return store.commit(chunk, items, calls, run_id="run-1", at=AT)
