"""Adding a record to a golden set: a JSON Lines file of ``id``, ``text`` and ``expected``."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from extractors.errors import JobError
from extractors.store import files


def add_example(path: Path, record_id: str, text: str, expected: Mapping[str, Any], *, draft: bool = False) -> None:
    """Add a record, or replace the one of that id; the file is whole at any time. A ``draft`` says of itself that its
    values still have to be put right.

    Raises ``JobError`` for a file that is not a golden set, ``OutputError`` for one that cannot be written."""
    lines: dict[str, bytes] = {}
    if path.is_file():
        for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
            try:
                if line.strip():
                    lines[str(orjson.loads(line)["id"])] = line
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise JobError(f"{path}, line {number}: not a record of a golden set ({error})") from error
    told = {"id": record_id, "text": text, "expected": expected}
    lines[record_id] = orjson.dumps({**told, "draft": True} if draft else told)
    files.make_folder(path.parent)
    files.write_whole(path, b"".join(line + b"\n" for line in lines.values()))
