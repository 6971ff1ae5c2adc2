"""An answer that was cut off inside of a list: what of it is whole, and what is left to ask.

Pure. The items before the cut are kept as they were written; only the rest of the list, and the fields that
come after it, are asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extractors.corrections import value_at, with_value
from extractors.grounding.folding import fold
from extractors.parsing import EXACT, THINKING_END, dumps_exact, joined
from schemas.jsonschema import subschema
from schemas.pointers import below, escape, split

SHOWN = 2
"""Items that the model is shown of what it has written."""
_NOT_A_REST = ("minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains")
_ROUNDS = 4
"""Rounds of a circle at least."""
_LEAST_ITEMS = 12
"""Items of all its rounds at least."""
_WORD = re.compile(r"\w+|[^\w\s]+")
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+0-9.eE]+")
_FENCE = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\r?\n?")
_LITERALS = ("true", "false", "null")


@dataclass(frozen=True, slots=True)
class Beginning:
    """``value`` has the fields that were whole before the cut, and the open list at ``path`` (a JSON Pointer
    without its leading slash) with the ``done`` items that were. ``closed``: the list had gone round in circles, and is as
    it will be."""

    value: dict[str, Any]
    path: str
    done: int
    closed: bool = False


class _NotAPrefix(Exception):
    """The text is no beginning of any JSON."""


def beginning(text: str, *, joins: bool = False) -> Beginning | None:
    """What is whole of a JSON object that ends inside of a list; None where there is nothing to go on from. ``joins``: of a
    key that is there twice both values count (``parsing.joined``), else the last.

    The list is the outermost one that is open at the cut, reached through objects only, with one whole item at
    least. A number at the very end is not whole: more digits may have followed.
    """
    whole, _, answer = text.rpartition(THINKING_END)
    # The words that end thinking may stand in a value as well.
    return (_beginning(text.strip(), joins=joins) if whole else None) or _beginning(answer.strip(), joins=joins)


def _beginning(body: str, *, joins: bool) -> Beginning | None:
    fence = _FENCE.match(body)
    start = fence.end() if fence else 0
    if not body.startswith("{", start):
        return None
    try:
        value, steps = _cut_object(body, start, joins=joins)
    except (_NotAPrefix, RecursionError):
        return None
    if not steps:
        return None
    path = "/".join(escape(step) for step in steps)
    try:
        items = value_at(value, path)
    except KeyError:
        return None
    # What was written under one of the keys before may be something else.
    return Beginning(value, path, len(items)) if isinstance(items, list) else None


def extended(start: Beginning, rest: Mapping[str, Any]) -> Beginning:
    """The beginning with what was asked for after it: ``rest`` has pointers as keys, as a correction has.

    An answer that starts with the items that it was shown says them twice; they are taken once."""
    value = start.value
    for key, more in rest.items():
        if key == start.path:
            more = _joined(value_at(value, key), more if isinstance(more, list) else [])
        value = with_value(value, key, more)
    return Beginning(value, start.path, len(value_at(value, start.path)))


def continued(start: Beginning, more: Beginning, asked: Sequence[str]) -> Beginning | None:
    """The beginning with a rest of it that was cut off as well: inside of the same list, or of one that came after it.
    None where that list was not among the ``asked`` pointers."""
    first, *inner = split(more.path)
    if first not in asked:
        return None
    whole = extended(start, {key: value for key, value in more.value.items() if key in asked})
    path = "/".join((first, *map(escape, inner)))
    return Beginning(whole.value, path, len(value_at(whole.value, path)))


def unwound(start: Beginning, text: str) -> tuple[Beginning, list[str]] | None:
    """A list that goes round in circles without its repetitions, as small models write them until they are cut off, and
    the paths of the items that are gone; None for any other list.

    A circle is a stretch of items that stands four times or more at the list's end, twelve items at least and more than
    the record has words. What was written once is kept, each item once; where those are texts and some of them stand in
    the record, only these. Of a record without text it is not known how many items it may have."""
    items = value_at(start.value, start.path)
    written = _written(items)
    before = _circle(written, text)
    if before is None:
        return None
    kept = sorted({written.index(one) for one in written[:before]})
    if all(isinstance(items[place], str) for place in kept):
        folded = fold(text)
        kept = [place for place in kept if _stands_in(fold(items[place]), folded)] or kept
    value = with_value(start.value, start.path, [items[place] for place in kept])
    gone = [f"{start.path}/{place}" for place in range(len(items)) if place not in kept]
    return Beginning(value, start.path, len(kept), closed=True), gone


def goes_round(answer: str, text: str) -> bool:
    """Whether an answer that is being written about a record's text is inside of a list that goes round in circles: it is
    what ``unwound`` would close."""
    start = beginning(answer)
    if start is None:
        return False
    return _circle(_written(value_at(start.value, start.path)), text) is not None


def joining(answer: str, plain: Beginning, start: Beginning) -> Beginning:
    """The beginning of an answer that may have a key twice, joined: ``plain`` is the one with the last of each, and
    ``start`` what ``unwound`` left of it, whose circle joining would have hidden."""
    both = beginning(answer, joins=True)
    if both is None or both.path != start.path or not start.closed:
        return start if both is None else replace(both, closed=start.closed)
    said, kept = (set(_written(value_at(one.value, one.path))) for one in (plain, start))
    items = [one for one in value_at(both.value, both.path) if dumps_exact(one) in kept or dumps_exact(one) not in said]
    return Beginning(with_value(both.value, both.path, items), both.path, len(items), closed=True)


def _written(items: Sequence[Any]) -> list[str]:
    """The items as JSON; none where they nest too deeply to be written."""
    try:
        return [dumps_exact(item) for item in items]
    except RecursionError:
        return []


def _circle(written: Sequence[str], text: str) -> int | None:
    """How many items there are up to the end of a circle's first round; None without one, and where the record may well
    have as many."""
    before = _first_round(written) if text.strip() else None
    return None if before is None or len(written) - before <= _most_items(text) else before


def _most_items(text: str) -> int:
    """Items that a record may well have for a list that says the same over and over: one for each word or run of signs,
    or for each character of the longest (``1111``)."""
    words = _WORD.findall(text)
    return max(len(words), *map(len, words))


def _first_round(written: Sequence[str]) -> int | None:
    """How many items there are up to the end of the first of a stretch's rounds at the list's end; None without rounds."""
    for period in range(1, len(written) // _ROUNDS + 1):
        same = 0
        while same + period < len(written) and written[-1 - same] == written[-1 - same - period]:
            same += 1
        if same + period >= max(_ROUNDS * period, _LEAST_ITEMS):
            return len(written) - same
    return None


def _stands_in(item: str, text: str) -> bool:
    """Whether a folded text stands in another, by words."""
    return bool(item) and re.search(rf"(?<!\w){re.escape(item)}(?!\w)", text) is not None


def answered(answer: Any, keys: Sequence[str]) -> dict[str, Any]:
    """The values of ``keys`` in an answer; nested objects in the place of pointers are understood."""
    found = {}
    for key in keys:
        try:
            found[key] = answer[key] if key in answer else value_at(answer, key)
        except KeyError:
            continue
    return found


def rest_schema(schema: Mapping[str, Any], start: Beginning) -> dict[str, Any]:
    """The schema of the answer that is missing: the list unless it is closed, any number of items, and each property
    that is not there yet of the objects around it, under their pointers. Raises ``KeyError`` for a list that the schema
    has not.
    """
    items = {key: each for key, each in _array(subschema(schema, start.path)).items() if key not in _NOT_A_REST}
    properties: dict[str, Any] = {} if start.closed else {start.path: items}
    outer = start.path
    while outer:
        outer = outer.rpartition("/")[0]
        there = value_at(start.value, outer)
        for name, each in _properties(subschema(schema, outer)).items():
            if name not in there:
                properties[below(outer, name)] = each
    return {"type": "object", "properties": properties, "required": list(properties)}


def last_items(start: Beginning) -> str:
    """The last items that were whole, as JSON, one a line."""
    return "\n".join(dumps_exact(item) for item in value_at(start.value, start.path)[-SHOWN:])


def _joined(kept: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
    for overlap in range(min(SHOWN, len(kept), len(rest)), 0, -1):
        if dumps_exact(list(kept[-overlap:])) == dumps_exact(list(rest[:overlap])):
            return [*kept, *rest[overlap:]]
    return [*kept, *rest]


def _array(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The list among the branches of a union."""
    if schema.get("type") == "array" or "items" in schema:
        return schema
    for branch in (branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ())):
        if branch.get("type") == "array":
            return dict(branch)
    raise KeyError("no list stands there")


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "properties" in schema:
        return dict(schema["properties"])
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()) if "properties" in branch]
    return dict(branches[0]["properties"]) if len(branches) == 1 else {}


def _cut_object(text: str, at: int, *, joins: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The whole members of an object that does not end, and the steps to the open list in it (none: no list)."""
    found: dict[str, Any] = {}
    at += 1
    while True:
        at = _past_space(text, at)
        if at == len(text):
            return found, []
        if text[at] != '"':
            raise _NotAPrefix
        key, end = _whole(text, at)
        if end is None:
            return found, []
        at = _past_space(text, end)
        if at == len(text):
            return found, []
        if text[at] != ":":
            raise _NotAPrefix
        at = _past_space(text, at + 1)
        if at == len(text):
            return found, []
        value, end = _whole(text, at)
        if end is None:
            if text[at] == "{":
                inner, steps = _cut_object(text, at, joins=joins)
                inner = joined(found[key], inner) if joins and steps and key in found else inner
                return ({**found, key: inner}, [key, *steps]) if steps else (found, [])
            items = _cut_list(text, at) if text[at] == "[" else []
            items = joined(found[key], items) if joins and key in found else items
            return ({**found, key: items}, [key]) if items and isinstance(items, list) else (found, [])
        found[key] = joined(found[key], value) if joins and key in found else value
        at = _past_space(text, end)
        if at == len(text):
            return found, []
        if text[at] != ",":
            raise _NotAPrefix
        at += 1


def _cut_list(text: str, at: int) -> list[Any]:
    """The whole items of a list that does not end."""
    found: list[Any] = []
    at += 1
    while True:
        at = _past_space(text, at)
        if at == len(text):
            return found
        value, end = _whole(text, at)
        if end is None:
            # What is thrown away must be the beginning of something all the same.
            if text[at] == "{":
                _cut_object(text, at)
            elif text[at] == "[":
                _cut_list(text, at)
            return found
        found.append(value)
        at = _past_space(text, end)
        if at == len(text):
            return found
        if text[at] != ",":
            raise _NotAPrefix
        at += 1


def _whole(text: str, at: int) -> tuple[Any, int | None]:
    """The value that starts at ``at`` and where it ends; (None, None) where the text ends before it."""
    number = _NUMBER.match(text, at)
    if number is not None and number.end() == len(text):
        return None, None
    try:
        return EXACT.raw_decode(text, at)
    except json.JSONDecodeError as error:
        first, left = text[at], len(text) - at
        if first in "{[":
            return None, None
        if first == '"' and (error.msg.startswith("Unterminated") or error.pos >= len(text) - 6):
            return None, None
        if any(left < len(literal) and literal.startswith(text[at:]) for literal in _LITERALS):
            return None, None
        raise _NotAPrefix from error
    except ValueError as error:
        raise _NotAPrefix from error


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
