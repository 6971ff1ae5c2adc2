"""What a recipe made of the records of a golden set, read from an output folder: values, evidence, tokens, seconds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from extractors.parsing import loads_exact
from extractors.second_look import is_choice
from extractors.store.catalog import opened
from schemas.answer_values import answer_values
from schemas.arrow import RowCodec
from schemas.jsonschema import answer_schema, subschema

_NUMBER = re.compile(r"(?<=/)\d+(?=/|$)")
Key = tuple[str, int]
"""Record id and occurrence."""


@dataclass(frozen=True, slots=True)
class Given:
    """A record's outcome. ``value`` holds the answer's JSON values, or is None for a failure, which has a ``reason``, the
    paths of its ``problems`` and the last answer that was JSON, ``partial``.

    ``evidence`` and ``confidence`` are by path; ``nulled`` are the paths that were made null for want of evidence.
    ``grounded`` counts the values without any, and those that were looked for: a choice (true or false, an enum) is
    rarely printed and is left out of both. ``seconds`` is the time of its calls together, None for a record that an
    identical one's call answered; ``cost`` is None where the model's price is unknown.
    """

    record_id: str
    occurrence: int
    fingerprint: str
    value: Mapping[str, Any] | None
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grounded: tuple[int, int] = (0, 0)
    confidence: Mapping[str, float] = field(default_factory=dict)
    nulled: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    partial: Any = None
    reason: str | None = None
    message: str | None = None
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = None
    seconds: float | None = None
    calls: int = 0

    @property
    def key(self) -> Key:
        """What tells it from every other record."""
        return self.record_id, self.occurrence


def read_outcomes(
    out: Path, *, name: str, recipe: str, model: type[BaseModel], wanted: Collection[str]
) -> dict[Key, Given]:
    """The current outcomes of the ``wanted`` record ids, rows and failures alike. Raises ``OutputError``."""
    codec = RowCodec(model)
    ids = pa.table({"wanted_id": pa.array(sorted(wanted), pa.string())})
    with opened(out, name=name, recipe=recipe) as con:
        con.register("wanted_ids", ids)
        rows = con.sql(
            f'select r.* from quarry."{name}_current" r semi join wanted_ids w on r.record_id = w.wanted_id'
        ).to_arrow_table()
        failures = con.sql(
            "select record_id, occurrence, fingerprint, reason, message, model, input_tokens, output_tokens, cost, "
            "[p.path for p in problems] as problems, partial from "
            f'quarry."{name}_standing" f semi join wanted_ids w on f.record_id = w.wanted_id'
        ).to_arrow_table()
        calls = con.sql(
            "select record_id, fingerprint, sum(latency) as seconds, count(*) filter (purpose <> 'tool') as calls "
            f'from quarry."{name}_calls" c '
            "semi join wanted_ids w on c.record_id = w.wanted_id group by all"
        ).to_arrow_table()
    times = {(one["record_id"], one["fingerprint"]): one for one in calls.to_pylist()}
    found: dict[Key, Given] = {}
    choices = _Choices(answer_schema(model))
    values = codec.decode(rows.select(codec.schema.names)) if rows.num_rows else []
    for value, row in zip(
        values, rows.select(["record_id", "fingerprint", "_evidence", "_confidence", "_meta"]).to_pylist(), strict=True
    ):
        meta = row["_meta"]
        evidence = {one["path"]: one for one in row["_evidence"] or ()}
        looked_for = [one["match"] == "ungrounded" for path, one in evidence.items() if not choices.has(path)]
        one = Given(
            row["record_id"],
            meta["occurrence"],
            row["fingerprint"],
            answer_values(value),
            evidence=evidence,
            grounded=(sum(looked_for), len(looked_for)),
            confidence=dict(row["_confidence"] or ()),
            nulled=tuple(meta["nulled"]),
            model=meta["model"],
            input_tokens=meta["input_tokens"],
            output_tokens=meta["output_tokens"],
            cost=meta["cost"],
            **_timed(times, row, merged=meta["merged"]),
        )
        found[one.key] = one
    for row in failures.to_pylist():
        told = {
            "problems": tuple(dict.fromkeys(row.pop("problems") or ())),
            "partial": None if row["partial"] is None else loads_exact(row.pop("partial")),
        }
        one = Given(value=None, **{**row, **told}, **_timed(times, row, merged=False))
        found[one.key] = one
    return found


def _timed(
    times: Mapping[tuple[str, str], Mapping[str, Any]], row: Mapping[str, Any], *, merged: bool
) -> dict[str, Any]:
    """The time of the calls about this text: one of another text under the same id is none of them."""
    told = None if merged else times.get((row["record_id"], row["fingerprint"]))
    return {"seconds": told["seconds"], "calls": told["calls"]} if told else {}


class _Choices:
    """Which paths of a schema hold choices."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._known: dict[str, bool] = {}

    def has(self, path: str) -> bool:
        """Whether the value at a path is a choice; all items of a list are alike."""
        general = _NUMBER.sub("0", path)
        if general not in self._known:
            try:
                self._known[general] = is_choice(subschema(self._schema, general))
            except KeyError:
                self._known[general] = False
        return self._known[general]
