"""What a person decided about an outcome: small JSON files beside the commits, only ever added.

A decision names the outcome that it is about by its commit's sequence, so that it says nothing of a later one: a failure
that was ignored comes up again when its record was asked anew and failed once more.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from extractors.errors import OutputError
from extractors.store import files

FOLDER = "reviews"
Action = Literal["accepted", "confirmed", "ignored", "reopened", "promoted", "retried"]
"""``accepted``: a person's values became the row. ``confirmed``: a row was found right as it is. ``ignored``: a failure is
left as it is, and is not open any more; ``reopened`` takes that back. ``promoted``: into a golden set. ``retried``: asked
again, whatever came of it."""


def review_below(recipe: str) -> str:
    """SQL over the catalog's ``runs``: the confidence below which a value is looked at by a person, as the last run of a
    recipe (SQL for its short id) had it; the default where no run of it left a report."""
    return f"coalesce((select max_by((job->>'review_below')::double, started_at) from runs where runs.recipe = {recipe}), 0.5)"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. ``sequence`` is that of the outcome's commit, ``decided_at`` ISO 8601 in UTC, ``who`` a login name."""

    record_id: str
    occurrence: int
    sequence: int
    action: Action
    who: str
    decided_at: str
    note: str = ""

    @property
    def outcome(self) -> tuple[str, int, int]:
        """The outcome that it is about."""
        return (self.record_id, self.occurrence, self.sequence)


def add(folder: Path, decision: Decision) -> None:
    """Keep a decision in a recipe's folder. Raises ``OutputError``."""
    place = folder / FOLDER
    files.make_folder(place)
    at = datetime.fromisoformat(decision.decided_at)
    name = f"{at:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}.json"
    files.write_whole(place / name, orjson.dumps(asdict(decision)))


def read(folder: Path) -> list[Decision]:
    """All decisions of a recipe, oldest first. Raises ``OutputError`` naming a file that cannot be read."""
    found = []
    for path in files.listed(folder / FOLDER, "*.json"):
        try:
            told: Mapping[str, Any] = orjson.loads(files.read(path))
            found.append(Decision(**told))
        except (OSError, ValueError, TypeError) as error:
            raise OutputError(f"the decision {path} cannot be read ({error}): put it back, or delete it") from error
    return found


def latest(decisions: Iterable[Decision]) -> dict[tuple[str, int, int], Decision]:
    """The last decision about each outcome that changes how it stands; ``promoted`` and ``retried`` change nothing."""
    return {one.outcome: one for one in decisions if one.action not in ("promoted", "retried")}
