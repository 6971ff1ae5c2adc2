"""The Arrow schemas of what a run writes, fixed before the first call: rows, failures, calls.

``RowsSchema`` = record_id, fingerprint, kept columns, the model's fields, ``_evidence``,
``_confidence``, ``_meta``. Failures and calls are the same for every recipe, except that failures
carry the kept columns under ``kept_<name>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One HTTP call, as the calls table keeps it. Times are Unix seconds, ``latency`` seconds.

    ``status`` is "ok" or the call's ``ErrorKind``. ``raw`` is the reply's text, or the start of an
    error's body. ``attempt`` is the record's attempt (1 is the first extraction), ``try_number``
    counts the transport's tries of that attempt from 1.
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
