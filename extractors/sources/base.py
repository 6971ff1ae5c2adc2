"""What every source is, and how an id, a text and kept columns are found among its columns."""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from extractors.errors import SourceError

COLUMNS = ("rid", "occ", "txt", "problem", "raw")
"""rid: the record's id or NULL for a content hash; occ: its occurrence or NULL to be counted; txt; problem: why
it cannot be asked, or NULL; raw: what could be read of a record with a problem."""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A source column that the rows carry, and its name there."""

    column: str
    name: str


class Source(ABC):
    """One input. A context manager; ``kept`` is known before the first record is read."""

    kept: pa.Schema
    description: str

    @abstractmethod
    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """A SELECT of ``COLUMNS`` and then ``k_<name>`` for each kept column, in source order."""

    def leftovers(self, con: duckdb.DuckDBPyConnection) -> str | None:
        """A second SELECT of the same shape, run after the first: records that the first could only skip."""
        return None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def kept_columns(keep: Sequence[str], columns: Sequence[str], *, where: str) -> list[Kept]:
    """Read ``--keep``: ``column`` or ``column:name``. Raises ``SourceError`` for a column that is not there."""
    found = []
    for entry in keep:
        column, _, name = (entry, "", entry) if entry in columns else entry.rpartition(":")
        found.append(Kept(one_of(column or entry, columns, where=where, option="--keep"), name or entry))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise SourceError(f"--keep gives two columns the same name: {', '.join(names)}")
    return found


def one_of(column: str, columns: Sequence[str], *, where: str, option: str) -> str:
    """The column by its name, or by its name in another case. Raises ``SourceError`` with a suggestion."""
    if column in columns:
        return column
    folded = [one for one in columns if one.casefold() == column.casefold()]
    if len(folded) == 1:
        return folded[0]
    close = difflib.get_close_matches(column, columns, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise SourceError(f"{where} has no column {column!r} ({option}); it has {', '.join(columns) or 'none'}{hint}")


def text_expression(
    text: str | None, columns: Mapping[str, str], *, id: str | None, where: str, texts: Sequence[str] | None = None
) -> str:
    """The SQL of a record's text. ``columns`` maps names to SQL; ``texts`` are those of a text type.

    ``text`` is a column, or a template: ``{column}`` is replaced, ``{{`` and ``}}`` are braces, a null column
    is empty. Without it: the column ``text``, else the only text column. Raises ``SourceError``.
    """
    names = list(columns)
    if text is not None and text not in columns and "{" in text:
        parts, place, fields = [], 0, 0
        for match in _FIELD.finditer(text):
            parts.append(quoted_text(text[place : match.start()]))
            place = match.end()
            if match[1] is None:
                parts.append(quoted_text(match[0][0]))
                continue
            fields += 1
            column = one_of(match[1].strip(), names, where=where, option="--text")
            parts.append(f"coalesce(cast({columns[column]} as varchar), '')")
        parts.append(quoted_text(text[place:]))
        if not fields:
            raise SourceError(f"the template {text!r} names no column; write one as {{column}}: {', '.join(names)}")
        return " || ".join(part for part in parts if part != "''") or "''"
    if text is not None:
        return f"cast({columns[one_of(text, names, where=where, option='--text')]} as varchar)"
    if "text" in columns:
        return f"cast({columns['text']} as varchar)"
    candidates = [name for name in (names if texts is None else texts) if name != id]
    if len(candidates) == 1:
        return f"cast({columns[candidates[0]]} as varchar)"
    raise SourceError(
        f"{where} has no column named text, and {len(candidates)} could be it ({', '.join(candidates) or 'none'}): "
        "say which with --text COLUMN, or join several with a template such as --text '{title}\\n{body}'"
    )


def select(rid: str, text: str, kept: Mapping[str, str], body: str) -> str:
    """The SELECT that a source gives: a null text becomes a problem later, when all sources look alike."""
    carried = "".join(f", {sql} as {quoted(f'k_{name}')}" for name, sql in kept.items())
    return f"select {rid} as rid, null::integer as occ, {text} as txt, null::varchar as problem, null::varchar as raw{carried} {body}"


def quoted(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A SQL string; NUL characters, which SQL text cannot hold, are spelled as chr(0)."""
    return " || chr(0) || ".join("'" + part.replace("'", "''") + "'" for part in text.split("\0"))


def arrow_schema(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Schema:
    """The Arrow schema of a SELECT, without running it."""
    return con.sql(f"select * from ({sql}) limit 0").to_arrow_table().schema


def kept_schema(con: duckdb.DuckDBPyConnection, kept: Mapping[str, str], body: str) -> pa.Schema:
    """The Arrow types of the kept columns."""
    if not kept:
        return pa.schema([])
    columns = ", ".join(f"{sql} as {quoted(name)}" for name, sql in kept.items())
    return arrow_schema(con, f"select {columns} {body}")
