"""Where things lie in an output folder, and whether a folder is one.

::

    OUT/quarry.json                         says that the folder is ours, and in which format
    OUT/<name>/recipe=<id8>/recipe.json     columns.arrow rows/ failures/ calls/ commits/ journal/ quarantine/
                                            batches/ when the batch lane was used
    OUT/runs/<run-id>.json
    OUT/.lock  OUT/.scratch/                only a run's own
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from extractors.errors import JobError, OutputError
from extractors.store import files

FORMAT = 1
MARKER = "quarry.json"
LOCK = ".lock"
SCRATCH = ".scratch"
RUNS = "runs"
CATALOG = "catalog.duckdb"
QUARANTINE = "quarantine"
COLUMNS = "columns.arrow"
PARTS = ("rows", "failures", "calls")


def recipe_folder(out: Path, *, name: str, recipe_id: str) -> Path:
    """Where a recipe's files lie."""
    return out / name / f"recipe={recipe_id[:8]}"


def recipe_folders(out: Path) -> dict[str, list[Path]]:
    """The recipe folders of every schema, by its name. Raises ``OutputError`` for a folder that is not an
    output."""
    if not (out / MARKER).is_file():
        raise OutputError(f"{out} is not an output folder of quarry: it has no {MARKER}")
    check_ours(out)
    found: dict[str, list[Path]] = {}
    for path in sorted(out.glob("*/recipe=*/recipe.json")):
        found.setdefault(path.parent.parent.name, []).append(path.parent)
    return found


def short_id(folder: Path) -> str:
    """The first 8 digits of a recipe's id, from its folder."""
    return folder.name.removeprefix("recipe=")


def check_ours(out: Path) -> None:
    """Raises ``OutputError`` for a folder of somebody else, or of a newer Quarry. An empty one may become ours."""
    if "?" in str(out.resolve()):
        raise OutputError(f"{out}: DuckDB takes a ? in a path for the start of options; give another --out")
    marker = out / MARKER
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out} is a file; --out must name a folder")
        data = files.read(marker) if marker.is_file() else None
        inside = [] if data or not out.is_dir() else list(out.iterdir())
    except OSError as error:
        what = "the bucket, the endpoint and the credentials" if files.is_remote(out) else "the folder's permissions"
        raise OutputError(f"cannot read {out}: {error.strerror or error}; check {what}") from error
    if data is not None:
        try:
            version = int(orjson.loads(data)["format"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(f"{marker} cannot be read ({error}); is {out} an output folder of quarry?") from error
        if version > FORMAT:
            raise OutputError(f"{out} was written by a newer Quarry (format {version}); this one reads up to {FORMAT}")
        return
    # A run killed while it made the folder leaves the lock file and perhaps half a marker.
    strangers = [path.name for path in inside if path.name != LOCK and not files.is_temporary(path, MARKER)]
    if strangers:
        raise OutputError(
            f"{out} is not empty and not Quarry's (it holds {', '.join(sorted(strangers)[:3])}); give another --out"
        )


def mark(out: Path) -> None:
    """Say that a folder is ours; only for one that passed ``check_ours``, and under the lock."""
    if not (out / MARKER).is_file():
        files.write_whole(out / MARKER, orjson.dumps({"format": FORMAT, "made_by": "quarry"}))


def make_recipe_folder(folder: Path, recipe_id: str, recipe: Mapping[str, Any]) -> None:
    """Make a recipe's folders, clean up after killed runs, keep or compare recipe.json. Raises ``OutputError``."""
    for one in (folder, *(folder / kind for kind in (*PARTS, "commits", "journal"))):
        files.make_folder(one)
        files.remove_stale(one)
    path = folder / "recipe.json"
    if path.is_file():
        try:
            known = orjson.loads(files.read(path)).get("id")
        except (OSError, orjson.JSONDecodeError, AttributeError) as error:
            raise OutputError(f"{path} cannot be read ({error}); put it back, or give another --out") from error
        if known != recipe_id:
            raise OutputError(f"{path} belongs to recipe {known}, not {recipe_id}: give another --out")
        return
    files.write_whole(path, orjson.dumps({"id": recipe_id, **recipe}, option=orjson.OPT_INDENT_2))


def check_name(name: str) -> None:
    """Raises ``JobError`` for a schema whose name cannot be a folder beside the others."""
    if name == RUNS or name.startswith(".") or "/" in name or "\x00" in name or not name:
        raise JobError(f"a schema cannot be called {name!r} in an output folder; rename its class")
