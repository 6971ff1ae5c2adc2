"""The earlier runs of an output folder, from their files in ``OUT/runs``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from extractors.store import files, layout

logger = logging.getLogger(__name__)


def run_documents(out: str | Path, *, name: str, recipe: str) -> Iterator[dict[str, Any]]:
    """What is on disk of the runs of a recipe (its first 8 digits), the latest first; none for a folder that is not
    there. A file that cannot be read is passed over with a warning."""
    folder = files.place(out) / layout.RUNS
    for path in sorted(files.listed(folder, "*.json"), reverse=True) if folder.is_dir() else ():
        try:
            told = orjson.loads(files.read(path))
        except (OSError, orjson.JSONDecodeError) as error:
            logger.warning("%s cannot be read (%s): it is not compared with", path, error)
            continue
        if told.get("name") == name and told.get("recipe") == recipe[:8]:
            yield told
