"""What waits for a person: open failures first, then rows with values that nothing in their source supports, or of less
confidence than the last run's ``review_below``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from extractors.errors import JobError, OutputError
from extractors.pipeline import model_of
from extractors.retrying import last_job
from extractors.review.texts import Texts
from extractors.second_look import is_choice
from extractors.store import files, layout, reviews
from extractors.store.catalog import opened, outputs
from extractors.store.parts import KEPT_KEY, read_row
from schemas.answer_values import answer_values
from schemas.arrow import RowCodec
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema, subschema

LOW_SCORE = 0.9
"""Fuzzy evidence below this is looked at by a person."""
MOST_ROWS = 5_000
Kind = Literal["failure", "row"]
_NAMED = 5
_DOUBTFUL = f"list_filter(_evidence, lambda e: e.match = 'ungrounded' or (e.match = 'fuzzy' and e.score < {LOW_SCORE}))"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the queue. ``doubtful`` are a row's paths without (good) evidence, ``unsure`` its other paths of little
    confidence; ``reason`` is a failure's, or which of the two comes first."""

    kind: Kind
    record_id: str
    occurrence: int
    sequence: int
    reason: str
    message: str
    doubtful: tuple[str, ...] = ()
    unsure: Mapping[str, float] = field(default_factory=dict)


class Queue:
    """One recipe's records that wait. Reads what is there at each call; holds the sources' texts once they were
    read, until ``close``."""

    def __init__(self, out: Path, *, name: str, recipe: str) -> None:
        self.out = out
        self.name = name
        self.recipe = recipe
        self.folder = out / name / f"recipe={recipe}"
        self.document: Mapping[str, Any] = orjson.loads((self.folder / "recipe.json").read_bytes())
        self.schema: Mapping[str, Any] = self.document["schema"]
        columns = pa.ipc.read_schema(pa.BufferReader((self.folder / layout.COLUMNS).read_bytes()))
        self.kept = pa.schema([columns.field(one) for one in orjson.loads((columns.metadata or {})[KEPT_KEY])])
        self._texts = Texts(out, recipe)

    def close(self) -> None:
        """Delete the copy of the sources' texts."""
        self._texts.close()

    @property
    def job(self) -> ExtractionJob:
        """The last job of the recipe. Raises ``OutputError``."""
        return last_job(self.out, self.recipe, {})

    def entries(self) -> list[Entry]:
        """Everything that waits: failures that are open, then at most 5,000 rows, by record id."""
        decided = reviews.latest(reviews.read(self.folder))
        with opened(self.out, name=self.name, recipe=self.recipe) as con:
            failures = con.sql(
                f'select record_id, occurrence, quarry_sequence, reason, message from quarry."{self.name}_standing" '
                "order by record_id, occurrence"
            ).fetchall()
            [(below,)] = con.execute(f"select {reviews.review_below('?')}", [self.recipe]).fetchall()
            unsure = f"list_filter(map_entries(_confidence), lambda e: e.value < {below!r})"
            rows = con.sql(
                f"select record_id, _meta.occurrence, quarry_sequence, {_DOUBTFUL} as doubtful, {unsure} as unsure "
                f'from quarry."{self.name}_current" where len(doubtful) > 0 or len(unsure) > 0 '
                f"order by record_id, 2 limit {MOST_ROWS}"
            ).fetchall()
        found = [
            Entry("failure", record_id, occurrence, sequence, reason, message)
            for record_id, occurrence, sequence, reason, message in failures
            if not _settled(decided.get((record_id, occurrence, sequence)))
        ]
        for record_id, occurrence, sequence, evidence, confidence in rows:
            doubtful = tuple(one["path"] for one in evidence if not self._is_choice(one["path"]))
            sure = {one["key"]: one["value"] for one in confidence or () if one["key"] not in doubtful}
            if (doubtful or sure) and not _settled(decided.get((record_id, occurrence, sequence))):
                reason = "low evidence" if doubtful else "low confidence"
                message = _why(doubtful, sure, below)
                found.append(Entry("row", record_id, occurrence, sequence, reason, message, doubtful, sure))
        return found

    def record(self, kind: Kind, record_id: str, occurrence: int) -> dict[str, Any]:
        """All that is known of one record: its text, values, evidence, problems, attempts, calls, decisions.

        Raises ``JobError`` for a record that has no such outcome (any more)."""
        view = f'quarry."{self.name}_{"standing" if kind == "failure" else "current"}"'
        number = "occurrence" if kind == "failure" else "_meta.occurrence"
        with opened(self.out, name=self.name, recipe=self.recipe) as con:
            found: pa.Table = con.sql(
                f"select * from {view} where record_id = ? and {number} = ?", params=[record_id, occurrence]
            ).to_arrow_table()
            if not found.num_rows:
                raise JobError(f"record {record_id!r} is not among the {self.name}'s {kind}s any more: reload the page")
            [(part,)] = con.execute(
                "select file from quarry.commits where kind = ? and sequence = ?",
                ["rows" if kind == "row" else "failures", found.column("quarry_sequence")[0].as_py()],
            ).fetchall()
            calls: pa.Table = con.sql(
                f"select model, purpose, attempt, try_number, status, finish_reason, latency, input_tokens, output_tokens, "
                f'cost, raw, error from quarry."{self.name}_calls" where record_id = ? and fingerprint = ? '
                "order by started_at, try_number",
                params=[record_id, found.column("fingerprint")[0].as_py()],
            ).to_arrow_table()
        told: dict[str, Any] = found.to_pylist()[0]
        decisions = [
            one for one in reviews.read(self.folder) if (one.record_id, one.occurrence) == (record_id, occurrence)
        ]
        ledger = told.get("text") if kind == "failure" else None
        text, why = self._texts.of(told["fingerprint"], ledger=ledger)
        names = list(self.schema.get("properties", {}))
        return {
            "kind": kind,
            "record_id": record_id,
            "occurrence": occurrence,
            "sequence": told["quarry_sequence"],
            "fingerprint": told["fingerprint"],
            "text": text,
            "text_missing": why,
            "value": _partial(told, names) if kind == "failure" else self._value(part, record_id, occurrence),
            "evidence": told.get("_evidence") or [],
            "meta": told.get("_meta"),
            "reason": told.get("reason"),
            "message": told.get("message"),
            "problems": told.get("problems") or [],
            "attempts": told.get("attempts") or [],
            "calls": calls.to_pylist(),
            "kept": {name: told.get(f"kept_{name}" if kind == "failure" else name) for name in self.kept.names},
            "decisions": decisions,
        }

    @cached_property
    def model(self) -> type[BaseModel]:
        """The recipe's model, with its validators. Raises ``OutputError`` when it is not any more what it was."""
        model = model_of(self.job)
        if answer_schema(model) != self.schema:
            raise OutputError(
                f"{self.job.schema_spec} is not what it was when recipe {self.recipe} ran: put it back to accept values into "
                "that recipe, or run the job again"
            )
        return model

    def _value(self, part: str, record_id: str, occurrence: int) -> dict[str, Any]:
        """A row's values as JSON, from its part: exactly as they were accepted."""
        table = files.read_table(files.place(part))
        table = table.filter(pc.equal(table.column("record_id"), record_id))
        for place in range(table.num_rows):
            row = table.slice(place, 1)
            if row.column("_meta")[0].as_py()["occurrence"] == occurrence:
                value = read_row(row, RowCodec(self.model)).value
                return answer_values(value)
        raise JobError(f"record {record_id!r} is not in {part}")

    def _is_choice(self, path: str) -> bool:
        try:
            return is_choice(subschema(dict(self.schema), path))
        except KeyError:
            return False


def queues(out: Path, *, name: str | None = None, recipe: str | None = None) -> Sequence[Queue]:
    """A queue for each recipe of the output, or for the one that is named. Raises ``OutputError`` and ``JobError``."""
    held = [one for one in outputs(out) if name in (None, one.name) and (recipe is None or one.recipe == recipe[:8])]
    if not held:
        known = ", ".join(
            f"{name} ({layout.short_id(one)})" for name, own in layout.recipe_folders(out).items() for one in own
        )
        raise JobError(f"{out} holds nothing of that schema and recipe; it holds {known or 'nothing yet'}")
    return [Queue(out, name=one.name, recipe=one.recipe) for one in held]


def _why(doubtful: Sequence[str], unsure: Mapping[str, float], below: float) -> str:
    """What is to be looked at in a row, and why."""
    least = sorted(unsure, key=lambda path: (unsure[path], path))
    told = [
        f"no evidence for {_listed(doubtful)}" if doubtful else "",
        f"confidence below {below:g}: {_listed([f'{path} {unsure[path]:.3g}' for path in least])}" if unsure else "",
    ]
    return "; ".join(filter(None, told))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _settled(decision: reviews.Decision | None) -> bool:
    return decision is not None and decision.action in ("ignored", "confirmed", "accepted")


def _partial(told: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The last answer as far as it was an object with the schema's fields."""
    partial = orjson.loads(told["partial"]) if told.get("partial") else None
    return {name: partial.get(name) for name in names} if isinstance(partial, dict) else dict.fromkeys(names)
