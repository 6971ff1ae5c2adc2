"""The job as a form: fields in groups, the source as a choice of kinds; and a filled form as a flat job again.

The TOML file and the command line have flat fields. In a form some fifty of them in a row help nobody, so what few people
change lies in groups, and where records come from is one of four kinds. Both ways of saying it are a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SOURCES: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = {
    "files": (
        "Files",
        {"path": ("source", "A CSV, TSV, JSON, JSONL or Parquet file, a folder of text files or pictures, or a glob.")},
    ),
    "table": (
        "DuckDB table",
        {"database": ("duckdb", "The DuckDB database file."), "table": ("source", "A table or view in it.")},
    ),
    "query": (
        "SQL query",
        {
            "sql": ("sql", "A query whose rows are the records; it may read files, as DuckDB does."),
            "database": ("duckdb", "A DuckDB database file for it; leave it out for none."),
        },
    ),
}
"""A kind of source -> its title, and its fields: which field of the job each is, and what it says."""
_OPTIONAL = frozenset({("query", "database")})
GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "limits": (
        "Limits and ceilings",
        ("max_cost", "max_tokens", "max_records", "approve_above", "sample", "concurrency", "rpm", "tpm", "rate_limit_name", "max_failure_rate"),
    ),
    "accuracy": (
        "Examples, confidence and a final model",
        ("examples", "examples_shown", "examples_choice", "examples_common", "made_up_examples", "final", "high_accuracy", "route_below", "agreement", "calibration"),
    ),
    "evidence": ("Evidence and corrections", ("require_evidence", "evidence_policy", "repeated_items", "max_attempts", "second_look")),
    "look_ups": ("Look-ups", ("tools", "tool_timeout", "max_tool_steps")),
    "pictures": ("Pictures", ("image", "image_root", "image_hosts")),
    "documents": ("Documents", ("scanned_pages", "document_max_pages", "document_max_mb", "document_timeout")),
    "batches": (
        "Batches",
        ("live_tail", "live_after", "batch_window", "batch_requests", "batch_wait", "batch_poll"),
    ),
    "service": (
        "Service",
        ("credentials", "base_url", "region", "workspace", "dialect", "mode", "stream", "thinking"),
    ),
    "long": (
        "Long records",
        (
            "long_text", "context_tokens", "count_lists", "max_windows", "failed_windows",
            "embedding_model", "embedding_dimensions", "rerank_model",
        ),
    ),
    "machines": ("Many machines", ("runner", "dask_address", "dask_workers", "s3_endpoint", "catalog")),
}  # fmt: skip
"""A group -> its title and the job's fields in it."""
FIRST = ("source", "schema", "out", "text", "id", "keep", "model", "lane", "instructions")
"""What every job says, in the order in which one thinks of it."""
TITLES: Mapping[str, str] = {
    "schema": "What to extract",
    "out": "Output folder",
    "id": "Id column",
    "text": "Text column or template",
    "keep": "Columns to keep",
    "rpm": "Requests a minute",
    "tpm": "Tokens a minute",
    "image": "Picture column",
    "base_url": "Base URL",
}
ADVANCED = ("advanced", "Advanced")
HIDDEN = frozenset({"engine", "duckdb", "sql"})
"""``engine`` is Prefect where there is a form; the other two belong to a kind of source."""


def flattened(told: Any) -> Any:
    """A filled form with its groups and its source taken apart; a flat job stays as it is.

    Raises ``ValueError`` for a kind of source that there is none of, and for a field that is given twice."""
    if not isinstance(told, Mapping):
        return told
    flat: dict[str, Any] = {}
    for name, value in told.items():
        if name in (*GROUPS, ADVANCED[0]) and (value is None or isinstance(value, Mapping)):
            _add(flat, value or {}, told, group=name)
        elif name == "source" and isinstance(value, Mapping):
            _add(flat, _source(value), {key: one for key, one in told.items() if key != "source"}, group="source")
        else:
            flat[name] = value
    return flat


def _source(value: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(value.get("kind"))
    if kind not in SOURCES:
        raise ValueError(f"source: kind must be one of {', '.join(SOURCES)}, not {kind!r}")
    fields = SOURCES[kind][1]
    if strangers := sorted(set(value) - set(fields) - {"kind"}):
        raise ValueError(f"source: {', '.join(strangers)}: a source of the kind {kind} has {', '.join(fields)}")
    missing = [name for name in fields if not value.get(name) and (kind, name) not in _OPTIONAL]
    if missing:
        raise ValueError(f"source: a source of the kind {kind} needs {', '.join(missing)}")
    return {job: value[name] for name, (job, _) in fields.items() if value.get(name)}


def _add(flat: dict[str, Any], values: Mapping[str, Any], told: Mapping[str, Any], *, group: str) -> None:
    for name, value in values.items():
        if name in told or name in flat:
            raise ValueError(f"{group}: {name} is given twice")
        flat[name] = value


def form_schema(job: Mapping[str, Any], *, choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The JSON Schema of the form, from the job's own.

    ``choices`` are values to choose from where any other is allowed too."""
    own: Mapping[str, Mapping[str, Any]] = job["properties"]
    grouped = {name for _, names in GROUPS.values() for name in names}
    properties: dict[str, Any] = {
        name: _shown(name, own[name], choices) for name in FIRST if name in own and name != "source"
    }
    properties = {"source": _source_schema(), **properties}
    for group, (title, names) in GROUPS.items():
        properties[group] = _group(title, [name for name in names if name in own], own, choices)
    rest = [name for name in own if name not in properties and name not in grouped and name not in HIDDEN]
    properties[ADVANCED[0]] = _group(ADVANCED[1], rest, own, choices)
    return {
        "type": "object",
        "title": job.get("title", "Job"),
        "description": job.get("description", ""),
        "properties": properties,
        "required": ["source", "schema", "out"],
        # The flat names are taken as well; the model itself refuses those that there are not.
        "additionalProperties": True,
    }


def _group(
    title: str, names: Sequence[str], own: Mapping[str, Any], choices: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "properties": {name: _shown(name, own[name], choices) for name in names},
        "additionalProperties": False,
        "default": {},
    }


def _shown(name: str, own: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A field: without the null that only says that it may be left out, and with its choices."""
    branches = [branch for branch in own.get("anyOf", ()) if branch.get("type") != "null"]
    shown = {key: value for key, value in own.items() if key != "anyOf"}
    if len(branches) == 1:
        shown = {**branches[0], **shown}
    elif branches:
        # Money is a number or a string of digits in JSON; a form takes the number.
        shown = {**next((one for one in branches if one.get("type") == "number"), branches[0]), **shown}
    if shown.get("default", ...) is None:
        del shown["default"]
    if name in TITLES:
        shown["title"] = TITLES[name]
    if name in choices:
        plain = {
            key: value
            for key, value in shown.items()
            if key not in ("type", "title", "description", "default", "examples")
        }
        about: dict[str, Any] = {key: shown[key] for key in ("title", "description", "default") if key in shown}
        listed: dict[str, Any] = {"type": "string", "title": "One of ours", "enum": list(choices[name])}
        return {**about, "anyOf": [listed, {"type": "string", "title": "Another", **plain}]}
    return shown


def _source_schema() -> dict[str, Any]:
    kinds = []
    for kind, (title, fields) in SOURCES.items():
        properties: dict[str, Any] = {"kind": {"const": kind, "default": kind, "type": "string", "title": "Kind"}}
        for name, (_, about) in fields.items():
            properties[name] = {
                "type": "string",
                "title": name.title() if name != "sql" else "SQL",
                "description": about,
            }
        required = ["kind", *(name for name in fields if (kind, name) not in _OPTIONAL)]
        kinds.append(
            {
                "type": "object",
                "title": title,
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        )
    plain = {"type": "string", "title": "Path or table", "description": "As on the command line."}
    return {"title": "Source", "description": "Where the records come from.", "anyOf": [*kinds, plain]}
