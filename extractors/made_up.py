"""Made-up examples: a schema's own form, shown as records that nobody wrote, for a job that has no labelled ones.

A small model that has seen no answer of the wanted form fills every field with something. Two short records made of the
schema, each with the values of every other field, show it the form, that values are copied from the record, and that what
is not there is null. Their words (``alpha``, ``gamma delta``) stand in no real record, so that one which is copied is
known. Deterministic: the same schema, the same examples. Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

from pydantic import BaseModel, ValidationError

from extractors.examples import Example, ExampleBank, example_of
from extractors.qwen.fitting import may_be_left_out, nullable
from schemas.jsonschema import answer_schema

_WORDS = (
    "alpha", "beta gamma", "delta", "epsilon", "zeta eta", "theta", "iota kappa", "lambda", "omicron pi", "rho", "sigma tau",
    "upsilon",
)  # fmt: skip
_NUMBERS = (731, 862, 947, 613)
_FORMATS = {
    "date": "2001-02-03",
    "date-time": "2001-02-03T04:05:06Z",
    "time": "04:05:06Z",
    "duration": "PT95M",
    "email": "alpha@example.org",
    "uri": "https://example.org/alpha",
    "uuid": "00000000-0000-4000-8000-000000000731",
}
_UNKNOWN = ("pattern", "contentEncoding", "if", "not", "allOf")
"""What is not made up. Of other limits the model itself tells whether a value keeps to them."""


class _CannotBeMadeError(Exception):
    """A value of this schema is not made up."""


def made_up_examples(
    model: type[BaseModel], *, omit_nulls: bool = False, text_order: bool = False
) -> ExampleBank | None:
    """One or two examples for answers of ``model``; None where the schema demands values that cannot be made up (a
    pattern, a check of the model's own)."""
    schema = answer_schema(model)
    properties: Mapping[str, Any] = schema.get("properties", {})
    stock = _Stock()
    found: list[Example] = []
    shown: set[str] = set()
    for turn in (0, 1):
        answer, said = _record(properties, turn, stock)
        value = _checked(model, answer, said, properties)
        if value is None:
            return None
        if said.keys() <= shown:
            continue
        shown |= said.keys()
        text = " ".join(said.values())
        found.append(example_of(text, answer, value, schema, omit_nulls=omit_nulls, text_order=text_order))
    return ExampleBank(found, shown=len(found), choice="fixed", made_up=True) if found else None


class _Stock:
    """What values are made of, in turns: two examples show two choices of one field, where there are two."""

    def __init__(self) -> None:
        self.words: Iterator[str] = cycle(_WORDS)
        self.numbers: Iterator[int] = cycle(_NUMBERS)
        self._taken: Counter[str] = Counter()

    def choice(self, values: Sequence[Any]) -> Any:
        """The next of some fixed values. Raises ``_CannotBeMadeError`` where there is none to print."""
        real = [value for value in values if value is not None and not isinstance(value, list | dict)]
        if not real:
            raise _CannotBeMadeError
        key = json.dumps(real)
        self._taken[key] += 1
        return real[(self._taken[key] - 1) % len(real)]


def _record(properties: Mapping[str, Any], turn: int, stock: _Stock) -> tuple[dict[str, Any], dict[str, str]]:
    """An answer with every other field that may be empty filled, and what its record says of each."""
    answer: dict[str, Any] = {}
    said: dict[str, str] = {}
    free = 0
    for name, schema in properties.items():
        empty = _empty(schema)
        if empty is not _NOT_EMPTY:
            free += 1
            if free % 2 == turn:
                answer[name] = empty
                continue
        try:
            answer[name], printed = _value(schema, stock)
            said[name] = f"{_label(name)}: {printed}."
        except _CannotBeMadeError:
            answer[name] = None if empty is _NOT_EMPTY else empty
    return answer, said


def _checked(
    model: type[BaseModel], answer: dict[str, Any], said: dict[str, str], properties: Mapping[str, Any]
) -> BaseModel | None:
    """The answer as a value of the model, when ``answer`` and ``said`` have lost what the model does not take; None where
    it takes no answer."""
    for _ in range(2):
        try:
            return model.model_validate_json(json.dumps(answer))
        except ValidationError as error:
            refused = {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
        for name in refused & said.keys():
            empty = _empty(properties[name])
            if empty is not _NOT_EMPTY:
                answer[name] = empty
                del said[name]
    return None


_NOT_EMPTY = object()


def _empty(schema: Mapping[str, Any]) -> Any:
    """What a field holds that the record does not tell."""
    if nullable(schema):
        return None
    return [] if may_be_left_out(schema) and not schema.get("minItems") else _NOT_EMPTY


def _label(name: str) -> str:
    return name.replace("_", " ").strip().capitalize()


def _value(schema: Mapping[str, Any], stock: _Stock) -> tuple[Any, str]:
    """A value of the schema and how a record prints it. Raises ``_CannotBeMadeError``."""
    if any(key in schema for key in _UNKNOWN):
        raise _CannotBeMadeError
    if "const" in schema or "enum" in schema:
        value = stock.choice(schema.get("enum") or [schema["const"]])
        return value, _printed(value)
    for branch in (one for key in ("anyOf", "oneOf") for one in schema.get(key, ())):
        if branch.get("type") != "null":
            return _value(branch, stock)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if kind == "string":
        given = schema.get("format")
        if given is not None and given not in _FORMATS:
            raise _CannotBeMadeError
        text = next(stock.words) if given is None else _FORMATS[given]
        return text, text
    if kind in ("integer", "number"):
        number = next(stock.numbers)
        return (number, str(number)) if kind == "integer" else (number + 0.5, f"{number}.50")
    if kind == "boolean":
        value = stock.choice([True, False])
        return value, _printed(value)
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return _items(schema["items"], stock)
    if kind == "object" and schema.get("properties"):
        return _object(schema["properties"], stock)
    raise _CannotBeMadeError


def _items(schema: Mapping[str, Any], stock: _Stock) -> tuple[list[Any], str]:
    """Two objects, or one of anything else: that a list may hold several of those, not that it does."""
    made = [_value(schema, stock) for _ in range(2 if "properties" in schema else 1)]
    return [value for value, _ in made], "; ".join(printed for _, printed in made)


def _object(properties: Mapping[str, Any], stock: _Stock) -> tuple[dict[str, Any], str]:
    """An object with all the values that can be made up."""
    made: dict[str, Any] = {}
    said = []
    for name, schema in properties.items():
        try:
            made[name], printed = _value(schema, stock)
            said.append(f"{_label(name).lower()} {printed}")
        except _CannotBeMadeError:
            made[name] = _empty(schema)
            if made[name] is _NOT_EMPTY:
                raise
    if not said:
        raise _CannotBeMadeError
    return made, ", ".join(said)


def _printed(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
