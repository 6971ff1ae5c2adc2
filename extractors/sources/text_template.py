"""The text of a record: one column, or a template over several (``"{title}\\n{body}"``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.errors import SourceError

_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """``pieces`` alternate literal text and column names: literals at even places, columns at odd ones.

    A template of one bare column gives that column's value, null included; in any other template a null
    column gives empty text.
    """

    pieces: tuple[str, ...]

    @classmethod
    def column(cls, name: str) -> TextTemplate:
        """The template that is one column."""
        return cls(("", name, ""))

    @classmethod
    def nothing(cls) -> TextTemplate:
        """The template of records that are nothing but their picture: empty text."""
        return cls(("",))

    @classmethod
    def parse(cls, template: str) -> TextTemplate:
        """Read ``{column}``, ``{{`` and ``}}`` for braces, and ``\\n``, ``\\t``, ``\\\\`` (shells pass
        them on as two characters). Raises ``SourceError`` for a lone brace or a template without a column."""
        pieces: list[str] = [""]
        end = 0
        for found in _PIECES.finditer(template):
            pieces[-1] += template[end : found.start()]
            end = found.end()
            if found.group(1) is not None:
                pieces += [found.group(1), ""]
            elif (literal := _ESCAPES.get(found.group())) is not None:
                pieces[-1] += literal
            else:
                raise SourceError(
                    f"--text {template!r}: the {found.group()!r} at character {found.start() + 1} has no partner; "
                    "write {column} for a column and {{ or }} for a brace"
                )
        pieces[-1] += template[end:]
        if len(pieces) == 1:
            raise SourceError(f"--text {template!r} names no column; write for example {{title}}")
        return cls(tuple(pieces))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it takes, in order."""
        return self.pieces[1::2]

    @property
    def single(self) -> str | None:
        """The column, when the template is nothing but one."""
        return self.pieces[1] if len(self.pieces) == 3 and not self.pieces[0] and not self.pieces[2] else None

    def render(self, value_of: Callable[[str], str | None]) -> str | None:
        """The text, given how to look a column's text up."""
        if self.single is not None:
            return value_of(self.single)
        return "".join(piece if place % 2 == 0 else (value_of(piece) or "") for place, piece in enumerate(self.pieces))

    def sql(self, expression_of: Callable[[str], str]) -> str:
        """The same as a SQL expression, given each column's VARCHAR expression."""
        if self.single is not None:
            return expression_of(self.single)
        parts = [
            sql_text(piece) if place % 2 == 0 else f"coalesce({expression_of(piece)}, '')"
            for place, piece in enumerate(self.pieces)
            if place % 2 or piece
        ]
        return "(" + " || ".join(parts) + ")" if parts else "''"


def sql_text(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_name(value: str) -> str:
    """A SQL identifier."""
    return '"' + value.replace('"', '""') + '"'


def value_text(value: Any) -> str | None:
    """A JSON scalar as text, as DuckDB would cast it; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def listed(names: Sequence[str], *, most: int = 30) -> str:
    """Names for a message."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
