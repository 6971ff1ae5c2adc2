"""Validating JSON without losing digits.

Pydantic reads a JSON number that is no integer through a 64-bit float, also for a ``Decimal``: 99999999999999999.99
becomes 100000000000000000. Numbers of more digits than a float holds are handed to it as they are written, where a
``Decimal`` wants them; all others, and texts without such numbers, are Pydantic's own to read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter

from extractors.parsing import dumps_exact, loads_exact
from schemas.jsonschema import BEFORE, DECIMAL, marked_schema, subschema
from schemas.pointers import below, leaves

Model = TypeVar("Model", bound=BaseModel)

_HELD = 15
"""Significant digits that every 64-bit float gives back."""
_LONG = re.compile(r"\d[\d.]{15}")
_LEFT_OUT = re.compile(r"^-?[0.]*|\.|[eE].*")


def validate_model(model: type[Model], text: str) -> Model:
    """``model_validate_json`` with all digits of decimals. Raises ``ValidationError``."""
    if _LONG.search(text) is None or (marks := _marks(model)) is None:
        return model.model_validate_json(text)
    found: Model = _validated(model.model_validate_json, model.model_validate, text, marks)
    return found


def validate_type(adapter: TypeAdapter[Any], text: str) -> Any:
    """The same for a type that need not be a model."""
    if _LONG.search(text) is None or (marks := _marks(adapter)) is None:
        return adapter.validate_json(text)
    return _validated(adapter.validate_json, adapter.validate_python, text, marks)


@lru_cache(maxsize=512)
def _marks(kind: type[BaseModel] | TypeAdapter[Any]) -> Mapping[str, Any] | None:
    """The schema with its decimals marked; None where it has none."""
    schema = marked_schema(kind)
    return schema if DECIMAL in dumps_exact(schema) else None


def _validated(
    by_text: Callable[[str], Any], by_value: Callable[[Any], Any], text: str, marks: Mapping[str, Any]
) -> Any:
    try:
        data = loads_exact(text)
        found = dict(_long_decimals(data, marks))
        values = _values(data, found) if any(found.values()) else None
    except (ValueError, RecursionError):
        return by_text(text)  # which says what is wrong
    if not found:
        return by_text(text)
    if values is None:
        return by_text(dumps_exact(_quoted(data, found)))
    try:
        return by_value(values)
    except TypeError:
        # A validator of the schema's own calculates with the floats that it knows.
        return by_text(text)


def _long_decimals(data: Any, marks: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The places of long numbers that become decimals, and whether they must come as such: as a string, from which
    Pydantic reads decimals too, one would stay a string where that is allowed, and a validator before the type could
    take it for a printed amount."""
    for path, leaf in leaves(data):
        if not isinstance(leaf, orjson.Fragment) or len(_LEFT_OUT.sub("", _digits(leaf))) <= _HELD:
            continue
        try:
            arms = list(_arms(subschema(marks, path)))
        except KeyError:
            continue
        kinds = {arm.get("type") for arm in arms if DECIMAL not in arm}
        # Where a float may stand, Pydantic takes the number as one.
        if any(DECIMAL in arm for arm in arms) and "number" not in kinds:
            yield path, any(BEFORE in arm for arm in arms) or not kinds <= {None, "null", "integer", "array", "object"}


def _arms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        for arm in schema.get(key, ()):
            yield from _arms(arm)


def _quoted(data: Any, paths: Collection[str], path: str = "") -> Any:
    """The answer with the numbers at ``paths`` as strings of their digits."""
    if isinstance(data, dict):
        return {key: _quoted(inner, paths, below(path, key)) for key, inner in data.items()}
    if isinstance(data, list):
        return [_quoted(inner, paths, below(path, str(place))) for place, inner in enumerate(data)]
    return _digits(data) if isinstance(data, orjson.Fragment) and path in paths else data


def _values(data: Any, paths: Collection[str], path: str = "") -> Any:
    """The answer as Python values, with decimals at ``paths``."""
    if isinstance(data, dict):
        return {key: _values(inner, paths, below(path, key)) for key, inner in data.items()}
    if isinstance(data, list):
        return [_values(inner, paths, below(path, str(place))) for place, inner in enumerate(data)]
    if not isinstance(data, orjson.Fragment):
        return data
    digits = _digits(data)
    if path in paths:
        return Decimal(digits)
    return int(digits) if digits.lstrip("-").isdecimal() else float(digits)


def _digits(number: orjson.Fragment) -> str:
    return orjson.dumps(number).decode()
