"""Where the text of each line of a golden set is: in the columns that the job names, else in ``text``, as promoted records
have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from extractors.errors import JobError
from extractors.evaluate.golden import golden_lines, record_columns
from extractors.sources.text_template import TextTemplate, value_text


@dataclass(frozen=True, slots=True)
class LineTexts:
    """``id`` and ``text`` are the job's options as the set is read by them; ``alone`` says of each line, in order, whether its
    text is in ``text`` instead. Empty where none is."""

    id: str | None
    text: str | None
    alone: tuple[bool, ...] = ()


def line_texts(golden: Path, *, id: str | None, text: str | None, image: str | None = None) -> LineTexts:
    """Find the text of every line. Raises ``JobError`` naming a line that has none and no picture either: it would be a
    failure of the model's."""
    columns = record_columns(golden)
    lines = list(golden_lines(golden))
    if id is None or not all(id in row for _, row in lines):
        # A set that records were promoted into has `id` and `text`, whatever the job's source calls them.
        id = "id" if "id" in columns else id
    records = [column for column in columns if column not in ("id", id)]
    if not records:
        raise JobError(
            f"{golden} holds labels but no records; say where the records are with --records, or add their `text`"
        )
    named = named_columns(text, records)
    if not set(named) <= set(records) and "text" in records:
        text, named = "text", ("text",)
    alone = []
    for where, row in lines:
        whole = all(column in row for column in named) and any(not _blank(row[column]) for column in named)
        alone.append(not whole and bool(named) and not _blank(row.get("text")))
        found = whole or alone[-1] or any(not _blank(row.get(column)) for column in named or records)
        if not found and (image is None or _blank(row.get(image))):
            raise JobError(f"{where} has no text of its record: {_missing(row, records, named)}")
    if all(alone):
        return LineTexts(id, "text")
    if any(alone) and image is not None:
        raise JobError(
            f"some lines of {golden} have their text in `text` and others in {', '.join(named)}: a set with pictures needs it in "
            "the same columns of every line"
        )
    return LineTexts(id, text, tuple(alone) if any(alone) else ())


def named_columns(text: str | None, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that make a record's text by the job's ``text``; none where the source is to choose. Raises
    ``SourceError``."""
    if text is None:
        return ("text",) if "text" in columns else ()
    return (text,) if text in columns or "{" not in text else TextTemplate.parse(text).columns


def text_columns(row: Mapping[str, Any], text: str | None) -> tuple[str, ...]:
    """The columns of a line that hold its record's text by the job's ``text``, or where that is not given by what a source
    would choose."""
    there = [column for column, value in row.items() if not _blank(value)]
    if found := tuple(column for column in named_columns(text, there) if column in row):
        return found
    written = [column for column in there if isinstance(row[column], str)]
    return (written[0],) if text is None and len(written) == 1 else ()


def text_of(row: Mapping[str, Any], text: str | None) -> str | None:
    """The text of a line's record: what the job's ``text`` makes of its columns where it has them all, else its ``text``."""
    columns = named_columns(text, list(row))
    if columns and all(column in row for column in columns) and any(not _blank(row[column]) for column in columns):
        return rendered(row, text, columns)
    found = row.get("text")
    return found if isinstance(found, str) else None


def rendered(row: Mapping[str, Any], text: str | None, columns: Sequence[str]) -> str | None:
    """The text that a line's ``columns`` make, as a source makes it."""
    template = (
        TextTemplate.column(columns[0]) if text is None or text in columns else TextTemplate.parse(text)
    )  # fmt: skip
    return template.render(lambda column: _text(row.get(column)))


def _missing(row: Mapping[str, Any], records: Sequence[str], named: Sequence[str]) -> str:
    others = [
        column
        for column in records
        if column not in named and isinstance(row.get(column), str) and not _blank(row[column])
    ]
    if others:
        return (
            f"nothing is in {' and '.join(f'`{column}`' for column in named)}. Say which columns make it with --text, "
            f"such as --text {_template(others)}"
        )
    return "it holds only labels. Add its text, or say where the records are with --records"


def _template(columns: Sequence[str]) -> str:
    return columns[0] if len(columns) == 1 else "'" + "\\n".join(f"{{{column}}}" for column in columns[:2]) + "'"


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> str | None:
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value).decode()
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value_text(value)
