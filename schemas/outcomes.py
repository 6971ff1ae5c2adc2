"""What a record became: a row or a ledger entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from schemas.evidence import Evidence
from schemas.usage import Usage


class Reason(StrEnum):
    """Why a record failed. The list is closed; ``docs/failures.md`` explains each."""

    BAD_INPUT = "bad_input"
    TOO_LONG = "too_long"
    NOT_JSON = "not_json"
    TRUNCATED = "truncated"
    INVALID = "invalid"
    UNGROUNDED = "ungrounded"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    REJECTED = "rejected"
    BUDGET = "budget"
    INTERNAL = "internal"


RETRYABLE = frozenset({Reason.TIMED_OUT, Reason.UNAVAILABLE, Reason.BUDGET, Reason.INTERNAL})
"""Reasons that may pass by themselves: the same record asked again later can succeed."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One failing path of an answer: a JSON Pointer without its leading slash ("" is the whole),
    the error's type and message, and the value that failed as JSON text."""

    path: str
    error: str
    message: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One model answer (or final call error) inside a record's extraction, as the ledger keeps it."""

    number: int
    purpose: str
    model: str
    raw: str | None
    finish_reason: str | None
    input_tokens: int
    output_tokens: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Extracted:
    """A record that became a row.

    ``evidence`` has one entry for every grounded or ungrounded leaf; ``corrected`` lists the paths
    that a correction changed, ``nulled`` those set to null, and lists that lost items, because
    no evidence was found, ``repaired`` says that the answer itself had to be mended (fences, thinking text, words for
    null). ``confidence`` has a number
    from 0 to 1 for each value; ``routed`` are the paths that a final model was asked about; ``incomplete`` are the paths
    of lists that have fewer items than the record is known to hold.
    """

    value: BaseModel
    evidence: Sequence[Evidence]
    model: str
    attempts: Sequence[Attempt]
    usage: Usage
    corrected: Sequence[str] = ()
    nulled: Sequence[str] = ()
    repaired: bool = False
    confidence: Mapping[str, float] = field(default_factory=dict)
    routed: Sequence[str] = ()
    incomplete: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that became a ledger entry. ``partial`` is the last answer that was JSON, if any."""

    reason: Reason
    message: str
    model: str
    problems: Sequence[FieldProblem] = ()
    attempts: Sequence[Attempt] = ()
    usage: Usage = field(default_factory=Usage)
    partial: Any = None

    @property
    def retryable(self) -> bool:
        """Whether asking the same again later may succeed."""
        return self.reason in RETRYABLE


Outcome = Extracted | Failed
