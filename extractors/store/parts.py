"""A chunk's outcomes as Parquet parts: fixed schemas, deterministic bytes, and back again exactly."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import accumulate
from operator import attrgetter
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from extractors.errors import JobError
from schemas.arrow import RowCodec
from schemas.evidence import Evidence, Match
from schemas.ledger import CALLS, EVIDENCE, FAILURES_FIXED, META, ROWS_TAIL, CallRecord
from schemas.outcomes import Attempt, Extracted, Failed, FieldProblem, Outcome, Reason
from schemas.records import Record
from schemas.usage import Usage

KEPT_KEY = b"quarry.kept"
"""The key of the kept columns' names, a JSON array, in the metadata of the schemas of rows and failures."""
logger = logging.getLogger(__name__)
VIEW_COLUMNS = ("recipe", "run_id", "committed_at", "sequence")
"""What the catalog's views add to the parts' columns."""
_ATTEMPT_FIELDS = [field.name for field in fields(Attempt)]
_PROBLEM_FIELDS = [field.name for field in fields(FieldProblem)]
_MONEY = Decimal("0.0000000001")


@dataclass(frozen=True, slots=True)
class Item:
    """A record and what became of it. ``merged``: an identical record's call answered it, at no cost."""

    record: Record
    outcome: Outcome
    merged: bool = False

    @property
    def order(self) -> tuple[str, int]:
        """The place of the record in its part."""
        return (self.record.record_id, self.record.occurrence)


class PartSchemas:
    """The three schemas of a recipe's parts, fixed before the first call.

    Raises ``JobError`` when a kept column has the name of another column.
    """

    def __init__(self, codec: RowCodec, kept: pa.Schema, *, recipe_id: str) -> None:
        self.codec = codec
        self.kept = pa.schema([pa.field(one.name, one.type, nullable=True) for one in kept])
        _check_kept(codec, self.kept)
        metadata = {**(codec.schema.metadata or {}), b"quarry.recipe": recipe_id.encode()}
        metadata[KEPT_KEY] = orjson.dumps(self.kept.names)
        fixed = [
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ]
        self.rows = pa.schema([*fixed, *self.kept, *codec.schema, *ROWS_TAIL], metadata=metadata)
        renamed = [one.with_name(f"kept_{one.name}") for one in self.kept]
        self.failures = pa.schema([*FAILURES_FIXED, *renamed], metadata=metadata)
        self.calls = CALLS.with_metadata({b"quarry.recipe": recipe_id.encode()})


def _check_kept(codec: RowCodec, kept: pa.Schema) -> None:
    """DuckDB takes no notice of case in names, so neither does this."""
    taken = {name.lower(): "a field of the schema" for name in codec.schema.names}
    taken |= {name: "a column that every row has" for name in ("record_id", "fingerprint")}
    taken |= {one.name: "a column that every row has" for one in ROWS_TAIL}
    taken |= {name: "a column of the catalog's views" for name in VIEW_COLUMNS}
    for name in kept.names:
        if (other := taken.get(name.lower())) is not None:
            raise JobError(
                f"the kept column {name!r} has the name of {other}, {name.lower()!r}; keep it under another: "
                f"--keep {name}:source_{name}"
            )
        taken[name.lower()] = "another kept column"


def rows_part(items: Sequence[Item], schemas: PartSchemas) -> bytes:
    """The Parquet bytes of the items that became rows; the same items give the same bytes."""
    records = [item.record for item in items]
    found = [item.outcome for item in items if isinstance(item.outcome, Extracted)]
    values = schemas.codec.encode([outcome.value for outcome in found])
    columns: list[pa.Array | pa.ChunkedArray] = [
        _array([record.record_id for record in records], pa.string()),
        pa.array([record.fingerprint for record in records], pa.string()),
        *(_kept(records, field) for field in schemas.kept),
        *values.columns,
        _evidence([outcome.evidence for outcome in found]),
        _array([list(one.confidence.items()) or None for one in found], ROWS_TAIL[1].type),
        _meta(items, found),
    ]
    return _bytes(pa.Table.from_arrays(columns, schema=schemas.rows))


def failures_part(items: Sequence[Item], schemas: PartSchemas, *, ledger_text: str) -> bytes:
    """The Parquet bytes of the items that failed."""
    failed = [item.outcome for item in items if isinstance(item.outcome, Failed)]
    records = [item.record for item in items]
    usages = [Usage() if item.merged else outcome.usage for item, outcome in zip(items, failed, strict=True)]
    columns: dict[str, list[Any]] = {
        "record_id": [record.record_id for record in records],
        "fingerprint": [record.fingerprint for record in records],
        "occurrence": [record.occurrence for record in records],
        "reason": [outcome.reason.value for outcome in failed],
        "retryable": [outcome.retryable for outcome in failed],
        "message": [outcome.message for outcome in failed],
        "model": [outcome.model for outcome in failed],
        "problems": [[_members(problem) for problem in outcome.problems] for outcome in failed],
        "attempts": [[_members(attempt) for attempt in outcome.attempts] for outcome in failed],
        "input_tokens": [usage.input_tokens for usage in usages],
        "output_tokens": [usage.output_tokens for usage in usages],
        "cost": [_money(usage.cost) for usage in usages],
        "partial": [_partial(outcome.partial) for outcome in failed],
        "text": [_ledger_text(record.text, ledger_text) for record in records],
        "merged": [item.merged for item in items],
        "image": [_images(record) for record in records],
    }
    arrays = [_array(columns[field.name], field.type) for field in FAILURES_FIXED]
    arrays += [_kept(records, field) for field in schemas.kept]
    return _bytes(pa.Table.from_arrays(arrays, schema=schemas.failures))


def calls_part(calls: Sequence[CallRecord], schemas: PartSchemas, *, chunk: str, run_id: str) -> bytes:
    """The Parquet bytes of a chunk's calls."""
    columns = []
    for field in schemas.calls:
        if field.name == "chunk":
            columns.append(pa.repeat(pa.scalar(chunk, field.type), len(calls)))
        elif field.name == "run_id":
            columns.append(pa.repeat(pa.scalar(run_id, field.type), len(calls)))
        elif field.name == "cost":
            columns.append(pa.array([_money(call.cost) for call in calls], field.type))
        else:
            columns.append(_array(list(map(attrgetter(field.name), calls)), field.type))
    return _bytes(pa.Table.from_arrays(columns, schema=schemas.calls))


def read_row(table: pa.Table, codec: RowCodec) -> Extracted:
    """A row of ``rows_part`` as an outcome, its value exactly as it was; usage is what the row says."""
    [value] = codec.decode(table.select(codec.schema.names).replace_schema_metadata(codec.schema.metadata))
    row = table.select(["_evidence", "_confidence", "_meta"]).to_pylist()[0]
    meta = row["_meta"]
    return Extracted(
        value=value,
        evidence=[
            Evidence(
                e["path"],
                Match(e["match"]),
                e["quote"],
                e["start"],
                e["end"],
                e["score"],
                e.get("page"),
                None if e.get("box") is None else tuple(e["box"]),
                e.get("chunk"),
                e.get("tool"),
            )
            for e in row["_evidence"]
        ],
        model=meta["model"],
        attempts=[Attempt(n + 1, "", meta["model"], None, None, 0, 0, None) for n in range(meta["attempts"])],
        usage=Usage(0, meta["input_tokens"], meta["output_tokens"], cost=meta["cost"]),
        corrected=tuple(meta["corrected"]),
        nulled=tuple(meta["nulled"]),
        repaired=meta["repaired"],
        incomplete=tuple(meta.get("incomplete") or ()),
        confidence=dict(row["_confidence"] or ()),
    )


def read_failure(row: Mapping[str, Any]) -> Failed:
    """An entry of ``failures_part`` as an outcome."""
    return Failed(
        reason=Reason(row["reason"]),
        message=row["message"],
        model=row["model"],
        problems=tuple(FieldProblem(**problem) for problem in row["problems"]),
        attempts=tuple(Attempt(**attempt) for attempt in row["attempts"]),
        usage=Usage(0, row["input_tokens"], row["output_tokens"], cost=row["cost"]),
        partial=None if row["partial"] is None else json.loads(row["partial"]),
    )


def _evidence(lists: Sequence[Sequence[Evidence]]) -> pa.Array:
    """Built from flat columns and offsets: a list of dicts would cost several times as much."""
    flat = [one for each in lists for one in each]
    item = EVIDENCE.value_type
    values = pa.StructArray.from_arrays(
        [
            _array([one.path for one in flat], item.field("path").type),
            pa.array([one.match.value for one in flat], item.field("match").type),
            _array([one.quote for one in flat], item.field("quote").type),
            pa.array([one.start for one in flat], item.field("start").type),
            pa.array([one.end for one in flat], item.field("end").type),
            pa.array([one.score for one in flat], item.field("score").type),
            pa.array([one.page for one in flat], item.field("page").type),
            pa.array([one.box for one in flat], item.field("box").type),
            pa.array([one.chunk for one in flat], item.field("chunk").type),
            pa.array([one.tool for one in flat], item.field("tool").type),
        ],
        fields=[item.field(i) for i in range(item.num_fields)],
    )
    return pa.ListArray.from_arrays(pa.array([0, *accumulate(map(len, lists))], pa.int32()), values, type=EVIDENCE)


def _meta(items: Sequence[Item], found: Sequence[Extracted]) -> pa.Array:
    usages = [Usage() if item.merged else outcome.usage for item, outcome in zip(items, found, strict=True)]
    columns: dict[str, list[Any]] = {
        "model": [outcome.model for outcome in found],
        "occurrence": [item.record.occurrence for item in items],
        "attempts": [len(outcome.attempts) for outcome in found],
        "input_tokens": [usage.input_tokens for usage in usages],
        "output_tokens": [usage.output_tokens for usage in usages],
        "cost": [_money(usage.cost) for usage in usages],
        "corrected": [list(outcome.corrected) for outcome in found],
        "nulled": [list(outcome.nulled) for outcome in found],
        "repaired": [outcome.repaired for outcome in found],
        "merged": [item.merged for item in items],
        "incomplete": [list(outcome.incomplete) for outcome in found],
    }
    members = [META.field(i) for i in range(META.num_fields)]
    return pa.StructArray.from_arrays([_array(columns[one.name], one.type) for one in members], fields=members)


def _kept(records: Sequence[Record], field: pa.Field) -> pa.Array:
    return _array([record.kept.get(field.name) for record in records], field.type)


def _images(record: Record) -> str | None:
    """The names and hashes of a record's pictures; None where it has none."""
    return "\n".join(f"sha256:{image.sha256} {image.name}" for image in record.images) or None


def _ledger_text(text: str, policy: str) -> str | None:
    if policy == "none":
        return None
    if policy == "full":
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _partial(partial: Any) -> str | None:
    """JSON text. The raw answers are in the attempts, so what nests too deep for JSON may go."""
    if partial is None:
        return None
    try:
        return orjson.dumps(partial).decode()
    except TypeError:
        pass
    try:
        # Integers past 64 bits, which orjson refuses; lone surrogates are escaped.
        return json.dumps(partial, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning("an answer cannot be kept as JSON (%s); its raw text is in the ledger", error)
        return None


def _members(one: Attempt | FieldProblem) -> dict[str, Any]:
    names = _ATTEMPT_FIELDS if isinstance(one, Attempt) else _PROBLEM_FIELDS
    return {name: getattr(one, name) for name in names}


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array; strings that UTF-8 cannot hold are cleaned, at a cost that only they have."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_cleaned(value) for value in values], kind)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(one) for key, one in value.items()}
    return value


def _money(cost: Decimal | None) -> Decimal | None:
    return None if cost is None else cost.quantize(_MONEY)


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=True, version="2.6")
    return sink.getvalue()
