"""A query of a DuckDB file as a look-up: read-only, one SELECT, its parameters bound, nothing outside of the file.

The query is the job's own; what a model writes is only ever the value of a parameter.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extractors.errors import JobError
from extractors.tools.functions import arguments_model, spec_of
from extractors.tools.toolbox import Tool
from schemas.arrow_types import SchemaMappingError
from schemas.oneline import parse_line

MOST_ROWS = 20
"""Rows of a result that the model is shown."""
_GRACE = 0.5
_COMMENT = re.compile(r"\s*(?:--[^\n]*(?:\n|$)|/\*.*?\*/)", re.DOTALL)
_SETTINGS = {
    "temp_directory": "",
    "memory_limit": "512MB",
    "threads": "1",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}


class Database:
    """A DuckDB file, opened once, read by many threads. Raises ``JobError`` for one that cannot be opened."""

    def __init__(self, path: Path, *, source: str) -> None:
        import duckdb

        self._path = path
        if not path.is_file():
            raise JobError(f"--tool {source}: there is no database {path}")
        try:
            # The file is attached, not opened: the source may read the same file with settings of its own.
            self._base = duckdb.connect(config={"autoinstall_known_extensions": "false"})
            self._base.execute(f"attach {_text(str(path))} as looked_up (read_only)")
            self._base.execute("use looked_up")
            for name, value in _SETTINGS.items():
                self._base.execute(f"set {name} = {_text(value)}")
            self._base.execute("set lock_configuration = true")
        except duckdb.Error as error:
            raise JobError(f"--tool {source}: {path} cannot be read: {_line(error)}") from error

    def rows(self, sql: str, parameters: Mapping[str, Any], *, timeout: float) -> Any:
        """The rows as objects; of more than ``MOST_ROWS`` the first, saying so. A query that takes longer than
        ``timeout`` seconds, which by then nobody waits for, is ended."""
        cursor = self._base.cursor()
        ending = threading.Timer(timeout + _GRACE, cursor.interrupt)
        ending.daemon = True
        ending.start()
        try:
            cursor.execute("use looked_up")
            found = cursor.execute(sql, dict(parameters))
            names = [column[0] for column in found.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchmany(MOST_ROWS + 1)]
        finally:
            ending.cancel()
            cursor.close()
        return rows if len(rows) <= MOST_ROWS else {"rows": rows[:MOST_ROWS], "more_rows": True}

    def columns(self, sql: str, parameters: Mapping[str, Any]) -> list[str]:
        """The columns of a query's result. Raises ``duckdb.Error`` for one that cannot be run."""
        cursor = self._base.cursor()
        try:
            cursor.execute("use looked_up")
            told = cursor.execute(f"describe {sql}", dict(parameters)).fetchall()
        finally:
            cursor.close()
        return [row[0] for row in told]


def tool_of_query(name: str, path: Path, sql: str, *, declared: str, source: str, timeout: float) -> Tool:
    """The query as a look-up. ``declared`` are parameters with types, ``"name: str, year: int"``; others are texts. A
    comment before the query is its description. Raises ``JobError``."""
    import duckdb

    described, query = _described(sql)
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise JobError(f"--tool {source}: this is no query: {_line(error)}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise JobError(f"--tool {source}: a look-up is one SELECT")
    parameters = sorted(statements[0].named_parameters, key=lambda one: query.find(f"${one}"))
    if bad := [one for one in parameters if not re.fullmatch(r"[A-Za-z]\w*", one)]:
        raise JobError(f"--tool {source}: parameters have names, such as $name, not ${bad[0]}")
    fields = _fields(parameters, declared, source)
    database = Database(path, source=source)
    try:
        columns = database.columns(query, dict.fromkeys(parameters))
    except duckdb.Error as error:
        raise JobError(f"--tool {source}: the query cannot be run: {_line(error)}") from error
    if twice := [one for number, one in enumerate(columns) if one in columns[:number]]:
        # A row is told as an object, which has each key once.
        raise JobError(
            f"--tool {source}: two columns are called {twice[0]!r}: name one of them (... as other_{twice[0]})"
        )
    arguments = arguments_model(name, fields)
    what = described or f"Looks up rows with {', '.join(columns)}."
    spec = spec_of(name, f"{what} At most {MOST_ROWS} rows.", arguments)
    return Tool(spec, arguments, run=lambda values: database.rows(query, values, timeout=timeout), source=source)


def _described(sql: str) -> tuple[str, str]:
    """The comments before the query, and the query."""
    words: list[str] = []
    rest = sql
    while match := _COMMENT.match(rest):
        words.append(match[0].strip().removeprefix("--").removeprefix("/*").removesuffix("*/").strip())
        rest = rest[match.end() :]
    return " ".join(" ".join(words).split()), rest.strip().rstrip(";")


def _fields(parameters: list[str], declared: str, source: str) -> dict[str, Any]:
    fields: dict[str, Any] = {name: (str, ...) for name in parameters}
    if not declared.strip():
        return fields
    try:
        model = parse_line(declared, name="arguments")
    except SchemaMappingError as error:
        raise JobError(f"--tool {source}: its parameters: {error}") from error
    if strangers := [name for name in model.model_fields if name not in fields]:
        raise JobError(f"--tool {source}: the query has no parameter ${strangers[0]}")
    return fields | {name: (field.rebuild_annotation(), field) for name, field in model.model_fields.items()}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
