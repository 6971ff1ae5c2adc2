"""From an output folder into a golden set: rows that are right, failures with their right values, or drafts of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from extractors.errors import JobError
from extractors.review.golden import add_example
from extractors.review.queue import Kind, Queue, queues
from extractors.store import reviews
from schemas.answer_values import answer_values


@dataclass(frozen=True, slots=True)
class Promoted:
    """A record that was added. ``kind`` is what it was in the output."""

    record_id: str
    kind: Kind
    draft: bool


def promote_records(
    out: Path,
    golden: Path,
    *,
    ids: Sequence[str] = (),
    reviewed: bool = False,
    expected: Mapping[str, Any] | None = None,
    draft: bool = False,
    name: str | None = None,
    recipe: str | None = None,
) -> list[Promoted]:
    """Add records to a golden set with their present values, or with ``expected`` for the one that is named.

    ``reviewed`` takes every row that a person accepted or confirmed, and that stands as it was then. A failure needs ``expected``, or becomes a
    ``draft`` that holds what could be read of its last answer. A record that is there already is replaced.
    Raises ``JobError`` for what is not in the output or has no text, ``OutputError`` for a folder that is none.
    """
    found = queues(out, name=name, recipe=recipe)
    if len(found) != 1:
        known = ", ".join(f"{one.name} {one.recipe}" for one in found)
        raise JobError(f"{out} holds {known}: say which one with --name and --recipe")
    [queue] = found
    wanted = dict.fromkeys((record_id, 0) for record_id in ids)
    if reviewed:
        decided = reviews.latest(reviews.read(queue.folder)).values()
        right = [one for one in decided if one.action in ("accepted", "confirmed") and _stands(queue, one)]
        wanted |= dict.fromkeys((one.record_id, one.occurrence) for one in right)
    if not wanted:
        raise JobError("nothing to add: name records with --id, or take the --reviewed ones (there are none yet)")
    if expected is not None and len(wanted) != 1:
        raise JobError(f"--expected holds the values of one record, and {len(wanted)} are named")
    try:
        return [_promote(queue, golden, *key, expected, draft=draft) for key in wanted]
    finally:
        queue.close()


def _stands(queue: Queue, decision: reviews.Decision) -> bool:
    """Whether the row that was decided about is still the record's outcome: nobody has looked at a later one."""
    try:
        told = queue.record("row", decision.record_id, decision.occurrence)
    except JobError:
        return False
    return bool(told["sequence"] == decision.sequence)


def _promote(
    queue: Queue, golden: Path, record_id: str, occurrence: int, expected: Mapping[str, Any] | None, *, draft: bool
) -> Promoted:
    kind, told = _record(queue, record_id, occurrence)
    if told["text"] is None:
        raise JobError(f"the text of record {record_id!r} is not known: {told['text_missing']}")
    if expected is not None:
        try:
            values = answer_values(queue.model.model_validate_json(orjson.dumps(expected)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise JobError(f"--expected, {'/'.join(map(str, first['loc']))}: {first['msg']}") from error
    elif kind == "row" or draft:
        values = told["value"]
    else:
        raise JobError(
            f"record {record_id!r} failed ({told['reason']}): give its right values with --expected, or add it with --draft "
            "and put them right in the file"
        )
    add_example(golden, record_id, told["text"], values, draft=draft and expected is None)
    return Promoted(record_id, kind, draft and expected is None)


def _record(queue: Queue, record_id: str, occurrence: int) -> tuple[Kind, dict[str, Any]]:
    kinds: tuple[Kind, ...] = ("row", "failure")
    for kind in kinds:
        try:
            return kind, queue.record(kind, record_id, occurrence)
        except JobError:
            continue
    raise JobError(f"{queue.out} has no row and no open failure of a record {record_id!r}")
