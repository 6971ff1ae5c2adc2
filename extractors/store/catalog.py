"""``catalog.duckdb``: views over the parts that count, and reading them without it.

*Current* means: of all outcomes of a (record id, occurrence) under a recipe, the one whose commit has
the highest sequence. A current row is in ``<name>``, a current failure in ``<name>_failures``; so a later
row closes a failure. Views hold absolute paths and are made anew after each run: a moved folder needs
``quarry show`` or a run to be queried through the catalog (the Parquet files need nothing).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from extractors.errors import JobError, OutputError
from extractors.store.commits import Commit, read_commit
from schemas.ledger import CALLS, FAILURES_FIXED

_KINDS = ("rows", "failures", "calls")


@dataclass(frozen=True, slots=True)
class Holding:
    """What an output folder holds of one recipe."""

    name: str
    recipe: str
    rows: int
    failures: int
    calls: int

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "rows": self.rows,
            "failures": self.failures,
            "calls": self.calls,
        }


def build_catalog(out: str | Path) -> Path:
    """Make ``OUT/catalog.duckdb`` anew: written beside the old one and renamed over it."""
    root = Path(out).resolve()
    target, temp = root / "catalog.duckdb", root / f".tmp-catalog-{os.getpid()}.duckdb"
    temp.unlink(missing_ok=True)
    with duckdb.connect(str(temp)) as con:
        _define(con, root)
    temp.replace(target)
    return target


def query(out: str | Path, sql: str) -> pa.Table:
    """Run SQL over the catalog's views as they are now. Raises ``JobError`` for SQL that DuckDB refuses."""
    with duckdb.connect() as con:
        _define(con, Path(out).resolve())
        try:
            return con.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise JobError(f"DuckDB refuses the query: {error}") from error


def current_rows(out: str | Path, *, name: str | None = None, recipe: str | None = None) -> pa.Table:
    """The current rows of a schema (of the only one, when there is one). Raises ``OutputError``."""
    view = _only(out, name)
    return query(out, f"select * from {_quoted(view)}{_of(recipe)} order by record_id, _meta.occurrence")


def open_failures(
    out: str | Path, *, name: str | None = None, recipe: str | None = None, where: str | None = None
) -> pa.Table:
    """The open ledger entries; ``where`` is a SQL condition on their columns. Raises ``JobError``."""
    view = _quoted(f"{_only(out, name)}_failures")
    condition = f" where ({where})" if where else ""
    return query(out, f"select * from (select * from {view}{_of(recipe)}){condition} order by record_id, occurrence")


def outputs(out: str | Path) -> list[Holding]:
    """What the folder holds, one entry for each recipe."""
    found = []
    for name, folders in _recipes(Path(out)).items():
        for folder in folders:
            recipe = folder.name.removeprefix("recipe=")
            counts = query(
                out,
                f"select (select count(*) from {_quoted(name)}{_of(recipe)}) as rows, "
                f"(select count(*) from {_quoted(name + '_failures')}{_of(recipe)}) as failures, "
                f"(select count(*) from {_quoted(name + '_calls')}{_of(recipe)}) as calls",
            ).to_pylist()[0]
            found.append(Holding(name, recipe, counts["rows"], counts["failures"], counts["calls"]))
    return found


def mean_output_tokens(out: str | Path, *, name: str, recipe: str) -> float | None:
    """Output tokens of a record on average over the recipe's commits, corrections included; None without any."""
    folder = Path(out) / name / f"recipe={recipe}"
    commits = [read_commit(path) for path in sorted((folder / "commits").glob("*.json"))[:200]]
    asked = sum(commit.records - commit.merged for commit in commits)
    return sum(commit.usage.output_tokens for commit in commits) / asked if asked else None


def _define(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """The commits as a table, and the views over them."""
    con.execute("create table commits (name varchar, recipe varchar, chunk varchar, sequence bigint, run_id varchar, "
                "committed_at timestamptz, kind varchar, file varchar, rows bigint)")  # fmt: skip
    for name, folders in _recipes(root).items():
        held: list[tuple[Path, Commit]] = []
        for folder in folders:
            held += [(folder, read_commit(path)) for path in sorted((folder / "commits").glob("*.json"))]
        listed = [
            (name, folder.name.removeprefix("recipe="), c.chunk, c.sequence, c.run_id, c.committed_at, part.kind,
             str(folder / part.path), part.rows)
            for folder, c in held
            for part in c.parts
        ]  # fmt: skip
        if listed:
            columns = list(zip(*listed, strict=True))
            names = ("name", "recipe", "chunk", "sequence", "run_id", "committed_at", "kind", "file", "rows")
            batch = pa.table(dict(zip(names, columns, strict=True)))
            con.register("batch", batch)
            con.execute(
                "insert into commits by name select * replace (committed_at::timestamptz as committed_at) from batch"
            )
            con.unregister("batch")
        _views(con, name, folders, [row[7] for row in listed if row[6] == "rows"])
    runs = root / "runs"
    if any(runs.glob("*.json")):
        con.execute(
            f"create view runs as select * exclude (filename) from read_json({_text(str(runs / '*.json'))}, "
            "union_by_name = true, filename = true, columns = " + _run_columns() + ")"
        )
    else:
        empty = ", ".join(f"null::{kind} as {_quoted(column)}" for column, kind in _RUN_COLUMNS.items())
        con.execute(f"create view runs as select {empty} where false")


_RUN_COLUMNS: Mapping[str, str] = {
    "run_id": "varchar", "recipe": "varchar", "name": "varchar", "model": "varchar", "engine": "varchar",
    "started_at": "timestamptz", "records": "bigint", "rows": "bigint", "failures": "bigint", "skipped": "bigint",
    "merged": "bigint", "undone": "bigint", "calls": "bigint", "tries": "bigint", "input_tokens": "bigint",
    "cached_tokens": "bigint", "output_tokens": "bigint", "cost": "decimal(20,10)", "currency": "varchar",
    "seconds": "double", "latency_p50": "double", "latency_p95": "double", "rate_limited": "bigint",
    "failures_by_reason": "json", "stopped": "varchar", "job": "json",
}  # fmt: skip


_TAIL = {"run_id": "varchar", "committed_at": "timestamptz", "recipe": "varchar", "sequence": "bigint"}


def _run_columns() -> str:
    return "{" + ", ".join(f"{column}: '{kind}'" for column, kind in _RUN_COLUMNS.items()) + "}"


def _views(con: duckdb.DuckDBPyConnection, name: str, folders: list[Path], rows: list[str]) -> None:
    for kind in _KINDS:
        con.execute(f"create view {_quoted(f'_{name}_{kind}')} as {_parts(con, name, folders, kind)}")
    # Both kinds of outcomes of a record compete: only the latest of all counts.
    con.execute(
        f"create view {_quoted(f'_{name}_latest')} as select recipe, record_id, occurrence, max(sequence) as sequence from ("
        f"select recipe, record_id, _meta.occurrence as occurrence, sequence from {_quoted(f'_{name}_rows')} union all "
        f"select recipe, record_id, occurrence, sequence from {_quoted(f'_{name}_failures')}) group by all"
    )
    for kind, view, occurrence in (("rows", name, "_meta.occurrence"), ("failures", f"{name}_failures", "occurrence")):
        con.execute(
            f"create view {_quoted(view)} as select o.* exclude (sequence) from {_quoted(f'_{name}_{kind}')} o "
            f"semi join {_quoted(f'_{name}_latest')} l on o.recipe = l.recipe and o.record_id = l.record_id "
            f"and o.{occurrence} = l.occurrence and o.sequence = l.sequence"
        )
    con.execute(
        f"create view {_quoted(f'{name}_calls')} as select * exclude (sequence) from {_quoted(f'_{name}_calls')}"
    )
    if rows:
        for field in pq.read_schema(rows[-1]):
            if (
                pa.types.is_list(field.type)
                and pa.types.is_struct(field.type.value_type)
                and not field.name.startswith("_")
            ):
                con.execute(
                    f"create view {_quoted(f'{name}_{field.name}')} as select record_id, fingerprint, recipe, position, "
                    f"unnest(item) from (select record_id, fingerprint, recipe, unnest(range(len({_quoted(field.name)}))) as position, "
                    f"unnest({_quoted(field.name)}) as item from {_quoted(name)})"
                )


def _parts(con: duckdb.DuckDBPyConnection, name: str, folders: list[Path], kind: str) -> str:
    """A SELECT over the committed parts of a kind; typed and empty when there are none."""
    found = con.execute("select file from commits where name = ? and kind = ? order by file", [name, kind]).fetchall()
    if not found:
        fields = [(field.name, _duckdb_type(con, field)) for field in _empty(folders, kind)] + list(_TAIL.items())
        return "select " + ", ".join(f"null::{type_} as {_quoted(column)}" for column, type_ in fields) + " where false"
    globs = ", ".join(
        _text(str(folder / kind / "*.parquet")) for folder in folders if any((folder / kind).glob("*.parquet"))
    )
    own = "p.* exclude (filename, run_id), c.run_id" if kind == "calls" else "p.* exclude (filename), c.run_id"
    return (
        f"select {own}, c.committed_at, c.recipe, c.sequence from read_parquet([{globs}], "
        "union_by_name = true, filename = true, hive_partitioning = false) p join commits c on p.filename = c.file"
    )


def _empty(folders: list[Path], kind: str) -> list[pa.Field]:
    if kind == "calls":
        return [field for field in CALLS if field.name != "run_id"]
    if kind == "failures":
        return list(FAILURES_FIXED)
    for folder in folders:
        path = folder / "columns.arrow"
        if path.is_file():
            return list(pa.ipc.read_schema(pa.BufferReader(path.read_bytes())))
    return [pa.field("record_id", pa.string()), pa.field("fingerprint", pa.string())]


def _duckdb_type(con: duckdb.DuckDBPyConnection, field: pa.Field) -> str:
    empty = pa.table({"x": pa.array([], field.type)})
    con.register("typed", empty)
    kind = str(con.sql("select x from typed").types[0])
    con.unregister("typed")
    return kind


def _recipes(root: Path) -> dict[str, list[Path]]:
    """The recipe folders of every schema. Raises ``OutputError`` for a folder that is not an output."""
    if not (root / "quarry.json").is_file():
        raise OutputError(f"{root} is not an output folder of quarry: it has no quarry.json")
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/recipe=*/recipe.json")):
        found.setdefault(path.parent.parent.name, []).append(path.parent)
    return found


def _only(out: str | Path, name: str | None) -> str:
    names = list(_recipes(Path(out)))
    if name is not None:
        if name not in names:
            raise OutputError(f"{out} holds no schema {name!r}; it holds {', '.join(names) or 'none'}")
        return name
    if len(names) != 1:
        raise OutputError(f"{out} holds {', '.join(names) or 'no schema'}: say which one")
    return names[0]


def _of(recipe: str | None) -> str:
    return f" where recipe = {_text(recipe)}" if recipe else ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
