"""What a person may do with a record that waits. Everything is added to the output; nothing in it is changed."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.evaluate.golden_lines import Example
from extractors.evaluate.promotion import add_examples
from extractors.grounding import ground
from extractors.pipeline import run
from extractors.report import RunReport, new_run_id
from extractors.retrying import retry_jobs
from extractors.review.queue import Kind, Queue
from extractors.sources.text_template import sql_text
from extractors.store import reviews
from extractors.store.parts import Item
from extractors.store.plan import chunk_name
from extractors.store.store import Store
from schemas.answer_values import answer_values
from schemas.arrow import RowCodec
from schemas.outcomes import Extracted
from schemas.records import Record
from schemas.usage import Usage

PERSON = "person"
"""``_meta.model`` of a row whose values a person gave."""


class InvalidValues(JobError):
    """The values that a person gave do not fit the schema. ``problems`` has a path and a message for each."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{one['path'] or 'the object'}: {one['message']}" for one in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Target:
    """The outcome that a decision is about, as the person saw it."""

    kind: Kind
    record_id: str
    occurrence: int
    sequence: int


def accept(queue: Queue, target: Target, values: Mapping[str, Any], *, note: str = "") -> dict[str, Any]:
    """Make a person's values the record's row. Gives the validated values as JSON.

    Raises ``InvalidValues``, ``OutputBusy`` while a run writes there, and ``JobError`` when the record has another
    outcome by now."""
    told = _still(queue, target)
    model = _validated(queue.model, values)
    record = Record(target.record_id, told["text"] or "", told["fingerprint"], target.occurrence, told["kept"])
    before = told["value"]
    after = answer_values(model)
    outcome = Extracted(
        value=model,
        evidence=ground(model, told["text"] or ""),
        model=PERSON,
        attempts=(),
        usage=Usage(),
        corrected=tuple(name for name in after if after[name] != before.get(name)),
    )
    with _opened(queue) as store:
        store.commits(verify="size")
        run_id = new_run_id(datetime.now(UTC))
        commit = store.commit(chunk_name([record]), [Item(record, outcome)], [], run_id=run_id, at=datetime.now(UTC))
    _decide(queue, Target("row", target.record_id, target.occurrence, commit.sequence), "accepted", note)
    return after


def decide(queue: Queue, target: Target, action: reviews.Action, *, note: str = "") -> None:
    """Ignore a failure (a reason is asked for), take that back, or confirm a row as it is. Raises ``JobError``."""
    if action == "ignored" and (target.kind != "failure" or not note.strip()):
        raise JobError("only a failure is ignored, and with a reason")
    if action == "confirmed" and target.kind != "row":
        raise JobError("only a row is confirmed; a failure is ignored, or its values are given")
    _still(queue, target)
    _decide(queue, target, action, note)


def retry(
    queue: Queue,
    target: Target,
    *,
    model: str | None = None,
    settings: Settings | None = None,
    changes: Mapping[str, Any] | None = None,
) -> RunReport:
    """Ask for a failure again, by another model if one is named. Raises ``JobError`` for a row, and what a run raises."""
    if target.kind != "failure":
        raise JobError("only a failure is asked again; give a row's values by hand, or run the job with another recipe")
    _still(queue, target)
    where = f"record_id = {sql_text(target.record_id)} and occurrence = {target.occurrence}"
    found = list(retry_jobs(queue.out, where=where, recipe=queue.recipe, changes=changes))
    if not found:
        raise JobError(f"record {target.record_id!r} is no open failure any more: reload the page")
    _decide(queue, target, "retried", model or "")
    [again] = found
    return run(again.job, source=again.source, retry=again.selection, model=model, settings=settings)


def promote(queue: Queue, target: Target, golden: Path) -> None:
    """Put a record with its present values into a golden set. Raises ``JobError`` for a failure, for a record whose text is
    not known, and for a file that is no golden set that lines can be added to."""
    told = _still(queue, target)
    if target.kind != "row":
        raise JobError("give the failure's values first: only what is right belongs into a golden set")
    if told["text"] is None:
        raise JobError(f"the text of record {target.record_id!r} is not known: {told['text_missing']}")
    add_examples(golden, [Example(target.record_id, told["text"], told["value"])], queue.model, text=queue.job.text)
    _decide(queue, target, "promoted", str(golden))


def _still(queue: Queue, target: Target) -> dict[str, Any]:
    told = queue.record(target.kind, target.record_id, target.occurrence)
    if told["sequence"] != target.sequence:
        raise JobError(f"record {target.record_id!r} has another outcome by now: reload the page")
    return told


def _validated(model: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate_json(orjson.dumps(values))
    except ValidationError as error:
        raise InvalidValues(
            [
                {"path": "/".join(map(str, one["loc"])), "message": one["msg"].removeprefix("Value error, ")}
                for one in error.errors(include_url=False, include_context=False)
            ]
        ) from error


def _opened(queue: Queue) -> Store:
    document = {key: value for key, value in queue.document.items() if key != "id"}
    return Store.open(
        queue.out,
        name=queue.name,
        recipe_id=queue.document["id"],
        recipe=document,
        codec=RowCodec(queue.model),
        kept=queue.kept,
        ledger_text=queue.job.ledger_text,
    )


def _decide(queue: Queue, target: Target, action: reviews.Action, note: str) -> None:
    reviews.add(
        queue.folder,
        reviews.Decision(
            record_id=target.record_id,
            occurrence=target.occurrence,
            sequence=target.sequence,
            action=action,
            who=getpass.getuser(),
            decided_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            note=note.strip(),
        ),
    )
