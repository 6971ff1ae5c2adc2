"""Everything that DuckDB reads itself: Parquet files, tables, queries, data frames."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.columns import Columns, Wanted, choose
from extractors.sources.pictures import FROM_BYTES, FROM_TEXT
from extractors.sources.source import Source
from extractors.sources.text_template import listed, sql_name, sql_text

_DATABASE = "quarry_source"
_FRAME = "quarry_frame"


class QuerySource(Source):
    """A SELECT, run on a database file (opened read-only) or on files that it names itself."""

    def __init__(
        self, query: str, wanted: Wanted, *, place: str, database: Path | None = None, frame: pa.Table | None = None
    ) -> None:
        self.place = place
        self._query = query
        self._database = database
        self._frame = frame
        with duckdb.connect() as con:
            try:
                self.attach(con)
                described = con.execute(f"describe select * from ({query}\n)").fetchall()
            except duckdb.Error as error:
                raise SourceError(f"{place} cannot be read: {_first(error)}") from error
            types = {str(row[0]): str(row[1]) for row in described}
            texts = [name for name, kind in types.items() if kind in ("VARCHAR", "JSON") or kind.startswith("ENUM")]
            self._columns: Columns = choose(wanted, list(types), texts=texts, place=place)
            if self._columns.id is not None:
                self.id_null_problem = f"the id ({self._columns.id!r}) is null"
            self._types = types
            self._kept, self.kept = self._kept_types(con)
        self.pictures = wanted.pictures(database.parent if database is not None else Path())

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        if self._frame is not None:
            con.register(_FRAME, self._frame)
        if self._database is not None:
            try:
                con.execute(f"attach {sql_text(str(self._database))} as {_DATABASE} (read_only)")
            except duckdb.Error as error:
                raise SourceError(
                    f"{self._database} cannot be opened as a DuckDB database: {_first(error)}. It may be open for "
                    "writing elsewhere (close that first), or written by a newer DuckDB"
                ) from error
            con.execute(f"use {_DATABASE}")

    def stage(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        try:
            super().stage(con, table)
        finally:
            # The database is given back at once, so that others may write to it while the run goes on.
            if self._database is not None:
                con.execute(f"use memory; detach database if exists {_DATABASE}")

    def select(self, con: duckdb.DuckDBPyConnection) -> str:
        columns = self._columns
        identity = "null::varchar" if columns.id is None else self._text(columns.id)
        kept = "".join(f", {sql} as k{number}" for number, sql in enumerate(self._kept))
        image = ""
        if columns.image is not None:
            cell = sql_name(columns.image)
            is_bytes = self._types.get(columns.image) == "BLOB"
            image = (
                f", {FROM_BYTES}({cell}) as image" if is_bytes else f", {FROM_TEXT}(cast({cell} as varchar)) as image"
            )
        not_text = " or ".join(
            f"({sql_name(name)} is not null and {self._text(name)} is null)"
            for name in columns.text.columns
            if self._types.get(name) == "BLOB"
        )
        problem = f"case when {not_text} then 'the bytes are not UTF-8' end" if not_text else "null::varchar"
        return (
            f"select {identity} as id, {columns.text.sql(self._text)} as text, {problem} as problem, "
            f"null::varchar as raw{image}{kept} from ({self._query}\n)"
        )

    def _text(self, column: str) -> str:
        """A column as VARCHAR; bytes are taken as UTF-8."""
        name = sql_name(column)
        return f"try(decode({name}))" if self._types.get(column) == "BLOB" else f"cast({name} as varchar)"

    def _kept_types(self, con: duckdb.DuckDBPyConnection) -> tuple[list[str], pa.Schema]:
        """Each kept column's expression and Arrow type; what Parquet cannot hold becomes text."""
        expressions, fields = [], []
        for column, name in self._columns.keep:
            kind, expression = self._types.get(column, "VARCHAR"), sql_name(column)
            if kind in ("HUGEINT", "UHUGEINT"):
                expression = f"cast({expression} as decimal(38, 0))"
            arrow = _arrow_type(con, expression, self._query)
            if kind in ("JSON", "UUID", "BIT", "BIGNUM", "TIME WITH TIME ZONE") or _is_odd(arrow):
                expression = f"cast({expression} as varchar)"
                arrow = pa.string()
            expressions.append(expression)
            fields.append(pa.field(name, arrow))
        return expressions, pa.schema(fields)


def parquet_source(files: Sequence[Path], wanted: Wanted, *, place: str) -> QuerySource:
    """The rows of Parquet files, united by column name. Raises ``SourceError`` for an empty file."""
    for path in files:
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes): it is not a Parquet file; check what wrote it")
    names = ", ".join(sql_text(str(path)) for path in files)
    query = f"select * from read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    return QuerySource(query, wanted, place=place)


def database_source(database: Path, *, table: str | None, sql: str | None, wanted: Wanted) -> QuerySource:
    """A table, or a query, of a DuckDB database file. Raises ``SourceError`` that lists the tables."""
    if not database.is_file():
        raise SourceError(f"there is no DuckDB database {database}; check --duckdb")
    if sql is not None:
        return QuerySource(checked(sql), wanted, place=f"the query on {database}", database=database)
    assert table is not None
    with duckdb.connect() as con:
        try:
            con.execute(f"attach {sql_text(str(database))} as {_DATABASE} (read_only)")
        except duckdb.Error as error:
            raise SourceError(f"{database} cannot be opened as a DuckDB database: {_first(error)}") from error
        tables = con.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = ? union all "
            "select schema_name, view_name from duckdb_views() where database_name = ? and not internal order by all",
            [_DATABASE, _DATABASE],
        ).fetchall()
    names = {name if schema == "main" else f"{schema}.{name}": (schema, name) for schema, name in tables}
    if table not in names:
        close = difflib.get_close_matches(table, names, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SourceError(f"{database} has no table {table!r}; it has: {listed(list(names))}{hint}")
    schema, name = names[table]
    return QuerySource(
        f"select * from {sql_name(schema)}.{sql_name(name)}",
        wanted,
        place=f"table {table} of {database}",
        database=database,
    )


def frame_source(frame: Any, wanted: Wanted) -> QuerySource:
    """A pandas DataFrame or an Arrow table. Columns that are not asked for are not looked at."""
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if not isinstance(frame, pa.Table):
        if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
            raise SourceError(f"a {type(frame).__name__} is not a pandas DataFrame or an Arrow table")
        frame = _from_pandas(frame)
    if not frame.column_names:
        raise SourceError("the data frame has no columns")
    return QuerySource(f"select * from {_FRAME}", wanted, place="the data frame", frame=frame)


def checked(sql: str) -> str:
    """The one SELECT in ``sql``, without its semicolon. Raises ``SourceError``."""
    try:
        with duckdb.connect() as con:
            statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise SourceError(f"--sql cannot be read: {_first(error)}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("--sql must be one SELECT whose rows are the records")
    return str(statements[0].query).strip().rstrip(";")


def _from_pandas(frame: Any) -> pa.Table:
    """Column by column: one that Arrow cannot hold (mixed objects, lone surrogates) becomes text."""
    from extractors.sources.encodings import without_surrogates

    names = [str(column) for column in frame.columns]
    if len(set(names)) != len(names):
        raise SourceError(f"the data frame has columns of the same name: {listed(names)}")
    arrays = []
    for place in range(len(names)):
        series = frame.iloc[:, place]
        try:
            arrays.append(pa.array(series, from_pandas=True))
        except (pa.ArrowException, UnicodeEncodeError, TypeError):
            missing = series.isna()
            cells = [
                None if absent else without_surrogates(value if isinstance(value, str) else str(value))
                for value, absent in zip(series, missing, strict=True)
            ]
            arrays.append(pa.array(cells, pa.string()))
    return pa.Table.from_arrays(arrays, names=names)


def _arrow_type(con: duckdb.DuckDBPyConnection, expression: str, query: str) -> pa.DataType:
    return con.sql(f"select {expression} as k from ({query}\n) limit 0").to_arrow_table().schema.field("k").type


def _is_odd(kind: pa.DataType) -> bool:
    """Whether a type, or one inside it, has no place in Parquet."""
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_union(kind) or pa.types.is_interval(kind):
        return True
    return any(_is_odd(kind.field(number).type) for number in range(kind.num_fields))


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
