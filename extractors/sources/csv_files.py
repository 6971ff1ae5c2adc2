"""CSV and TSV: every row a record, every row that is no row a problem with its line number."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import duckdb

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

_LINE_BYTES = 32 * 1024**2


class CsvFiles(Source):
    """One or more CSV files with a header, UTF-8 or UTF-16 with a byte-order mark.

    Columns are read as text, so that an id such as 007 stays as it is; kept columns have the type that
    DuckDB finds for the whole file.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        where: str,
        id: str | None,
        text: str | None,
        keep: Sequence[str],
        delimiter: str | None,
    ) -> None:
        self.description = where
        self._paths = list(paths)
        names, found, encoding = _header(self._paths[0], delimiter)
        for path in self._paths[1:]:
            other, _, _ = _header(path, found)
            if other != names:
                raise SourceError(
                    f"{path} has other columns ({', '.join(other)}) than {self._paths[0]} ({', '.join(names)})"
                )
        columns = {name: quoted(name) for name in names}
        self._id = one_of(id, names, where=where, option="--id") if id else None
        expression = text_expression(text, columns, id=self._id, where=where)
        chosen = kept_columns(keep, names, where=where)
        files = ", ".join(quoted_text(str(path)) for path in self._paths)
        self._reader = (
            f"read_csv([{files}], auto_detect = false, header = true, delim = {quoted_text(found)}, quote = '\"', escape = '\"', "
            f"encoding = '{encoding}', strict_mode = true, max_line_size = {_LINE_BYTES}, buffer_size = {4 * _LINE_BYTES}, "
            "columns = {%s}, store_rejects = true, rejects_table = 'quarry_rejects', rejects_scan = 'quarry_scans', rejects_limit = 0)"
            % ", ".join(f"{quoted_text(name)}: 'VARCHAR'" for name in names)
        )
        with duckdb.connect() as con:
            kinds = self._kinds(con, files, found, encoding, [one.column for one in chosen])
            kept = {one.name: f"try_cast({columns[one.column]} as {kinds[one.column]})" for one in chosen}
            self.kept = kept_schema(
                con, kept, f"from (select {', '.join(f'null::varchar as {column}' for column in columns.values())})"
            )
        rid = columns[self._id] if self._id else "null::varchar"
        self._sql = select(rid, expression, kept, f"from {self._reader}")

    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """See ``Source.relation``."""
        return self._sql

    def leftovers(self, con: duckdb.DuckDBPyConnection) -> str:
        """The rows that DuckDB rejected: one record for each line."""
        carried = "".join(f", null as {quoted(f'k_{one.name}')}" for one in self.kept)
        return (
            "select parse_filename(file_path) || ':' || line as rid, null::integer as occ, null::varchar as txt, "
            "'line ' || line || ' of ' || file_path || ' is no row: ' || why as problem, raw" + carried + " from ("
            "select file_path, line, min(split_part(error_message, chr(10), 1)) as why, left(any_value(cast(csv_line as varchar)), 2000) as raw "
            "from quarry_rejects r join quarry_scans s using (scan_id, file_id) group by file_path, line order by file_path, line)"
        )

    def _kinds(
        self, con: duckdb.DuckDBPyConnection, files: str, delimiter: str, encoding: str, columns: list[str]
    ) -> dict[str, str]:
        if not columns:
            return {}
        try:
            described = con.execute(
                f"describe select * from read_csv([{files}], header = true, delim = {quoted_text(delimiter)}, quote = '\"', "
                f"escape = '\"', encoding = '{encoding}', sample_size = -1, max_line_size = {_LINE_BYTES}, buffer_size = {4 * _LINE_BYTES})"
            ).fetchall()
        except duckdb.Error:
            # A file with broken rows has no types that hold for all of it: its columns stay text.
            return dict.fromkeys(columns, "varchar")
        kinds = {row[0]: row[1] for row in described}
        # A cast from text reads ISO dates only; other forms stay text rather than become null.
        return {name: _safe(con, files, delimiter, encoding, name, kinds.get(name, "VARCHAR")) for name in columns}


def _safe(con: duckdb.DuckDBPyConnection, files: str, delimiter: str, encoding: str, name: str, kind: str) -> str:
    if kind in ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"):
        return kind
    lost = con.execute(
        f"select count(*) from read_csv([{files}], header = true, delim = {quoted_text(delimiter)}, quote = '\"', escape = '\"', "
        f"encoding = '{encoding}', all_varchar = true) where {quoted(name)} is not null and try_cast({quoted(name)} as {kind}) is null"
    ).fetchall()
    return kind if lost == [(0,)] else "VARCHAR"


def _header(path: Path, delimiter: str | None) -> tuple[list[str], str, str]:
    """The columns, the delimiter and the encoding of a CSV file. Raises ``SourceError``."""
    with path.open("rb") as file:
        data = file.read(1024**2)
    if not data:
        raise SourceError(f"{path} is empty: a CSV file needs at least a header line")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        first = data.decode(
            "utf-16" if encoding == "utf-16" else "utf-8-sig", "ignore" if len(data) == 1024**2 else "strict"
        )
    except UnicodeDecodeError:
        # Only the header must be readable here; broken rows become problems of their own.
        line = data.split(b"\n", 1)[0]
        try:
            first = line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{path} is not UTF-8 (byte {error.start} of its header is 0x{line[error.start]:02x}); convert it, "
                "for instance with `iconv -f latin1 -t utf8`"
            ) from error
    head = first.split("\n", 1)[0]
    found = delimiter or max((",", ";", "\t", "|"), key=head.count)
    names = next(csv.reader(first.splitlines(keepends=True), delimiter=found), [])
    names = [name.strip() for name in names]
    if not any(names):
        raise SourceError(f"{path} has no header line")
    if len(set(names)) < len(names):
        raise SourceError(f"{path} names a column twice: {', '.join(names)}")
    return names, found, encoding
