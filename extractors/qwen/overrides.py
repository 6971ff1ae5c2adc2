"""The user's profiles file, written by machine: one row put in or replaced, every other line left as it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from extractors.errors import JobError
from extractors.store.files import make_folder, write_whole

_ROW = re.compile(r"(?m)^[ \t]*\[\[[ \t]*model[ \t]*\]\][ \t]*(?:#.*)?$")
_HEAD = "# What you know of models, above what Quarry ships. `quarry model probe NAME` writes rows here.\n"


def write_override(path: Path, row: Mapping[str, Any]) -> None:
    """Set the keys of ``row`` in the file's row of that name; a row that is not there is added at the end.

    Other keys of the row stay; its comments and its layout do not. Raises ``JobError`` for a file that is not TOML or
    that cannot be changed without touching another row, and ``OutputError`` where it cannot be written."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = _HEAD
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"the profiles file {path} cannot be read: {error}") from error
    changed = with_row(text, row, where=str(path))
    make_folder(path.parent)
    write_whole(path, changed.encode("utf-8"))


def with_row(text: str, row: Mapping[str, Any], *, where: str = "the profiles file") -> str:
    """The file's text with the row in it."""
    before = _parsed(text, where)
    name = row["name"]
    kept = next((dict(one) for one in before if one.get("name") == name), {})
    merged = {**kept, **row}
    starts = [match.start() for match in _ROW.finditer(text)]
    ends = [*starts[1:], len(text)] if starts else []
    pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    head = text[: starts[0]] if starts else text
    if len(pieces) != len(before):
        raise _unfit(where, merged)
    written = [
        _toml(merged) + _tail(piece) if one.get("name") == name else piece
        for piece, one in zip(pieces, before, strict=True)
    ]
    if not kept:
        written.append(("\n" if text and not text.endswith("\n\n") else "") + _toml(merged))
    changed = head + "".join(written)
    after = _parsed(changed, where)
    if [one for one in after if one.get("name") != name] != [one for one in before if one.get("name") != name]:
        raise _unfit(where, merged)
    if next((one for one in after if one.get("name") == name), None) != merged:
        raise _unfit(where, merged)
    return changed


def _parsed(text: str, where: str) -> list[dict[str, Any]]:
    try:
        rows = tomllib.loads(text, parse_float=Decimal).get("model", [])
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{where} is not TOML, so nothing was written: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise JobError(f"{where} has no [[model]] rows, so nothing was written")
    return rows


def _tail(piece: str) -> str:
    """The empty and comment lines that end a row: they belong to what follows."""
    lines = piece.splitlines(keepends=True)
    end = len(lines)
    while end > 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return "".join(lines[end:])


def _unfit(where: str, row: Mapping[str, Any]) -> JobError:
    return JobError(
        f"{where} is laid out in a way that cannot be changed by machine; put this in yourself:\n{_toml(row)}"
    )


def _toml(row: Mapping[str, Any]) -> str:
    return "[[model]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in row.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    raise JobError(f"{value!r} has no form in a profiles file")
