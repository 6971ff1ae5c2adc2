"""What happened in a run: counts that must add up, tokens, money, time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from extractors.errors import InternalError
from extractors.routing_report import joined


def new_run_id(at: datetime) -> str:
    """The name of a run that begins at ``at`` (UTC). Names sort by time, to the millisecond: a sample and the run of the
    rest may begin in one second."""
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03}Z-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class RunReport:
    """The sums of one run.

    ``records = rows + failures + skipped + undone``: ``rows`` and ``failures`` were decided in this
    run, ``skipped`` had been decided before, ``undone`` are left for the next run. ``merged`` counts
    those of rows and failures that were answered by an identical record's call. ``stopped`` says why
    the run ended early, or is None.

    Calls, tokens and ``cost`` are those of rows and failures, answers of an interrupted run's journal among them;
    ``unfinished_...`` is what this run paid beside it for records that it left undone. Their answers are in the journal,
    and the run that finishes such a record counts them: so the costs of all runs add up to what was paid.
    """

    run_id: str
    recipe: str
    name: str
    out: str
    model: str
    engine: str
    started_at: str
    records: int
    rows: int
    failures: int
    skipped: int
    merged: int
    undone: int
    calls: int
    tries: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: Decimal | None
    currency: str
    seconds: float
    failures_by_reason: Mapping[str, int] = field(default_factory=dict)
    skipped_failures: int = 0
    duplicate_ids: int = 0
    removed: int = 0
    chunks: int = 0
    replayed: int = 0
    rate_limited: int = 0
    latency_p50: float | None = None
    latency_p95: float | None = None
    stopped: str | None = None
    saved: Decimal | None = None
    """What the batch lane cost less than the same answers live; None in the live lane."""
    routing: Mapping[str, Any] | None = None
    """What the final model was asked, what that saved and may have missed; None without one."""
    unfinished_calls: int = 0
    unfinished_tokens: int = 0
    unfinished_cost: Decimal | None = Decimal(0)

    def __post_init__(self) -> None:
        """Raises ``InternalError`` when the counts do not add up: a report that lies is worse than none."""
        if self.records != self.rows + self.failures + self.skipped + self.undone:
            raise InternalError(
                f"counts do not add up: {self.records} records, but {self.rows} rows + {self.failures} failures "
                f"+ {self.skipped} skipped + {self.undone} undone"
            )

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped it: what would come next is not begun."""
        return self.stopped in ("interrupted", "aborted")

    def joined(self, first: RunReport) -> RunReport:
        """This run and the one just before it over the same plan, as one; latencies stay this run's."""
        reasons = dict(self.failures_by_reason)
        for reason, count in first.failures_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return replace(
            self,
            started_at=first.started_at,
            rows=self.rows + first.rows,
            failures=self.failures + first.failures,
            skipped=self.skipped - first.rows - first.failures,
            skipped_failures=self.skipped_failures - first.failures,
            merged=self.merged + first.merged,
            calls=self.calls + first.calls,
            tries=self.tries + first.tries,
            input_tokens=self.input_tokens + first.input_tokens,
            cached_tokens=self.cached_tokens + first.cached_tokens,
            output_tokens=self.output_tokens + first.output_tokens,
            cost=None if self.cost is None or first.cost is None else self.cost + first.cost,
            seconds=self.seconds + first.seconds,
            failures_by_reason=dict(sorted(reasons.items())),
            chunks=self.chunks + first.chunks,
            replayed=self.replayed + first.replayed,
            rate_limited=self.rate_limited + first.rate_limited,
            routing=joined((self.routing, first.routing)),
        )

    @property
    def failure_rate(self) -> float:
        """Failures among the records decided in this run, 0 when there were none."""
        decided = self.rows + self.failures
        return self.failures / decided if decided else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values; money is a string, so that nothing is rounded."""
        return {
            "run_id": self.run_id,
            "recipe": self.recipe,
            "name": self.name,
            "out": self.out,
            "model": self.model,
            "engine": self.engine,
            "started_at": self.started_at,
            "records": self.records,
            "rows": self.rows,
            "failures": self.failures,
            "skipped": self.skipped,
            "merged": self.merged,
            "undone": self.undone,
            "calls": self.calls,
            "tries": self.tries,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "cost": None if self.cost is None else format(self.cost, "f"),
            "currency": self.currency,
            "seconds": round(self.seconds, 3),
            "failures_by_reason": dict(self.failures_by_reason),
            "skipped_failures": self.skipped_failures,
            "duplicate_ids": self.duplicate_ids,
            "removed": self.removed,
            "chunks": self.chunks,
            "replayed": self.replayed,
            "rate_limited": self.rate_limited,
            "latency_p50": self.latency_p50,
            "latency_p95": self.latency_p95,
            "stopped": self.stopped,
            "saved": None if self.saved is None else format(self.saved, "f"),
            "routing": None if self.routing is None else dict(self.routing),
            "unfinished_calls": self.unfinished_calls,
            "unfinished_tokens": self.unfinished_tokens,
            "unfinished_cost": None if self.unfinished_cost is None else format(self.unfinished_cost, "f"),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> RunReport:
        """The report that ``as_dict`` told of."""
        money = {
            key: None if told[key] is None else Decimal(told[key])
            for key in ("cost", "saved", "unfinished_cost")
            if key in told
        }
        return cls(**{**told, **money})


def unfinished(calls: int | None, cost: Decimal | None, currency: str) -> str:
    """What a run paid for records that it left undone, for people; "" where that is nothing."""
    if not calls:
        return ""
    money = "price unknown" if cost is None else f"{cost:.6f} {currency}"
    return (
        f"{calls:,} more calls, {money}, were for records that are left undone: the run that finishes them counts these"
    )


@dataclass(slots=True)
class Progress:
    """Live counters of a run; the engine writes them, a bar reads them.

    ``total`` is the number of records to do in this run (skipped ones left out), ``folder`` the recipe's;
    ``looking_up`` are look-ups under way, ``looked_up`` those that are done."""

    total: int = 0
    folder: str = ""
    rows: int = 0
    failures: int = 0
    in_flight: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = Decimal(0)
    looking_up: int = 0
    looked_up: int = 0

    @property
    def look_ups(self) -> str:
        """The look-ups in words, ``TOOL_CALL 2 running, 17 done``; "" where none was made."""
        if not (self.looking_up or self.looked_up):
            return ""
        return f"TOOL_CALL {self.looking_up:,} running, {self.looked_up:,} done"

    @property
    def done(self) -> int:
        """Records decided so far in this run."""
        return self.rows + self.failures
