"""The records of a report: which ones it holds, and each of them as JSON for the page."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from extractors.reporting.desk import Desk
from extractors.reporting.figures import LOW_SCORE
from extractors.reporting.shapes import encoded, is_empty, preview
from schemas.pointers import escape

MOST_FAILURES = 50_000
"""All failures are kept up to here; a page with more of them could not be opened."""
MOST_TEXT = 40_000
"""Code points of a source text that are shown; of a longer one the start, and what is around its evidence."""
MOST_RAW = 20_000
_AROUND = 400
_BLOCK = 5_000
"""Records that are sorted together: sorting all of them would not fit DuckDB's memory."""
_PLACE = re.compile(r"/[0-9]+(?=/|$)")
_LOW_CONFIDENCE = 0.5
LOW, CORRECTED, MERGED, REPAIRED, NULLED, UNSURE = 1, 2, 4, 8, 16, 32
"""The flags of a record in the index."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How many of the scope's rows and failures the report holds."""

    rows: int
    failures: int
    of_rows: int
    of_failures: int

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.rows == self.of_rows and self.failures == self.of_failures

    @property
    def records(self) -> int:
        """Records in the report."""
        return self.rows + self.failures


@dataclass(slots=True)
class Index:
    """What the page knows of every record before it opens one: columns, one entry a record."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: []
            for name in (
                "id",
                "occurrence",
                "row",
                "reason",
                "flags",
                "empty",
                "missing",
                "preview",
                "cost",
                "tokens",
                "tries",
            )
        }
    )

    def add(self, **cells: Any) -> None:
        """One record."""
        for name, column in self.columns.items():
            column.append(cells[name])


def choose_records(desk: Desk, *, limit: int) -> Sample:
    """Make ``desk.chosen`` (place, is_row, number, fingerprint): all failures, and as many rows as ``limit`` leaves,
    at least a tenth of it; drawn by a hash of their identity, so the same each time. Places go by record id."""
    counts = desk.one(
        "select (select count(*) from desk.rows) as rows, (select count(*) from desk.failures) as failures"
    )
    failures = min(counts["failures"], max(limit, MOST_FAILURES))
    rows = min(counts["rows"], max(limit - failures, limit // 10))
    desk.con.execute(
        "create table desk.chosen as select (row_number() over (order by record_id, occurrence, is_row) - 1)::integer as place, "
        "is_row, number, fingerprint from ("
        f"(select true as is_row, rowid as number, record_id, occurrence, fingerprint from desk.rows {_draw(rows, counts['rows'])}) "
        "union all (select false, rowid, record_id, occurrence, fingerprint from desk.failures "
        f"{_draw(failures, counts['failures'])}))"
    )
    return Sample(rows, failures, counts["rows"], counts["failures"])


def _draw(most: int, all_of_them: int) -> str:
    return (
        ""
        if most >= all_of_them
        else f"order by md5(record_id || ' ' || occurrence), record_id, occurrence limit {most}"
    )


def stream_records(desk: Desk, index: Index) -> Iterator[Mapping[str, Any]]:
    """The chosen records in the order of their places; ``index`` gets its entry with each."""
    places = desk.one("select count(*) as n from desk.chosen")["n"]
    for first in range(0, places, _BLOCK):
        calls = _Calls(desk, f"s.place >= {first} and s.place < {first + _BLOCK}")
        rows, failures = (
            desk.stream(
                f"select c.place, r.*, t.text as source_text, t.image as picture from desk.chosen c join {table} r on r.rowid = c.number "
                f"left join desk.texts t on t.fingerprint = c.fingerprint where {kind} c.is_row "
                f"and c.place >= {first} and c.place < {first + _BLOCK} order by c.place"
            )
            for table, kind in (("desk.rows", ""), ("desk.failures", "not"))
        )
        for told in heapq.merge(rows, failures, key=lambda one: one["place"]):
            asked = calls.of(told["place"])
            yield _row(desk, told, asked, index) if "meta" in told else _failure(desk, told, asked, index)


class _Calls:
    """The calls of a block of records, streamed beside them. Calls go by fingerprint: identical records share them,
    and so do the runs that asked one again."""

    def __init__(self, desk: Desk, condition: str) -> None:
        self._told = desk.stream(
            "select s.place, coalesce(tool || '(' || arguments[:200] || ')', purpose) as purpose, model, attempt, try_number, status, http_status, started_at, latency, input_tokens, "
            "cached_tokens, output_tokens, reasoning_tokens, cost, finish_reason, error[:2000] as error, "
            f"raw[:{MOST_RAW}] as raw, greatest(0, length(raw) - {MOST_RAW}) as more from desk.calls c "
            f"join desk.chosen s on c.fingerprint = s.fingerprint where {condition} "
            "order by s.place, started_at, attempt, try_number"
        )
        self._next = next(self._told, None)

    def of(self, place: int) -> list[dict[str, Any]]:
        """Those of the record at a place; to be asked in the places' order."""
        found = []
        while self._next is not None and self._next["place"] <= place:
            if self._next["place"] == place:
                found.append(self._next)
            self._next = next(self._told, None)
        return found


def _row(desk: Desk, told: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], index: Index) -> Mapping[str, Any]:
    meta = told["meta"]
    values = [encoded(told[one.column], one.shape) for one in desk.fields]
    evidence = [
        [e["path"], e["match"], e["quote"], e["start"], e["end"], round(e["score"], 3)] for e in told["evidence"] or ()
    ]
    doubtful = [
        path
        for path, match, _, _, _, score in evidence
        if (match == "ungrounded" and not _is_choice(path, desk)) or (match == "fuzzy" and score < LOW_SCORE)
    ]
    confidence = dict(told["confidence"] or ())
    unsure = any(one is not None and one < _LOW_CONFIDENCE for one in confidence.values())
    tops = {path.split("/", 1)[0] for path in doubtful}
    index.add(
        id=told["record_id"],
        occurrence=told["occurrence"],
        row=1,
        reason=None,
        flags=(LOW if doubtful or meta["nulled"] else 0)
        | (CORRECTED if meta["corrected"] else 0)
        | (MERGED if meta["merged"] else 0)
        | (REPAIRED if meta["repaired"] else 0)
        | (NULLED if meta["nulled"] else 0)
        | (UNSURE if unsure else 0),
        empty=[number for number, value in enumerate(values) if is_empty(value)],
        missing=[number for number, one in enumerate(desk.fields) if escape(one.key) in tops],
        preview=preview(values),
        cost=_number(meta["cost"]),
        tokens=meta["input_tokens"] + meta["output_tokens"],
        tries=meta["attempts"],
    )
    return {
        **_common(desk, told, calls, [(e[3], e[4]) for e in evidence if e[3] is not None]),
        "values": values,
        "evidence": evidence,
        "confidence": confidence,
        "model": meta["model"],
        "attempts": meta["attempts"],
        "cost": _money(meta["cost"]),
        "corrected": meta["corrected"] or [],
        "nulled": meta["nulled"] or [],
        "repaired": meta["repaired"],
        "merged": meta["merged"],
    }


def _failure(
    desk: Desk, told: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], index: Index
) -> Mapping[str, Any]:
    index.add(
        id=told["record_id"],
        occurrence=told["occurrence"],
        row=0,
        reason=told["reason"],
        flags=MERGED if told["merged"] else 0,
        empty=[],
        missing=[],
        preview=told["message"][:140],
        cost=_number(told["cost"]),
        tokens=told["input_tokens"] + told["output_tokens"],
        tries=len(told["attempts"] or ()),
    )
    return {
        **_common(desk, told, calls, []),
        "reason": told["reason"],
        "message": told["message"],
        "retryable": told["retryable"],
        "model": told["model"],
        "cost": _money(told["cost"]),
        "merged": told["merged"],
        "problems": [[p["path"], p["error"], p["message"], p["value"]] for p in told["problems"] or ()],
        "replies": [
            [a["number"], a["purpose"], a["model"], *_cut(a["raw"]), a["finish_reason"], a["error"]]
            for a in told["attempts"] or ()
        ],
        "partial": told["partial"],
    }


def _common(
    desk: Desk, told: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], spans: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    text = told["source_text"]
    replies = "meta" in told  # a failure has them in its attempts
    return {
        "id": told["record_id"],
        "occurrence": told["occurrence"],
        "fingerprint": told["fingerprint"],
        "run": told["run_id"],
        "at": told["committed_at"].isoformat(timespec="seconds"),
        "text": None if text is None else excerpts(text, spans),
        "length": None if text is None else len(text),
        "picture": told["picture"] or told.get("image"),
        "kept": [_loose(told[f"k{number}"]) for number in range(len(desk.kept))],
        "calls": [
            [
                c["purpose"], c["model"], c["attempt"], c["try_number"], c["status"], c["http_status"], c["started_at"],
                round(c["latency"], 4), c["input_tokens"], c["cached_tokens"], c["output_tokens"], c["reasoning_tokens"],
                _money(c["cost"]), c["finish_reason"], c["error"],
                c["raw"] if replies else None, c["more"] if replies else 0,
            ]
            for c in calls
        ],
    }  # fmt: skip


def excerpts(text: str, spans: Sequence[tuple[int, int]]) -> list[list[Any]]:
    """The text as (start, piece): whole where it is short, else its beginning and what is around the spans.
    Offsets are code points."""
    if len(text) <= MOST_TEXT:
        return [[0, text]]
    found = [(0, MOST_TEXT // 2)]
    for start, end in sorted((max(0, start - _AROUND), min(len(text), end + _AROUND)) for start, end in spans):
        if start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return [[start, text[start:end]] for start, end in found]


def _cut(raw: str | None) -> tuple[str | None, int]:
    """A reply and how many characters of it were left out."""
    if raw is None or len(raw) <= MOST_RAW:
        return raw, 0
    return raw[:MOST_RAW], len(raw) - MOST_RAW


def _is_choice(path: str, desk: Desk) -> bool:
    return bool(desk.choices) and _PLACE.sub("/*", path) in desk.choices


def _loose(value: Any) -> Any:
    """A kept column's value, whose type only the source knows, in the page's form."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | Decimal):
        return ["n", format(value, "f") if isinstance(value, Decimal) else str(value)]
    if isinstance(value, Mapping):
        return ["o", [[str(key), _loose(one)] for key, one in value.items()]]
    if isinstance(value, list | tuple):
        return ["l", [_loose(one) for one in value]]
    return ["d", value.isoformat() if hasattr(value, "isoformat") else str(value)]


def _money(cost: Decimal | None) -> str | None:
    return None if cost is None else format(cost.normalize(), "f")


def _number(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)
