"""``quarry show``, ``failures`` and ``schema``: looking at what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from extractors.errors import JobError, SchemaError
from extractors.report import unfinished
from extractors.routing_report import sentences
from extractors.store.catalog import current_rows, open_failures, outputs, query
from flows.cli import terminal

_HIDDEN = frozenset({"_evidence", "_confidence", "_meta", "_recipe", "fingerprint", "recipe", "committed_at", "run_id"})
"""Columns of the rows' views that are not the extraction itself."""


def show_output(out: Path, *, limit: int, as_json: bool) -> None:
    """Counts of every schema and recipe, the last runs, ``limit`` rows each, open failures by reason."""
    found = outputs(out)
    runs = query(out, "select * from runs order by started_at desc, run_id desc limit 5").to_pylist()
    if as_json:
        terminal.say_json({"out": str(out), "schemas": [one.as_dict() for one in found], "runs": runs})
        return
    for one in found:
        terminal.say(
            f"{one.name} recipe={one.recipe}: {one.rows:,} rows, {one.failures:,} open failures, "
            f"{f'{one.ignored:,} ignored, ' if one.ignored else ''}{one.calls:,} calls"
        )
        if limit and one.rows:
            rows = current_rows(out, name=one.name, recipe=one.recipe).slice(0, limit).to_pylist()
            terminal.blocks(
                [
                    {k: v for k, v in row.items() if k not in _HIDDEN or (k == "recipe" and "_recipe" in row)}
                    | ({"incomplete": ", ".join(lacking)} if (lacking := row["_meta"].get("incomplete")) else {})
                    for row in rows
                ]
            )
        if one.failures:
            reasons: dict[str, list[str]] = {}
            for entry in open_failures(out, name=one.name, recipe=one.recipe).select(["reason", "message"]).to_pylist():
                reasons.setdefault(entry["reason"], []).append(entry["message"])
            terminal.say("\n  open failures:")
            for reason, messages in sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0])):
                terminal.say(f"    {len(messages):,} {reason}: {messages[0][:200]}")
        terminal.say("")
    terminal.say("last runs:")
    for run in runs:
        terminal.say(
            f"  {run['run_id']}  {run['name']}: {run['records']:,} records = {run['rows']:,} rows + {run['failures']:,} "
            f"failures + {run['skipped']:,} already done + {run['undone']:,} undone; {run['calls']:,} calls, "
            f"{terminal.money(run['cost'], run['currency'])}, {run['seconds']:,.1f} s"
            + (f"; stopped: {run['stopped']}" if run["stopped"] else "")
        )
        if told := unfinished(run["unfinished_calls"], run["unfinished_cost"], run["currency"]):
            terminal.say(f"    {told}")
        if run["routing"]:
            for sentence in sentences(orjson.loads(run["routing"]), run["currency"]):
                terminal.say(f"    {sentence.text}")


def show_failures(out: Path, *, where: str | None, limit: int, as_json: bool) -> None:
    """Open ledger entries: counted by reason, then listed. Raises ``JobError`` for SQL that fails."""
    entries: list[dict[str, Any]] = []
    for one in outputs(out):
        entries.extend(
            {"schema": one.name, **row}
            for row in open_failures(out, name=one.name, recipe=one.recipe, where=where).to_pylist()
        )
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["reason"]] = counts.get(entry["reason"], 0) + 1
    ordered = dict(sorted(counts.items(), key=lambda pair: -pair[1]))
    if as_json:
        terminal.say_json({"open": len(entries), "by_reason": ordered, "failures": entries[:limit]})
        return
    terminal.say(
        f"{len(entries):,} open failures"
        + (": " if entries else "")
        + ", ".join(f"{n:,} {r}" for r, n in ordered.items())
    )
    console = terminal.talk()
    terminal.table(
        console,
        [
            {
                "record": entry["record_id"],
                "reason": entry["reason"],
                "retryable": "yes" if entry["retryable"] else "no",
                "message": entry["message"],
                "fields": ", ".join(problem["path"] for problem in entry["problems"] or ()),
            }
            for entry in entries[:limit]
        ],
        width=120,
    )
    if len(entries) > limit:
        terminal.say(f"… and {len(entries) - limit:,} more (--limit)")


def show_schema(spec: str, *, as_json: bool) -> None:
    """The JSON Schema, the Arrow schema and the system prompt of a schema spec."""
    from extractors.prompting import Prompter, load_texts
    from schemas.arrow import RowCodec, SchemaMappingError
    from schemas.jsonschema import answer_schema
    from schemas.loading import load_schema

    try:
        model = load_schema(spec)
        codec = RowCodec(model)
    except SchemaMappingError as error:
        raise SchemaError(str(error)) from error
    answer = answer_schema(model)
    if as_json:
        terminal.say(orjson.dumps(answer).decode())
        return
    terminal.say(f"# JSON Schema of {model.__name__}")
    terminal.say(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    terminal.say("\n# Arrow schema")
    for column in codec.schema:
        terminal.say(f"{column.name}: {column.type}{'' if column.nullable else ' not null'}")
    terminal.say("\n# Prompt")
    terminal.say(Prompter(load_texts(), answer).system.content)


__all__ = ["JobError", "show_failures", "show_output", "show_schema"]
