"""Which schema, recipe and run of an output folder a report is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from extractors.errors import OutputError
from extractors.store import files, layout

Run = Mapping[str, Any]
"""A run's report as ``OUT/runs/<run-id>.json`` holds it, its job among it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One recipe of one schema: its current rows and open failures, or (``run``) what one run decided.

    ``runs`` are the recipe's, newest first; ``others`` are the other (schema, recipe) pairs of the folder.
    ``why`` says how it was chosen.
    """

    out: Path
    name: str
    recipe: str
    run: str | None
    runs: tuple[Run, ...]
    others: tuple[tuple[str, str], ...]
    why: str

    @property
    def latest(self) -> Run | None:
        """The run whose counts the report shows first; None where every run was killed before its report."""
        shown = [one for one in self.runs if self.run is None or one["run_id"] == self.run]
        return shown[0] if shown else None

    @property
    def document(self) -> Mapping[str, Any]:
        """The recipe as it was written down. Raises ``OutputError``."""
        path = self.folder / "recipe.json"
        try:
            told: Mapping[str, Any] = orjson.loads(files.read(path))
        except (OSError, orjson.JSONDecodeError) as error:
            raise OutputError(f"{path} cannot be read ({error}); put it back, or report another recipe") from error
        return told

    @property
    def folder(self) -> Path:
        """Where the recipe's files lie."""
        return layout.recipe_folder(self.out, name=self.name, recipe_id=self.recipe)


def choose(out: str | Path, *, schema: str | None = None, recipe: str | None = None, run: str | None = None) -> Scope:
    """What to report: what is named, else the schema and recipe of the latest run.

    Raises ``OutputError`` for a folder that is not an output or holds nothing, and for names that it does not have.
    """
    root = files.place(out)
    held = [(name, layout.short_id(folder)) for name, own in layout.recipe_folders(root).items() for folder in own]
    if not held:
        raise OutputError(f"{out} holds no schema yet: nothing was run into it")
    runs = read_runs(root)
    if run is not None:
        return _of_run(root, held, runs, schema=schema, recipe=recipe, run=run)
    fitting = [
        pair for pair in held if schema in (None, pair[0]) and (recipe is None or pair[1] == recipe[: len(pair[1])])
    ]
    if not fitting:
        wanted = " ".join(one for one in (schema, recipe and f"recipe={recipe}") if one)
        raise OutputError(f"{out} holds no {wanted}; it holds {_listed(held)}")
    latest = next((pair for one in runs if (pair := (one["name"], one["recipe"])) in fitting), fitting[-1])
    named = [f"--schema {schema}" if schema else "", f"--recipe {recipe}" if recipe else ""]
    why = " ".join(filter(None, named)) or ("the only one in the folder" if len(held) == 1 else "the latest run's")
    return _scope(root, held, runs, latest, run=None, why=why)


def read_runs(out: Path) -> list[Run]:
    """Every run's report, newest first. Raises ``OutputError`` for one that cannot be read."""
    found = []
    for path in files.listed(out / layout.RUNS, "*.json"):
        try:
            found.append(orjson.loads(files.read(path)))
        except (OSError, orjson.JSONDecodeError) as error:
            raise OutputError(f"{path} cannot be read ({error}); move it out of the folder to go on") from error
    return sorted(found, key=lambda one: (one["started_at"], one["run_id"]), reverse=True)


def _of_run(
    root: Path,
    held: Sequence[tuple[str, str]],
    runs: Sequence[Run],
    *,
    schema: str | None,
    recipe: str | None,
    run: str,
) -> Scope:
    mine = next((one for one in runs if one["run_id"] == run), None)
    if mine is None:
        known = ", ".join(one["run_id"] for one in runs[:5]) or "none"
        raise OutputError(f"{root} has no report of a run {run!r}; the latest are {known}")
    pair = (mine["name"], mine["recipe"])
    if schema not in (None, pair[0]) or (recipe is not None and pair[1] != recipe[: len(pair[1])]):
        raise OutputError(f"run {run} belongs to {pair[0]} recipe={pair[1]}: leave --schema and --recipe out")
    return _scope(root, held, runs, pair, run=run, why=f"--run {run}")


def _scope(
    root: Path,
    held: Sequence[tuple[str, str]],
    runs: Sequence[Run],
    pair: tuple[str, str],
    *,
    run: str | None,
    why: str,
) -> Scope:
    return Scope(
        out=root,
        name=pair[0],
        recipe=pair[1],
        run=run,
        runs=tuple(one for one in runs if (one["name"], one["recipe"]) == pair),
        others=tuple(other for other in held if other != pair),
        why=why,
    )


def _listed(held: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} recipe={recipe}" for name, recipe in held)
