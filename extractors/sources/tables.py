"""Sources that DuckDB reads as tables: Parquet, JSON arrays, databases, queries, data frames, the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.base import (
    Source,
    kept_columns,
    kept_schema,
    one_of,
    quoted,
    quoted_text,
    select,
    text_expression,
)


class TableSource(Source):
    """Anything that stands after FROM. ``setup`` is SQL that must run first (an ATTACH, say)."""

    def __init__(
        self, body: str, *, where: str, id: str | None, text: str | None, keep: Sequence[str], setup: Sequence[str] = ()
    ) -> None:
        self.description = where
        self._body = body
        self._setup = tuple(setup)
        self._frame: pa.Table | None = None
        with duckdb.connect() as con:
            self._plan(con, id=id, text=text, keep=keep)

    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """See ``Source.relation``."""
        self._prepare(con)
        return self._sql

    def _prepare(self, con: duckdb.DuckDBPyConnection) -> None:
        for statement in self._setup:
            con.execute(statement)
        if self._frame is not None:
            con.register("quarry_frame", self._frame)

    def _plan(self, con: duckdb.DuckDBPyConnection, *, id: str | None, text: str | None, keep: Sequence[str]) -> None:
        try:
            self._prepare(con)
            described = con.execute(f"describe select * from {self._body}").fetchall()
        except duckdb.Error as error:
            raise SourceError(f"{self.description} cannot be read: {_first_line(error)}") from error
        columns = {row[0]: quoted(row[0]) for row in described}
        if not columns:
            raise SourceError(f"{self.description} has no columns")
        texts = [row[0] for row in described if row[1] == "VARCHAR"]
        found = one_of(id, list(columns), where=self.description, option="--id") if id else None
        expression = text_expression(text, columns, id=found, where=self.description, texts=texts)
        kept = {one.name: columns[one.column] for one in kept_columns(keep, list(columns), where=self.description)}
        self.kept = kept_schema(con, kept, f"from {self._body}")
        rid = f"cast({columns[found]} as varchar)" if found else "null::varchar"
        self._sql = select(rid, expression, kept, f"from {self._body}")


class FrameSource(TableSource):
    """An Arrow table in memory."""

    def __init__(self, table: pa.Table, *, id: str | None, text: str | None, keep: Sequence[str]) -> None:
        self.description = "the data frame"
        self._body = "quarry_frame"
        self._setup = ()
        self._frame = table
        with duckdb.connect() as con:
            self._plan(con, id=id, text=text, keep=keep)


class LedgerSource(Source):
    """Open failures whose full text the ledger kept."""

    def __init__(self, failures: pa.Table) -> None:
        names = [name for name in failures.column_names if name.startswith("kept_")]
        self.description = "the ledger"
        self._table = failures.select(["record_id", "occurrence", "text", *names])
        self.kept = pa.schema([failures.schema.field(name).with_name(name.removeprefix("kept_")) for name in names])

    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """See ``Source.relation``."""
        con.register("quarry_ledger", self._table)
        carried = "".join(f", {quoted(f'kept_{one.name}')} as {quoted(f'k_{one.name}')}" for one in self.kept)
        return (
            "select record_id as rid, occurrence as occ, text as txt, null::varchar as problem, null::varchar as raw"
            f"{carried} from quarry_ledger"
        )


def database_setup(path: str) -> list[str]:
    """Attach a DuckDB file read-only and make it the place where names are looked up."""
    return [f"attach if not exists {quoted_text(path)} as quarry_source (read_only)", "use quarry_source"]


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
