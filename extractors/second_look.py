"""The second look: what to ask again of an answer that is valid but not whole, and what of it to take.

Pure. A picture is read better the second time, when the question is about a few fields only. Nothing gets worse
by it: a value is taken only where none was, or where it stands in the text and the first one did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from extractors.corrections import value_at, with_value
from extractors.qwen.modes import nullable
from schemas.evidence import Evidence, Match
from schemas.jsonschema import subschema
from schemas.pointers import below

MOST_FIELDS = 12
"""Fields of one second look."""


@dataclass(frozen=True, slots=True)
class First:
    """The answer that is looked over: valid as it is, and kept if the second look gives nothing. ``missing``
    are paths of nulls, ``doubtful`` those of values that stand nowhere in the text."""

    data: Any
    value: BaseModel
    evidence: Sequence[Evidence]
    missing: tuple[str, ...]
    doubtful: tuple[str, ...]
    most: int = MOST_FIELDS

    @property
    def paths(self) -> tuple[str, ...]:
        """What to ask."""
        return (*self.missing, *self.doubtful)[: self.most]


def missing_paths(data: Any, schema: Mapping[str, Any]) -> list[str]:
    """Paths that are null, or not there, where the schema allows a value or null, in the order of the schema."""
    return list(_missing(data, schema, ""))


def doubtful_paths(evidence: Sequence[Evidence], schema: Mapping[str, Any]) -> list[str]:
    """Paths of ungrounded values. Choices (booleans, enums) are left out: they are rarely printed."""
    found = []
    for each in evidence:
        try:
            if each.match is Match.UNGROUNDED and not is_choice(subschema(schema, each.path)):
                found.append(each.path)
        except KeyError:
            continue
    return found


def is_choice(schema: Mapping[str, Any]) -> bool:
    """Whether every value but null is a boolean or one of a fixed set."""
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ())]
    if branches:
        choices = [branch for branch in branches if branch.get("type") != "null"]
        return bool(choices) and all(is_choice(branch) for branch in choices)
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind or ())
    return "enum" in schema or "const" in schema or kinds - {"null"} == {"boolean"}


def taken(
    first: First,
    answer: Mapping[str, Any],
    *,
    validated: Callable[[Any], BaseModel | None],
    grounded: Callable[[BaseModel], Sequence[Evidence]],
) -> tuple[Any, BaseModel, list[str]]:
    """The first answer with what the second one adds to it: data, value and the paths that changed.

    Only what was asked and still validates, all of it or else each value by itself.
    """
    found = {path: value for path in first.paths if (value := _given(answer, path)) is not None}
    data, value = first.data, first.value
    changed: list[str] = []
    together = data
    missing = [path for path in first.missing if path in found]
    for path in missing:
        together = with_value(together, path, found[path])
    whole = validated(together) if missing else None
    if whole is not None:
        data, value, changed = together, whole, missing
    for path in found:
        if path in changed:
            continue
        attempt = with_value(data, path, found[path])
        better = validated(attempt)
        if better is None:
            continue
        if path in first.doubtful and any(
            each.path == path and each.match is Match.UNGROUNDED for each in grounded(better)
        ):
            continue
        data, value = attempt, better
        changed.append(path)
    return data, value, changed


def _given(answer: Mapping[str, Any], path: str) -> Any:
    if path in answer:
        return answer[path]
    try:
        return value_at(answer, path)
    except KeyError:
        return None


def _missing(data: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if data is None:
        if nullable(schema) and path:
            yield path
        return
    if isinstance(data, Mapping):
        for name, inner in properties_of(schema).items():
            yield from _missing(data.get(name), inner, below(path, name))
    elif isinstance(data, list):
        for place, item in enumerate(data):
            try:
                inner = subschema(schema, str(place))
            except KeyError:
                return
            if isinstance(item, Mapping | list):
                yield from _missing(item, inner, f"{path}/{place}")


def properties_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of an object schema, or of the first branch of a union that has some."""
    if "properties" in schema:
        return dict(schema["properties"])
    for branch in (branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ())):
        if "properties" in branch:
            return dict(branch["properties"])
    return {}
