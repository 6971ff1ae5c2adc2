"""The scratch database of a report: the scope's rows, failures and calls, on disk, read as streams.

DuckDB does the work inside a fixed memory; Python sees sums, and records a few hundred at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from extractors.errors import OutputError
from extractors.reporting.scope import Scope
from extractors.reporting.shapes import Shape, row_shapes
from extractors.sources.text_template import sql_name, sql_text
from extractors.store import catalog, files, layout
from extractors.store.parts import KEPT_KEY, VIEW_COLUMNS
from schemas.ledger import CALLS, FAILURES_FIXED, ROWS_TAIL
from schemas.pointers import escape

MEMORY = ("96MB", "512MB", "2GB")
"""DuckDB's memory. The first is enough unless single values are megabytes long."""
_FIXED = ("record_id", "fingerprint")
_TAIL = tuple(field.name for field in ROWS_TAIL)
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the schema: its name, its key in evidence paths, its shape, and its column of ``desk.rows``."""

    name: str
    key: str
    shape: Shape
    column: str


@dataclass(frozen=True, slots=True)
class Desk:
    """Tables ``desk.rows`` (f0, f1, ... the fields; k0, ... the kept columns), ``desk.failures``, ``desk.calls``."""

    con: duckdb.DuckDBPyConnection
    folder: Path
    fields: tuple[Field, ...]
    kept: tuple[str, ...]
    choices: frozenset[str]
    """Evidence paths (``*`` for any place) of values that are chosen from a set and rarely stand in a text."""

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """A small result."""
        found: list[dict[str, Any]] = self.con.sql(sql).to_arrow_table().to_pylist()
        return found

    def one(self, sql: str) -> dict[str, Any]:
        """The only row of a result."""
        [row] = self.ask(sql)
        return row

    def stream(self, sql: str) -> Iterator[dict[str, Any]]:
        """A large result, a few hundred rows in memory."""
        with self.con.cursor() as cursor:
            for batch in cursor.sql(sql).to_arrow_reader(_BATCH):
                yield from batch.to_pylist()


@contextmanager
def opened(scope: Scope, *, memory: str = MEMORY[0]) -> Iterator[Desk]:
    """Copy what the scope needs into a scratch database; it is deleted at the end. Raises ``OutputError``."""
    with (
        tempfile.TemporaryDirectory(prefix="quarry-report-") as scratch,
        catalog.opened(scope.out, name=scope.name, recipe=scope.recipe) as con,
    ):
        folder = Path(scratch)
        con.execute(f"set memory_limit = '{memory}'")
        con.execute("set threads = 2; set preserve_insertion_order = false")
        con.execute(f"set temp_directory = {sql_text(str(folder / 'spill'))}")
        con.execute(f"attach {sql_text(str(folder / 'desk.duckdb'))} as desk")
        try:
            yield _copied(con, folder, scope)
        except duckdb.IOException as error:
            told = str(error).splitlines()[0]
            raise OutputError(
                f"the report cannot be put together: {told}; is there room in {folder.parent}?"
            ) from error


def _copied(con: duckdb.DuckDBPyConnection, folder: Path, scope: Scope) -> Desk:
    shapes, columns_kept = _columns(scope)
    rows = sql_name(scope.name) if scope.run is None else f"quarry.{sql_name(f'{scope.name}_rows')}"
    failures = sql_name(f"{scope.name}_failures")
    failures = failures if scope.run is None else f"quarry.{failures}"
    calls = sql_name(f"{scope.name}_calls")
    names = _names(con, rows)
    run_id, committed_at = _tail(names, "run_id"), _tail(names, "committed_at")
    taken = {*_FIXED, *_TAIL, *shapes, *(_tail(names, one) for one in VIEW_COLUMNS)}
    kept = tuple(dict.fromkeys([*columns_kept, *(name for name in names if name not in taken)]))
    fields = tuple(Field(name, key, shape, f"f{n}") for n, (name, (key, shape)) in enumerate(shapes.items()))
    own = [f"{sql_name(field.name)} as {field.column}" for field in fields]
    own += [f"{sql_name(name) if name in names else 'null'} as k{n}" for n, name in enumerate(kept)]
    con.execute(
        f"create table desk.rows as select record_id, fingerprint, _meta.occurrence as occurrence, "
        f"{', '.join([*own, ''])} _evidence as evidence, _confidence as confidence, _meta as meta, "
        f"{run_id} as run_id, {committed_at} as committed_at from {rows}{_only(run_id, scope)}"
    )
    names = _names(con, failures)
    run_id = _tail(names, "run_id")
    fixed = [field.name for field in FAILURES_FIXED]
    own = [f"{sql_name(f'kept_{name}') if f'kept_{name}' in names else 'null'} as k{n}" for n, name in enumerate(kept)]
    con.execute(
        f"create table desk.failures as select {', '.join([*fixed, *own])}, {run_id} as run_id, "
        f"{_tail(names, 'committed_at')} as committed_at from {failures}{_only(run_id, scope)}"
    )
    names = _names(con, calls)
    # An output that only earlier versions wrote has no look-ups.
    own = [field.name if field.name in names else f"null::varchar as {field.name}" for field in CALLS]
    con.execute(f"create table desk.calls as select {', '.join(own)} from {calls}{_only('run_id', scope)}")
    paths = frozenset(path for field in fields for path in field.shape.choices(escape(field.key)))
    return Desk(con, folder, fields, kept, paths)


def _columns(scope: Scope) -> tuple[dict[str, tuple[str, Shape]], Sequence[str]]:
    """The schema's columns with their keys and shapes, and the kept columns of the recipe's last run."""
    path = scope.folder / layout.COLUMNS
    try:
        known = pa.ipc.read_schema(pa.BufferReader(files.read(path)))
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path} cannot be read ({error}): run the job again to have it made") from error
    kept: list[str] = orjson.loads((known.metadata or {})[KEPT_KEY])
    own = [field for field in known if field.name not in {*_FIXED, *_TAIL, *kept}]
    document: Mapping[str, Any] = scope.document
    return row_shapes(pa.schema(own), document["schema"]), kept


def _names(con: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    return list(con.sql(f"select * from {relation} limit 0").columns)


def _tail(names: Sequence[str], column: str) -> str:
    """The name of a commit's column: with an underscore where the schema uses its name."""
    return f"_{column}" if f"_{column}" in names else column


def _only(run_id: str, scope: Scope) -> str:
    return "" if scope.run is None else f" where {run_id} = {sql_text(scope.run)}"
