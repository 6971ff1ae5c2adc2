"""The labelled sets as tasks: what is read, what is asked for, what is expected, and when a value counts as right.

The sets lie outside of the project (``QUARRY_DATA``, default ``../shared/data``) and each says in its ABOUT.md where it
comes from and how the literature scores it. A set whose records have schemas of their own (``snips``, ``wdc_pave_norm``)
is a task for each schema; its score is over all of its tasks' values. ``records`` takes the first rows, which are in the
order of a hash and so an unbiased, stable sample.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from extractors.evaluate.fields import Compared, compared_fields
from extractors.evaluate.golden import Labelled
from extractors.evaluate.scoring import Cell, score_record
from extractors.evaluate.statistics import Interval, scores
from schemas.loading import load_schema

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("QUARRY_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True, slots=True)
class Adapter:
    """How a set is used. ``instructions`` say what its schema leaves open, the same words for every tool; ``rules`` are
    its comparators by field, ``*`` for all that have none."""

    name: str
    text: str = "text"
    instructions: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)
    spans: bool = False
    """Whether every value is a span of the record, by the set's own definition."""


ADAPTERS = {
    one.name: one
    for one in (
        Adapter(
            "sroie",
            text="text_rows",
            instructions="The record is the text of a scanned receipt. Give every value as printed.",
            # ABOUT.md: after folding case, dropping currency signs, blanks and punctuation. A total is a number.
            rules={"*": "alnum", "total": "number"},
        ),
        Adapter(
            "mit_restaurant",
            instructions="The record is a spoken request about restaurants. Every value is a span of its words.",
            spans=True,
        ),
        Adapter(
            "snips",
            instructions="The record is a request to a voice assistant. Every value is a span of its words.",
            spans=True,
        ),
        Adapter(
            "ade_dose",
            instructions="The record is a sentence of a medical case report. List each drug with its dose.",
            spans=True,
            # Strict relation F1: a pair is right when both of its values are.
            rules={"items": "whole"},
        ),
        Adapter(
            "viggo",
            instructions="The record is an utterance about a video game. Give only what it says.",
        ),
        Adapter(
            "cuad_clauses",
            instructions="The record holds clauses of one contract. Give normalised values.",
        ),
        Adapter(
            "wdc_pave_norm",
            instructions="The record is a product offer: its title, then its description. Give normalised values.",
        ),
        Adapter(
            "resume_zh",
            instructions="The record is a line of a Chinese résumé. Every value is a span of it.",
            spans=True,
        ),
        Adapter("muc4", instructions="The record is a news report. Name each participant once, as written."),
        Adapter("kleister_nda", instructions="The record is a non-disclosure agreement."),
    )
}
DEFAULT = ("sroie", "mit_restaurant", "snips", "ade_dose", "viggo", "cuad_clauses", "wdc_pave_norm")
"""Sets of short records on which small models extract something; the others are there to be named."""


LABELLED = 200
"""Rows at the end of a file among which examples are looked for, unless told otherwise."""
_SPREAD = 3
"""Fixed examples that are chosen to show many fields; further ones are drawn."""


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled record of a set."""

    record_id: str
    text: str
    label: Labelled


@dataclass(frozen=True, slots=True)
class Task:
    """Records of one set that share a schema. ``spec`` is what ``--schema`` takes."""

    set: str
    spec: str
    model: type[BaseModel]
    instructions: str
    rules: Mapping[str, str]
    root: Compared
    rows: Sequence[Row]
    spans: bool
    shots: Sequence[Row]
    """Further rows, from the end of the file and so never among ``rows``: examples that every tool can be shown."""
    golden: Sequence[Row]
    """Those rows all together, from which examples can be chosen."""


def tasks(name: str, *, limit: int | None = None, shots: int = 3, labelled: int = LABELLED) -> list[Task]:
    """A set's tasks with its first ``limit`` records, and of its last ``labelled`` rows those that are not among them. Raises
    ``FileNotFoundError`` where the set is not there."""
    adapter, folder = ADAPTERS[name], DATA / name
    lines = [json.loads(line) for line in (folder / "records.dev.jsonl").read_text("utf-8").rstrip("\n").split("\n")]
    chosen = lines[:limit]
    # The same examples however many records are measured, as long as those are not most of the set.
    rest = lines[max(len(chosen), len(lines) - labelled) :]
    by_schema: dict[str, list[dict[str, Any]]] = {}
    for line in chosen:
        by_schema.setdefault(line.get("schema", "schema.json"), []).append(line)
    found = []
    for schema, mine in sorted(by_schema.items()):
        spec = str(folder / schema)
        model = load_schema(spec)
        others = [line for line in rest if line.get("schema", "schema.json") == schema]
        # Examples that show something: most fields filled first, in a fixed order.
        others.sort(key=lambda line: (-_filled(line["expected"]), line["id"]))
        found.append(
            Task(
                set=name,
                spec=spec,
                model=model,
                instructions=adapter.instructions,
                rules=adapter.rules,
                spans=adapter.spans,
                root=compared_fields(model, adapter.rules),
                rows=[_row(line, adapter) for line in mine],
                shots=[_row(line, adapter) for line in _varied(others, shots)],
                golden=[_row(line, adapter) for line in others],
            )
        )
    return found


def write_golden(rows: Sequence[Row], path: Path) -> Path:
    """The rows as a golden set, which examples are read from too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ({"id": row.record_id, "text": row.text, "expected": dict(row.label.expected)} for row in rows)
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), "utf-8")
    return path


def verbatim(task: Task, folder: Path) -> str:
    """The task's schema with ``x-verbatim`` at every free text, written to ``folder``, where all of its values are spans;
    else its own. Decoding is then held to the record's words."""
    if not task.spans:
        return task.spec
    schema = json.loads(Path(task.spec).read_text("utf-8"))
    _mark(schema)
    path = folder / f"{task.set}-{Path(task.spec).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema), "utf-8")
    return str(path)


def _mark(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _mark(one)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if "enum" not in schema and (kind == "string" or (isinstance(kind, list) and "string" in kind)):
            schema["x-verbatim"] = True
        for key in ("properties", "items", "anyOf"):
            inner = schema.get(key)
            _mark(list(inner.values()) if key == "properties" and isinstance(inner, dict) else inner)


def score_task(task: Task, given: Mapping[str, Mapping[str, Any] | None]) -> dict[str, list[Cell]]:
    """The cells of every record of a task that ``given`` has, by its id; None is a record without an answer."""
    return {
        row.record_id: score_record(task.root, row.label, given[row.record_id])
        for row in task.rows
        if row.record_id in given
    }


def f1(cells: Iterable[Sequence[Cell]]) -> Interval:
    """Micro-F1 over records, whatever their schemas, with its interval by record."""
    return scores(np.stack([counts(record)[np.newaxis] for record in cells]))[0].f1


def counts(record: Sequence[Cell]) -> Any:
    """True positives, false positives and false negatives among all of a record's values."""
    return np.array([cell.verdict.counts for cell in record] or [(0, 0, 0)], dtype=np.int64).sum(axis=0)


def _row(line: Mapping[str, Any], adapter: Adapter) -> Row:
    label = Labelled(line["id"], expected=line["expected"], accept=line.get("accept", {}))
    return Row(line["id"], line[adapter.text], label)


def _filled(expected: Mapping[str, Any]) -> int:
    return sum(value not in (None, [], "") for value in expected.values())


def _varied(lines: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """``most`` lines. The first three together show many fields: each adds what the ones before do not have, if any does.
    The others are as good as drawn at random, so that they are like the set."""
    chosen: list[dict[str, Any]] = []
    shown: set[str] = set()
    left = list(lines)
    while left and len(chosen) < min(most, _SPREAD):
        best = max(left, key=lambda line: len(_keys(line) - shown))
        left.remove(best)
        chosen.append(best)
        shown |= _keys(best)
    left.sort(key=lambda line: hashlib.sha256(line["id"].encode()).digest())
    return chosen + left[: most - len(chosen)]


def _keys(line: Mapping[str, Any]) -> set[str]:
    return {key for key, value in line["expected"].items() if value not in (None, [], "")}
