"""From an output folder into a golden set: rows that are right, failures with their right values, or drafts of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from extractors.errors import JobError
from extractors.evaluate.golden_lines import Example, add_lines, check_lines
from extractors.parsing import dumps_exact
from extractors.review.queue import Kind, Queue, queues
from extractors.store import reviews
from extractors.validating import validate_model, validate_type
from schemas.answer_values import answer_keys, answer_value, answer_values


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

    Each of ``ids`` is a record's id, or else several with commas between.
    ``reviewed`` takes every row that a person accepted or confirmed, and that stands as it was then. A failure needs ``expected``, or becomes a
    ``draft`` that holds what could be read of its last answer. A record that is there already is replaced, and keeps its
    columns and what it accepts of the values that are the same. Keys that ``expected`` does not have are not labelled.
    Raises ``JobError`` for what is not in the output or has no text, ``OutputError`` for a folder that is none; nothing is
    added then.
    """
    check_lines(golden)
    found = queues(out, name=name, recipe=recipe)
    if len(found) != 1:
        known = ", ".join(f"{one.name} {one.recipe}" for one in found)
        raise JobError(f"{out} holds {known}: say which one with --name and --recipe")
    [queue] = found
    wanted = dict.fromkeys((record_id, 0) for one in ids for record_id in _ids(queue, one))
    if reviewed:
        decided = reviews.latest(reviews.read(queue.folder)).values()
        right = [one for one in decided if one.action in ("accepted", "confirmed") and _stands(queue, one)]
        wanted |= dict.fromkeys((one.record_id, one.occurrence) for one in right)
    if not wanted:
        raise JobError("nothing to add: name records with --id, or take the --reviewed ones (there are none yet)")
    if expected is not None and len(wanted) != 1:
        raise JobError(f"--expected holds the values of one record, and {len(wanted)} are named")
    try:
        promoted = [_promoted(queue, *key, expected, draft=draft) for key in wanted]
        add_examples(golden, [example for _, example in promoted], queue.model, text=queue.job.text)
        return [Promoted(example.record_id, kind, example.draft) for kind, example in promoted]
    finally:
        queue.close()


def add_examples(golden: Path, examples: Sequence[Example], model: type[BaseModel], *, text: str | None = None) -> None:
    """Add records whose values are answers of ``model`` and whose texts were made by the option ``text``; what is raised, and
    kept of a record that is replaced, is that of ``add_lines``."""
    add_lines(golden, examples, told=partial(_value, model), text=text)


def _ids(queue: Queue, given: str) -> list[str]:
    """The id that is given, where a record has it; else those between its commas."""
    if "," not in given and given == given.strip():
        return [given]
    try:
        _record(queue, given, 0)
    except JobError:
        return [one.strip() for one in given.split(",") if one.strip()]
    return [given]


def _stands(queue: Queue, decision: reviews.Decision) -> bool:
    """Whether the row that was decided about is still the record's outcome: nobody has looked at a later one."""
    try:
        told = queue.record("row", decision.record_id, decision.occurrence)
    except JobError:
        return False
    return bool(told["sequence"] == decision.sequence)


def _promoted(
    queue: Queue, record_id: str, occurrence: int, expected: Mapping[str, Any] | None, *, draft: bool
) -> tuple[Kind, Example]:
    kind, told = _record(queue, record_id, occurrence)
    if told["text"] is None:
        raise JobError(f"the text of record {record_id!r} is not known: {told['text_missing']}")
    if expected is not None:
        values = _labels(queue.model, expected)
    elif kind == "row" or draft:
        values = told["value"]
    else:
        raise JobError(
            f"record {record_id!r} failed ({told['reason']}): give its right values with --expected, or add it with --draft "
            "and put them right in the file"
        )
    return kind, Example(record_id, told["text"], values, draft and expected is None)


def _labels(model: type[BaseModel], expected: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the keys that were given, as the schema's types print them. Raises ``JobError``."""
    keys = answer_keys(model).values()
    unknown = [key for key in expected if key not in keys]
    if unknown:
        raise JobError(f"--expected: {model.__name__} has no field {unknown[0]!r}; its fields are {', '.join(keys)}")
    try:
        told = answer_values(validate_model(model, dumps_exact(expected)))
        return {key: told.get(key) for key in expected}
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        # A rule over several fields may need one that is not labelled.
        few = len(expected) < len(keys)
        wrong = [one for one in found if not (few and (not one["loc"] or _left_out(one, expected)))]
        if wrong:
            raise JobError(f"--expected, {'/'.join(map(str, wrong[0]['loc']))}: {wrong[0]['msg']}") from error
    return {key: _value(model, key, value) for key, value in expected.items()}


def _left_out(problem: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether a problem is just that a key was not given."""
    return problem["type"] == "missing" and len(problem["loc"]) == 1 and problem["loc"][0] not in expected


def _value(model: type[BaseModel], key: str, value: Any) -> Any:
    """One key's value as its type prints it. Raises ``ValidationError``."""
    [info] = [model.model_fields[name] for name, known in answer_keys(model).items() if known == key]
    kind: Any = info.annotation
    for note in info.metadata:
        kind = Annotated[kind, note]
    adapter = TypeAdapter[Any](kind)
    found = validate_type(adapter, dumps_exact(value))
    return answer_value(found, adapter.dump_python(found, mode="json", by_alias=False))


def _record(queue: Queue, record_id: str, occurrence: int) -> tuple[Kind, dict[str, Any]]:
    kinds: tuple[Kind, ...] = ("row", "failure")
    for kind in kinds:
        try:
            return kind, queue.record(kind, record_id, occurrence)
        except JobError:
            continue
    raise JobError(f"{queue.out} has no row and no open failure of a record {record_id!r}; nothing was added")
