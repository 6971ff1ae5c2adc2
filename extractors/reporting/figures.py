"""What a scope comes to: records that add up, money, tokens, latency, calls over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from extractors.reporting.desk import Desk
from extractors.reporting.distributions import Histogram, histogram
from extractors.reporting.scope import Scope
from extractors.sources.text_template import sql_text

LOW_SCORE = 0.9
"""Similar text with a lower score counts as low evidence."""
_SLOTS = 48
_SECONDS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800)


@dataclass(frozen=True, slots=True)
class Slot:
    """Calls that began within one slot of time: answered, failed on the way, and what they used."""

    start: float
    answered: int
    failed: int
    tokens: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Slots of equal length, in seconds, from the first call on; ``run`` is whose calls they are."""

    run: str
    step: float
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The sums of a scope. ``by_purpose`` and ``by_model`` are (name, calls, tokens, cost); ``statuses`` count the
    tries that failed, by kind of error and HTTP status; ``cost`` is None where a price is unknown."""

    rows: int
    failures: int
    merged: int
    corrected: int
    nulled: int
    incomplete: int
    """Rows with a list that is known to lack items."""
    repaired: int
    low_evidence: int
    answered: int
    tries: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    currency: str
    latency: Histogram | None
    input_spread: Histogram | None
    output_spread: Histogram | None
    attempts: Sequence[tuple[int, int]]
    by_purpose: Sequence[tuple[str, int, int, Decimal | None]]
    by_model: Sequence[tuple[str, int, int, Decimal | None]]
    statuses: Sequence[tuple[str, int | None, int]]
    timeline: Timeline | None
    run_sums: Mapping[str, tuple[int, int]]
    """Run id -> (rows, failures) of the scope that it decided and that still count."""

    @property
    def records(self) -> int:
        """Records with an outcome."""
        return self.rows + self.failures


def add_up(desk: Desk, scope: Scope) -> Figures:
    """Every figure, each in one pass of DuckDB."""
    rows = desk.one(
        "select count(*) as rows, count(*) filter (meta.merged) as merged, "
        "count(*) filter (len(meta.corrected) > 0) as corrected, count(*) filter (len(meta.nulled) > 0) as nulled, "
        "count(*) filter (meta.repaired) as repaired, count(*) filter (len(meta.incomplete) > 0) as incomplete from desk.rows"
    )
    failures = desk.one("select count(*) as n, count(*) filter (merged) as merged from desk.failures")
    calls = desk.one(
        "select count(*) filter (status = 'ok') as answered, count(*) as tries, "
        "coalesce(sum(input_tokens), 0)::bigint as input_tokens, coalesce(sum(cached_tokens), 0)::bigint as cached_tokens, "
        "coalesce(sum(output_tokens), 0)::bigint as output_tokens, "
        "coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens, sum(cost) as cost, "
        "bool_or(cost is null and status = 'ok') as unpriced from desk.calls where tool is null"
    )
    answered = "(select * from desk.calls where status = 'ok' and tool is null)"
    latest = scope.latest
    return Figures(
        rows=rows["rows"],
        failures=failures["n"],
        merged=rows["merged"] + failures["merged"],
        corrected=rows["corrected"],
        nulled=rows["nulled"],
        incomplete=rows["incomplete"],
        repaired=rows["repaired"],
        low_evidence=_low_evidence(desk),
        answered=calls["answered"],
        tries=calls["tries"],
        input_tokens=calls["input_tokens"],
        cached_tokens=calls["cached_tokens"],
        output_tokens=calls["output_tokens"],
        reasoning_tokens=calls["reasoning_tokens"],
        cost=None if calls["unpriced"] else calls["cost"] or Decimal(0),
        currency=str((latest or {}).get("currency") or "USD"),
        # An answer of the batch lane has no latency and no moment of its own.
        latency=histogram(desk, f"{answered} where latency > 0", "latency", unit="s"),
        input_spread=histogram(desk, answered, "input_tokens", unit="tokens", whole=True),
        output_spread=histogram(desk, answered, "output_tokens", unit="tokens", whole=True),
        attempts=[
            (row["attempts"], row["n"])
            for row in desk.ask(
                "select attempts, count(*) as n from (select meta.attempts as attempts from desk.rows where not meta.merged "
                "union all select len(attempts) from desk.failures where not merged) group by attempts order by attempts"
            )
        ],
        by_purpose=_shares(desk, "purpose"),
        by_model=_shares(desk, "model"),
        statuses=[
            (row["status"], row["http_status"], row["n"])
            for row in desk.ask(
                "select status, http_status, count(*) as n from desk.calls where status <> 'ok' and tool is null "
                "group by all order by n desc, status, http_status limit 20"
            )
        ],
        timeline=_timeline(desk),
        run_sums={
            row["run_id"]: (row["rows"], row["failures"])
            for row in desk.ask(
                "select run_id, count(*) filter (is_row) as rows, count(*) filter (not is_row) as failures from ("
                "select run_id, true as is_row from desk.rows union all select run_id, false from desk.failures) group by run_id"
            )
        },
    )


def _low_evidence(desk: Desk) -> int:
    """Rows with a value that was copied from nowhere: not found (choices left out), found only roughly, or
    set to null for want of evidence."""
    listed = ", ".join(sql_text(path) for path in sorted(desk.choices)) or "''"
    told = desk.one(
        "select count(*) as n from (select place from (select rowid as place, unnest(evidence) as e from desk.rows) "
        f"where (e.match = 'ungrounded' and regexp_replace(e.path, '/[0-9]+\\b', '/*', 'g') not in ({listed})) "
        f"or (e.match = 'fuzzy' and e.score < {LOW_SCORE}) "
        "union select rowid from desk.rows where len(meta.nulled) > 0)"
    )
    return int(told["n"])


def _shares(desk: Desk, column: str) -> list[tuple[str, int, int, Decimal | None]]:
    rows: list[dict[str, Any]] = desk.ask(
        f"select {column} as name, count(*) as calls, sum(input_tokens + output_tokens)::bigint as tokens, sum(cost) as cost "
        f"from desk.calls where status = 'ok' and tool is null group by all order by calls desc, name limit 20"
    )
    return [(row["name"], row["calls"], row["tokens"], row["cost"]) for row in rows]


def _timeline(desk: Desk) -> Timeline | None:
    """The calls of the last run that made any: runs of other days would leave no room for it."""
    last = desk.ask(
        "select run_id, min(started_at) as first, max(started_at) as last from desk.calls where started_at > 0 and tool is null group by run_id "
        "order by last desc limit 1"
    )
    if not last:
        return None
    first, width = last[0]["first"], last[0]["last"] - last[0]["first"]
    step = next(
        (one for one in _SECONDS if one * _SLOTS >= width), _SECONDS[-1] * (width // (_SECONDS[-1] * _SLOTS) + 1)
    )
    counted = {
        row["slot"]: row
        for row in desk.ask(
            f"select floor((started_at - {first!r}) / {step!r})::integer as slot, count(*) filter (status = 'ok') as answered, "
            "count(*) filter (status <> 'ok') as failed, sum(input_tokens + output_tokens)::bigint as tokens, "
            f"sum(cost) as cost from desk.calls where started_at > 0 and tool is null and run_id = {sql_text(last[0]['run_id'])} group by slot"
        )
    }
    slots = []
    for number in range(max(counted) + 1):
        told = counted.get(number, {"answered": 0, "failed": 0, "tokens": 0, "cost": Decimal(0)})
        slots.append(Slot(first + number * step, told["answered"], told["failed"], told["tokens"], told["cost"]))
    return Timeline(last[0]["run_id"], step, tuple(slots))
