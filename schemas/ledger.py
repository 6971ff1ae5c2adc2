"""The Arrow schemas of what a run writes, fixed before the first call: rows, failures, calls.

``RowsSchema`` = record_id, fingerprint, kept columns, the model's fields, ``_evidence``,
``_confidence``, ``_meta``. Failures and calls are the same for every recipe, except that failures
carry the kept columns under ``kept_<name>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One HTTP call, as the calls table keeps it. Times are Unix seconds, ``latency`` seconds.

    ``status`` is "ok" or the call's ``ErrorKind``. ``raw`` is the reply's text, or the start of an
    error's body. ``attempt`` is the record's attempt (1 is the first extraction), ``try_number``
    counts the transport's tries of that attempt from 1. A look-up that the model asked for has its function in
    ``tool``, its arguments as JSON in ``arguments`` and its result in ``raw``.
    """

    record_id: str
    fingerprint: str
    request: str
    model: str
    dialect: str
    mode: str
    purpose: str
    attempt: int
    try_number: int
    status: str
    http_status: int | None
    started_at: float
    latency: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    finish_reason: str | None
    raw: str | None
    error: str | None
    tool: str | None = None
    arguments: str | None = None


def _not_null(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


MONEY = pa.decimal128(20, 10)
COLUMNS = 2
"""The version of the columns below, raised when one is added: 2 has pages, boxes, chunks and look-ups in the evidence, what is
not complete in ``_meta``, and the look-ups among the calls."""
EVIDENCE = pa.list_(
    pa.struct(
        [
            pa.field("path", pa.string()),
            pa.field("match", pa.string()),
            pa.field("quote", pa.string()),
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("score", pa.float64()),
            pa.field("page", pa.int32()),
            pa.field("box", pa.list_(pa.float32())),
            pa.field("chunk", pa.int32()),
            pa.field("tool", pa.string()),
        ]
    )
)
META = pa.struct(
    [
        pa.field("model", pa.string()),
        pa.field("occurrence", pa.int32()),
        pa.field("attempts", pa.int32()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("cost", MONEY),
        pa.field("corrected", pa.list_(pa.string())),
        pa.field("nulled", pa.list_(pa.string())),
        pa.field("repaired", pa.bool_()),
        pa.field("merged", pa.bool_()),
        pa.field("incomplete", pa.list_(pa.string())),
    ]
)
ROWS_TAIL = (
    pa.field("_evidence", EVIDENCE),
    pa.field("_confidence", pa.map_(pa.string(), pa.float64())),
    pa.field("_meta", META),
)
PROBLEMS = pa.list_(pa.struct([pa.field(name, pa.string()) for name in ("path", "error", "message", "value")]))
ATTEMPTS = pa.list_(
    pa.struct(
        [
            pa.field("number", pa.int32()),
            pa.field("purpose", pa.string()),
            pa.field("model", pa.string()),
            pa.field("raw", pa.string()),
            pa.field("finish_reason", pa.string()),
            pa.field("input_tokens", pa.int64()),
            pa.field("output_tokens", pa.int64()),
            pa.field("error", pa.string()),
        ]
    )
)
FAILURES_FIXED = (
    _not_null("record_id", pa.string()),
    _not_null("fingerprint", pa.string()),
    _not_null("occurrence", pa.int32()),
    _not_null("reason", pa.string()),
    _not_null("retryable", pa.bool_()),
    _not_null("message", pa.string()),
    pa.field("model", pa.string()),
    pa.field("problems", PROBLEMS),
    pa.field("attempts", ATTEMPTS),
    _not_null("input_tokens", pa.int64()),
    _not_null("output_tokens", pa.int64()),
    pa.field("cost", MONEY),
    pa.field("partial", pa.string()),
    pa.field("text", pa.string()),
    _not_null("merged", pa.bool_()),
    pa.field("image", pa.string()),
)
CALLS = pa.schema(
    [
        _not_null("record_id", pa.string()),
        _not_null("fingerprint", pa.string()),
        _not_null("request", pa.string()),
        _not_null("model", pa.string()),
        _not_null("dialect", pa.string()),
        _not_null("mode", pa.string()),
        _not_null("purpose", pa.string()),
        _not_null("attempt", pa.int32()),
        _not_null("try_number", pa.int32()),
        _not_null("status", pa.string()),
        pa.field("http_status", pa.int32()),
        _not_null("started_at", pa.float64()),
        _not_null("latency", pa.float64()),
        _not_null("input_tokens", pa.int64()),
        _not_null("cached_tokens", pa.int64()),
        _not_null("output_tokens", pa.int64()),
        _not_null("reasoning_tokens", pa.int64()),
        pa.field("cost", MONEY),
        pa.field("finish_reason", pa.string()),
        pa.field("raw", pa.string()),
        pa.field("error", pa.string()),
        pa.field("tool", pa.string()),
        pa.field("arguments", pa.string()),
        _not_null("chunk", pa.string()),
        _not_null("run_id", pa.string()),
    ]
)
