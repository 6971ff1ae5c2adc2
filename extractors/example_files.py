"""Golden sets read as examples: the texts by the job's template, the answers as they are written, with all their digits."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from extractors.errors import JobError
from extractors.evaluate.golden import WrittenLabel, written_labels
from extractors.evaluate.line_texts import named_columns, text_of
from extractors.examples import Choice, Example, ExampleBank, example_of
from extractors.parsing import dumps_exact
from extractors.sources.text_template import listed
from extractors.validating import validate_model
from schemas.jsonschema import answer_schema


def load_examples(
    path: Path,
    model: type[BaseModel],
    *,
    shown: int,
    choice: Choice,
    text: str | None = None,
    omit_nulls: bool = False,
    text_order: bool = False,
    room: int | None = None,
    common: int = 0,
) -> ExampleBank:
    """The examples of a golden set, ``read_examples``; ``room`` is how many tokens a record's own examples may have together,
    and as many those that are ``common`` to all. Raises ``JobError`` as that does, and where none is short enough."""
    examples = read_examples(path, model, text=text, omit_nulls=omit_nulls, text_order=text_order)
    shortest = min(one.tokens for one in examples)
    if room is not None and shortest > room:
        raise JobError(
            f"the shortest example of {path} has about {shortest:,} tokens, and beside a record there is room for "
            f"{room:,}, a quarter of what the model reads: give shorter ones, or leave --examples out"
        )
    return ExampleBank(examples, shown=shown, choice=choice, room=room, common=common)


def read_examples(
    path: Path,
    model: type[BaseModel],
    *,
    text: str | None = None,
    omit_nulls: bool = False,
    text_order: bool = False,
) -> list[Example]:
    """Read a golden set, JSONL or Parquet. A line's text is what the job's column or template ``text`` gives where it has all
    of those columns, else its ``text``. ``omit_nulls`` leaves out of the answers what the model is told to leave out,
    ``text_order`` has the rest of that in the order in which the text has it. Raises ``JobError`` naming the line that is no
    example of the schema, and where there is none."""
    schema = answer_schema(model)
    examples = []
    for label in written_labels(path, model):
        answer = _in_json(label.expected)
        try:
            value = validate_model(model, dumps_exact(answer))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = "/".join(map(str, first["loc"])) or "the whole"
            raise JobError(
                f"{label.where}: expected is not an answer of the schema: {field}: {first['msg']}"
            ) from error
        examples.append(
            example_of(
                _text_of(label, text),
                answer,
                value,
                schema,
                omit_nulls=omit_nulls,
                text_order=text_order,
                record_id=label.record_id,
            )
        )
    if not examples:
        raise JobError(f"{path} holds no examples")
    return examples


def _text_of(label: WrittenLabel, text: str | None) -> str:
    found = text_of(label.row, text)
    if found is not None:
        return found
    wanted = "a text" if text is None else f"a text ({listed([*named_columns(text, ()), 'text'])})"
    raise JobError(f"{label.where}: an example has {wanted} and an expected answer; this has {listed(list(label.row))}")


def _in_json(value: Any) -> Any:
    """What Parquet may hold as JSON has it: decimals are numbers with their digits, dates and times ISO texts."""
    if isinstance(value, Mapping):
        return {key: _in_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_json(inner) for inner in value]
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if value is None or isinstance(value, bool | int | float | str | orjson.Fragment):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
