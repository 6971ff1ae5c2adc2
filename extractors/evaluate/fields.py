"""A schema as the fields that are compared, each with its rule.

A field is named by its path with ``*`` for any item: ``seller/name``, ``tags``, ``line_items/*/price``. Keys are those of
the JSON answer, escaped as in a JSON Pointer: ``net/gross`` is ``net~1gross``.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel

from extractors.errors import JobError
from extractors.evaluate.comparators import Comparator, comparator
from schemas.answer_values import answer_keys
from schemas.compare import ADDRESSES, Compare
from schemas.jsonschema import answer_schema
from schemas.pointers import below

_IP = (f"ip{version}{kind}" for version in ("v4", "v6") for kind in ("", "network", "interface"))
_ANY_IP = ("ipvanyaddress", "ipvanynetwork", "ipvanyinterface")
_PLACES = frozenset((*_IP, *_ANY_IP, "path", "file-path", "directory-path"))
"""Formats of types that spell a value in one way; their punctuation is no spelling either."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One node of the schema: a value, a set of values, an object (``members``), or a list of objects (``members`` of
    an item). ``path`` is "" for the root. What is compared as ``exact`` is one value, whatever it is."""

    path: str
    comparator: Comparator
    members: Mapping[str, Compared] = field(default_factory=dict)
    is_list: bool = False

    def fields(self) -> Iterator[Compared]:
        """What is scored: leaves, sets, and lists of objects that count as wholes; depth first, in the schema's
        order."""
        if self.comparator.kind == "skip":
            return
        if self.members and self.comparator.kind not in ("whole", "exact"):
            for member in self.members.values():
                yield from member.fields()
        else:
            yield self


def compared_fields(model: type[BaseModel], rules: Mapping[str, str] | None = None) -> Compared:
    """The root of a model's compared fields. ``rules`` override the annotations, by path; ``*`` alone is for every
    field that has no rule of its own.

    Raises ``JobError`` for a path that the schema does not have, and for a rule that does not fit.
    """
    schema = answer_schema(model)
    marks = list(_marks(model, ""))
    given = dict(rules or {})
    everything = given.pop("*", None)
    builder = _Builder(
        {path: mark.rule for path, mark in marks if not mark.by_type} | given,
        everything,
        by_type={path: mark.rule for path, mark in marks if mark.by_type},
    )
    root = builder.node(schema, "")
    unknown = sorted(given.keys() - builder.seen)
    if unknown:
        known = ", ".join(sorted(builder.seen - {""}))
        raise JobError(f"there is no field {unknown[0]!r} to compare in {model.__name__}; its fields are {known}")
    if not any(True for _ in root.fields()):
        raise JobError(f"every field of {model.__name__} is skipped: nothing is left to compare")
    return root


class _Builder:
    def __init__(self, rules: Mapping[str, str], everything: str | None, *, by_type: Mapping[str, str]) -> None:
        self._rules = rules
        self._everything = everything
        self._by_type = by_type
        self.seen: set[str] = set()

    def node(self, schema: Mapping[str, Any], path: str) -> Compared:
        self.seen.add(path)
        rule = self._rules.get(path)
        shape = _without_null(schema)
        if "enum" not in shape and "const" not in shape:
            if shape.get("properties"):
                return self._object(shape, path, rule, is_list=False)
            items = shape.get("items")
            if isinstance(items, Mapping):
                inner = _without_null(items)
                if inner.get("properties") and "enum" not in inner:
                    return self._object(inner, path, rule, is_list=True)
                return self._set(inner, path, rule)
        return self._value(shape, path, rule)

    def _object(self, shape: Mapping[str, Any], path: str, rule: str | None, *, is_list: bool) -> Compared:
        step = f"{path}/*" if is_list else path
        members = {key: self.node(inner, below(step, key)) for key, inner in shape["properties"].items()}
        if is_list:
            self.seen.add(step)
        chosen = comparator(rule or "objects")
        if chosen.kind not in ("objects", "whole", "exact", "skip"):
            raise JobError(
                f"{path or 'the record'}: objects are compared by objects, whole, exact or skip, not {rule!r}"
            )
        return Compared(path, chosen, members, is_list)

    def _set(self, items: Mapping[str, Any], path: str, rule: str | None) -> Compared:
        self.seen.add(f"{path}/*")
        inner = self._rules.get(f"{path}/*") or self._unmarked(items, f"{path}/*")
        chosen = comparator(rule or f"set:{inner}")
        if chosen.kind in ("objects", "whole"):
            raise JobError(f"{path}: {rule!r} is for lists of objects")
        if chosen.items is None and chosen.kind not in ("exact", "skip"):
            # "fuzzy" for a list means its items.
            chosen = comparator(f"set:{chosen.rule}")
        elif chosen.kind == "set" and chosen.rule == "set":
            chosen = comparator(f"set:{inner}")
        return Compared(path, chosen, is_list=True)

    def _value(self, shape: Mapping[str, Any], path: str, rule: str | None) -> Compared:
        chosen = comparator(rule or self._unmarked(shape, path))
        if chosen.kind in ("objects", "whole", "set"):
            raise JobError(f"{path}: {chosen.rule!r} is for lists, and {path} is one value")
        return Compared(path, chosen)

    def _unmarked(self, shape: Mapping[str, Any], path: str) -> str:
        return self._everything or self._by_type.get(path) or _default(shape)


def _default(shape: Mapping[str, Any]) -> str:
    """The rule of a value's type."""
    if "enum" in shape or "const" in shape:
        return "exact"
    kinds = {kind for kind in _kinds(shape) if kind != "null"}
    if kinds == {"string"}:
        temporal = shape.get("format") in ("date", "date-time", "time") or "without a zone" in str(
            shape.get("description")
        )
        if temporal:
            return "date"
        formats = set(_formats(shape))
        return "address" if formats <= ADDRESSES else "exact" if formats <= _PLACES else "text"
    if kinds == {"integer"}:
        return "exact"
    if kinds and kinds <= {"integer", "number"}:
        return "number"
    return "text" if "string" in kinds else "exact"


def _kinds(shape: Mapping[str, Any]) -> set[str]:
    kind = shape.get("type")
    found = set(kind) if isinstance(kind, list) else {kind} if kind else set()
    for key in ("anyOf", "oneOf"):
        for branch in shape.get(key, ()):
            found |= _kinds(branch)
    return found


def _formats(shape: Mapping[str, Any]) -> Iterator[str | None]:
    """The format of a schema, or of each branch of it that is not null; None for one without."""
    branches = [branch for union in ("anyOf", "oneOf") for branch in shape.get(union, ())]
    if not branches or "format" in shape:
        yield shape.get("format")
        return
    for branch in branches:
        if branch.get("type") != "null":
            yield from _formats(branch)


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one branch of a union that is not null, else the schema itself."""
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in schema.get(key, ()) if branch.get("type") != "null"]
        if len(branches) == 1:
            note = {key: schema[key] for key in ("description", "format") if key in schema}
            return {**branches[0], **note} if note else branches[0]
    return schema


def _marks(kind: Any, path: str) -> Iterator[tuple[str, Compare]]:
    """Every ``Compare`` in a type, with its path."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *notes = typing.get_args(kind)
        yield from ((path, note) for note in notes if isinstance(note, Compare))
        yield from _marks(inner, path)
    elif origin in (typing.Union, types.UnionType):
        for arm in typing.get_args(kind):
            yield from _marks(arm, path)
    elif origin in (list, tuple, set, frozenset):
        for arm in typing.get_args(kind)[:1]:
            yield from _marks(arm, f"{path}/*")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        keys = answer_keys(kind)
        for name, info in kind.model_fields.items():
            key = keys[name]
            inner = below(path, key)
            yield from ((inner, note) for note in info.metadata if isinstance(note, Compare))
            yield from _marks(info.annotation, inner)
