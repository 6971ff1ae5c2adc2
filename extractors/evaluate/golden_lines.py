"""Writing golden sets: records into a JSON Lines file, all of them or none, in the place of those that are there already."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from extractors.errors import JobError
from extractors.evaluate.golden import LABEL_KEYS, id_text
from extractors.evaluate.line_texts import rendered, text_columns
from extractors.parsing import dumps_exact, loads_exact
from extractors.store import files


@dataclass(frozen=True, slots=True)
class Example:
    """A record for a golden set. ``expected`` holds JSON values; a ``draft`` says of itself that they still have to be put
    right."""

    record_id: str
    text: str
    expected: Mapping[str, Any]
    draft: bool = False


def check_lines(path: Path) -> None:
    """Raises ``JobError`` for a golden set that no line can be added to, ``OutputError`` for a place that cannot be written."""
    if path.suffix.lower() in (".parquet", ".pq"):
        raise JobError(
            f"records are added to golden sets of JSON Lines, and {path} is Parquet by its name: give a file such as "
            f"{path.with_suffix('.jsonl')}"
        )
    files.check_writable(path)


def add_lines(
    path: Path, examples: Sequence[Example], *, told: Callable[[str, Any], Any], text: str | None = None
) -> None:
    """Add records, or put them in the place of those of their ids; the file is whole at any time.

    A record that is replaced keeps its columns, its ``free``, and its ``accept`` of the keys whose label is what it was.
    ``text`` is the option that the examples' texts were made by: columns that make another text by it are not the record
    any more, and give way to ``text``. ``told`` gives the value of a key as labels have it, and raises ``ValueError`` for
    what is none. Raises ``JobError`` for a file that is not a golden set, and the errors of ``check_lines``.
    """
    check_lines(path)
    lines = _read(path)
    for one in examples:
        before = _parsed(lines[one.record_id]) if one.record_id in lines else {}
        line: dict[str, Any] = {"id": one.record_id, **_record(before, one.text, text), "expected": one.expected}
        if accept := _still_accepted(before, one.expected, told):
            line["accept"] = accept
        if before.get("free"):
            line["free"] = before["free"]
        if one.draft:
            line["draft"] = True
        lines[one.record_id] = dumps_exact(line).encode()
    files.make_folder(path.parent)
    files.write_whole(path, b"".join(line + b"\n" for line in lines.values()))


def _record(before: Mapping[str, Any], told: str, text: str | None) -> dict[str, Any]:
    """The record of a line: the columns that were there before, and the text where they do not make it."""
    columns = {key: value for key, value in before.items() if key != "id" and key not in LABEL_KEYS}
    # Values as a source reads them, not with all the digits that are written.
    plain = {key: orjson.loads(dumps_exact(value)) for key, value in columns.items()}
    named = text_columns(plain, text)
    if named and rendered(plain, text, named) == told:
        return columns
    return {**{key: value for key, value in columns.items() if key not in named}, "text": told}


def _read(path: Path) -> dict[str, bytes]:
    """The lines of a golden set by record id. Raises ``JobError``."""
    lines: dict[str, bytes] = {}
    if not path.is_file():
        return lines
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except ValueError as error:
            raise JobError(f"{path}, line {number}: not a record of a golden set ({error}); mend the line") from error
        record_id = id_text(row.get("id"), f"{path}, line {number}: `id`")
        if record_id is None:
            raise JobError(
                f"{path}, line {number} has no `id`, and no record with an id can stand beside it: give every line its id"
            )
        lines[record_id] = line
    return lines


def _parsed(line: bytes) -> dict[str, Any]:
    """Raises ``ValueError``."""
    row = loads_exact(line.decode())
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    return row


def _still_accepted(
    before: Mapping[str, Any], expected: Mapping[str, Any], told: Callable[[str, Any], Any]
) -> dict[str, Any]:
    """Further right values of the keys whose label is the same as before."""
    labels, accept = (_object(before.get(name)) for name in ("expected", "accept"))
    kept = {}
    for key, values in accept.items():
        if key not in labels or key not in expected:
            continue
        try:
            same = dumps_exact(told(key, labels[key])) == dumps_exact(expected[key])
        except ValueError:
            continue
        if same:
            kept[key] = values
    return kept


def _object(value: Any) -> Mapping[str, Any]:
    """Also of its JSON text."""
    try:
        found = loads_exact(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
