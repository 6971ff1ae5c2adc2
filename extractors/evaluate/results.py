"""What an evaluation leaves behind: tables of its values, records and scores, and one JSON object of its figures.

::

    OUT/evaluations/<golden>-<recipe>/
      values.parquet     a line a value: record_id, field, path, verdict, expected and got (JSON), evidence, quote,
                         confidence where the rows have it: what a calibration needs
      records.parquet    a line a record: outcome, whole, tokens, cost, seconds, text
      scores.parquet     a line a field, and one for all ("*"): counts, precision, recall, F1, each with its bounds
      evaluation.json    the figures
      index.html         the page

``<golden>`` is the set's file name without its ending, and a digest of its path where another set of that name was evaluated
there before. Beside it ``<golden>-<recipe>-against-<recipe>/`` has a comparison's, ``<golden>-<recipe>-before-<recipe>/`` those of a draft
with a final behind it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from extractors.evaluate.evaluation import FOLDER, Evaluation, Scored
from extractors.evaluate.scoring import Cell
from extractors.evaluate.statistics import Interval, Score
from extractors.parsing import dumps_exact
from extractors.store import files
from schemas.ledger import MONEY

if TYPE_CHECKING:
    from extractors.evaluate.routes import Routes

VALUES = pa.schema(
    [
        ("record_id", pa.string()),
        ("occurrence", pa.int32()),
        ("field", pa.string()),
        ("path", pa.string()),
        ("verdict", pa.string()),
        ("expected", pa.string()),
        ("got", pa.string()),
        ("evidence", pa.string()),
        ("quote", pa.string()),
        ("confidence", pa.float64()),
    ]
)
RECORDS = pa.schema(
    [
        ("record_id", pa.string()),
        ("occurrence", pa.int32()),
        ("valid", pa.bool_()),
        ("whole", pa.bool_()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("model", pa.string()),
        ("ungrounded", pa.int32()),
        ("values", pa.int32()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost", MONEY),
        ("seconds", pa.float64()),
        ("text", pa.string()),
    ]
)
_FIGURES = ("precision", "recall", "f1")
SCORES = pa.schema(
    [
        ("field", pa.string()),
        ("rule", pa.string()),
        *((name, pa.int64()) for name in ("true_positives", "false_positives", "false_negatives")),
        *((f"{name}{tail}", pa.float64()) for name in _FIGURES for tail in ("", "_low", "_high")),
    ]
)

DIFFERENCES = pa.schema(
    [
        ("field", pa.string()),
        *((name, pa.float64()) for name in ("a", "b", "difference", "low", "high", "p", "p_adjusted")),
        ("shown", pa.bool_()),
    ]
)

ROUTES = pa.schema(
    [
        ("route_below", pa.float64()),
        ("routed", pa.float64()),
        *((f"{name}{tail}", pa.float64()) for name in ("f1", "difference") for tail in ("", "_low", "_high")),
        ("cost", pa.float64()),
    ]
)


def folder_of(evaluation: Evaluation) -> Path:
    """Where an evaluation's files lie; the same golden set and recipe have the same folder. Where another golden set of the
    same name has that one already, the name has a digest of this one's path as well."""
    folder = _named(evaluation)
    return (
        folder if _holds(folder / "evaluation.json") in (None, _file_of(evaluation)) else _named(evaluation, apart=True)
    )


def _named(evaluation: Evaluation, *, apart: bool = False) -> Path:
    stem = re.sub(r"[^\w.-]+", "_", Path(evaluation.golden).stem) or "golden"
    if apart:
        stem += f"-{files.sha256(_file_of(evaluation).encode('utf-8', 'surrogateescape'))[:8]}"
    return Path(evaluation.out) / FOLDER / f"{stem}-{evaluation.recipe}"


def _file_of(evaluation: Evaluation) -> str:
    return str(Path(evaluation.golden).resolve())


def _holds(path: Path) -> str | None:
    """The golden set that a file of figures is about; None where there is no such file, or none that can be read."""
    try:
        told = orjson.loads(path.read_bytes())
        told = told.get("a", told)
        return str(told.get("golden_file") or Path(told["golden"]).resolve())
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def write_results(evaluation: Evaluation, page: str) -> Path:
    """Write the tables, the figures and the page; the folder they lie in. Raises ``OutputError``."""
    folder = folder_of(evaluation)
    files.make_folder(folder)
    files.write_whole(folder / "values.parquet", _parquet(values_table(evaluation)))
    files.write_whole(folder / "records.parquet", _parquet(records_table(evaluation)))
    files.write_whole(folder / "scores.parquet", _parquet(scores_table(evaluation)))
    files.write_whole(folder / "evaluation.json", orjson.dumps(figures(evaluation), option=orjson.OPT_INDENT_2))
    files.write_whole(folder / "index.html", page.encode("utf-8", "replace"))
    return folder


def write_comparison(told: Mapping[str, Any], page: str, a: Evaluation, b: Evaluation) -> Path:
    """Write a comparison's figures, its fields as a table, and its page; the folder, which lies in the first's output."""
    fields = [{"field": field, **one} for field, one in (("*", told["f1"]), *told["fields"].items())]
    differences = pa.Table.from_pylist(fields, schema=DIFFERENCES)
    return _write_pair(a, "against", b, {"differences": differences}, {"comparison": told}, page)


def write_routes(told: Routes, page: str, draft: Evaluation, final: Evaluation) -> Path:
    """Write what routing brings and takes: figures, a line for each way, the page; the folder, in the draft's output."""
    ways = [
        {"route_below": one.below, "routed": one.routed, "cost": one.cost}
        | _columns("f1", one.f1)
        | _columns("difference", one.difference)
        for one in told.routes
    ]
    table = pa.Table.from_pylist(ways, schema=ROUTES)
    return _write_pair(draft, "before", final, {"routes": table}, {"routes": told.as_dict()}, page)


def _write_pair(
    a: Evaluation,
    word: str,
    b: Evaluation,
    tables: Mapping[str, pa.Table],
    objects: Mapping[str, Mapping[str, Any]],
    page: str,
) -> Path:
    """What is told of two evaluations, beside the first's own."""
    tail = f"-{word}-{b.recipe}"
    first = folder_of(a)
    folder = first.with_name(first.name + tail)
    if _holds(folder / "comparison.json") not in (None, _file_of(a)):
        folder = first.with_name(_named(a, apart=True).name + tail)
    files.make_folder(folder)
    for name, table in tables.items():
        files.write_whole(folder / f"{name}.parquet", _parquet(table))
    for name, told in objects.items():
        files.write_whole(folder / f"{name}.json", orjson.dumps(told, option=orjson.OPT_INDENT_2))
    files.write_whole(folder / "index.html", page.encode("utf-8", "replace"))
    return folder


def values_table(evaluation: Evaluation) -> pa.Table:
    """A line a value, right ones included; nothing where nothing was expected and nothing given."""
    return pa.Table.from_pylist(
        [_value(record, cell) for record in evaluation.records for cell in record.cells], schema=VALUES
    )


def records_table(evaluation: Evaluation) -> pa.Table:
    """A line a scored record."""
    return pa.Table.from_pylist(list(_records(evaluation)), schema=RECORDS)


def scores_table(evaluation: Evaluation) -> pa.Table:
    """A line a field, after one for all fields together."""
    lines = [_score("*", None, evaluation.micro)]
    lines += [_score(field, evaluation.rules[field], score) for field, score in evaluation.by_field.items()]
    return pa.Table.from_pylist(lines, schema=SCORES)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The figures as JSON values; money as a string."""
    p50, p95 = evaluation.seconds
    scored = max(1, len(evaluation.records))
    cost = evaluation.cost
    return {
        "golden": evaluation.golden,
        "golden_file": _file_of(evaluation),
        "out": evaluation.out,
        "name": evaluation.name,
        "recipe": evaluation.recipe,
        "model": evaluation.model,
        "records": len(evaluation.records),
        "unasked": len(evaluation.unasked),
        "unlabelled": evaluation.unlabelled,
        "learned": evaluation.learned,
        "f1": _bounds(evaluation.micro.f1),
        "precision": _bounds(evaluation.micro.precision),
        "recall": _bounds(evaluation.micro.recall),
        "macro_f1": _rounded(evaluation.macro_f1),
        "whole": _bounds(evaluation.whole),
        "valid": _bounds(evaluation.valid),
        "ungrounded": _bounds(evaluation.ungrounded),
        "input_tokens_a_record": round(evaluation.input_tokens / scored, 1),
        "output_tokens_a_record": round(evaluation.output_tokens / scored, 1),
        "cost": None if cost is None else format(cost, "f"),
        "currency": evaluation.currency,
        "seconds_p50": _rounded(p50),
        "seconds_p95": _rounded(p95),
        "fields": {
            field: {"rule": evaluation.rules[field], **{name: _bounds(getattr(score, name)) for name in _FIGURES}}
            for field, score in evaluation.by_field.items()
        },
        "run": None if evaluation.report is None else evaluation.report.run_id,
    }


def shown(value: Any) -> str | None:
    """A value as compact JSON; None stays None."""
    return None if value is None else dumps_exact(value)


def _value(record: Scored, cell: Cell) -> dict[str, Any]:
    evidence: Mapping[str, Any] = record.given.evidence.get(cell.path, {})
    return {
        "record_id": record.given.record_id,
        "occurrence": record.given.occurrence,
        "field": cell.field,
        "path": cell.path,
        "verdict": cell.verdict.value,
        "expected": shown(cell.expected),
        "got": shown(cell.got),
        "evidence": evidence.get("match"),
        "quote": evidence.get("quote"),
        "confidence": record.given.confidence.get(cell.path),
    }


def _records(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for record in evaluation.records:
        given = record.given
        ungrounded, looked_for = given.grounded
        yield {
            "record_id": given.record_id,
            "occurrence": given.occurrence,
            "valid": given.value is not None,
            "whole": record.whole,
            "reason": given.reason,
            "message": given.message,
            "model": given.model,
            "ungrounded": ungrounded,
            "values": looked_for,
            "input_tokens": given.input_tokens,
            "output_tokens": given.output_tokens,
            "cost": given.cost,
            "seconds": given.seconds,
            "text": record.text,
        }


def _score(field: str, rule: str | None, score: Score) -> dict[str, Any]:
    line: dict[str, Any] = {
        "field": field,
        "rule": rule,
        "true_positives": score.true_positives,
        "false_positives": score.false_positives,
        "false_negatives": score.false_negatives,
    }
    for name in _FIGURES:
        line |= _columns(name, getattr(score, name))
    return line


def _columns(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _bounds(interval: Interval) -> list[float | None]:
    """[value, low, high]"""
    return [_rounded(interval.value), _rounded(interval.low), _rounded(interval.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
