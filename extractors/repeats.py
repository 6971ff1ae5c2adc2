"""Objects that a list has twice and its record once: small models say what they have said again.

Pure. An object of two texts or more that equals one before it in its list (a drug and its dose, say) is the same one told
again where the record does not bear out another: all of its texts stand there, and none as often. The rule takes out only
what is surely told again. Whatever else may be there twice stays: what the record has twice, in whatever case, spacing or
punctuation; what it has no span of (a choice, a conclusion, another spelling); objects with a number, a date or a truth
value, which may be counted ("2 x coffee") or printed in many ways; single texts, which may belong to another list by
their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from extractors.corrections import value_at
from extractors.grounding.folding import fold, squeeze
from extractors.parsing import dumps_exact
from extractors.second_look import is_choice
from schemas.jsonschema import subschema
from schemas.pointers import below, leaves

_LEAST_TEXTS = 2


def repeats(data: Any, schema: Mapping[str, Any], text: str) -> list[str]:
    """The paths of the objects of ``data`` that are told again, in order; ``text`` is the record's."""
    found: list[str] = []
    squeezed: str | None = None
    for path, items in _lists(data, ""):
        first: dict[str, int] = {}
        times: dict[str, int] = {}
        most: dict[str, int | None] = {}
        for place, item in enumerate(items):
            if not isinstance(item, Mapping):
                continue
            written = dumps_exact(item)
            first.setdefault(written, place)
            times[written] = times.get(written, 0) + 1
            if times[written] == 1:
                continue
            if written not in most:
                squeezed = squeeze(fold(text)) if squeezed is None else squeezed
                most[written] = _most(data, below(path, str(first[written])), schema, squeezed)
            allowed = most[written]
            if allowed is not None and times[written] > allowed:
                found.append(below(path, str(place)))
    return found


def may_repeat(schema: Any, *, item: bool = False) -> bool:
    """Whether any place of a schema is a list of objects; ``item``: the schema is of a list's item."""
    if isinstance(schema, list):
        return any(may_repeat(one, item=item) for one in schema)
    if not isinstance(schema, Mapping):
        return False
    if item and (not schema or "properties" in schema or "additionalProperties" in schema):
        return True
    if any(may_repeat(schema.get(key), item=True) for key in ("items", "prefixItems")):
        return True
    if any(may_repeat(schema.get(key), item=item) for key in ("anyOf", "oneOf", "allOf")):
        return True
    # The names of properties are no keywords.
    inner = [*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values()]
    return any(map(may_repeat, [*inner, schema.get("additionalProperties")]))


def _most(data: Any, path: str, schema: Mapping[str, Any], squeezed: str) -> int | None:
    """How often an object may be in the text: as often as that of its texts which is there most often. None: nobody
    knows."""
    counts = []
    for inside, leaf in leaves(value_at(data, path), path):
        if leaf is None:
            continue
        if not isinstance(leaf, str) or not _copied(schema, inside):
            return None
        sought = squeeze(fold(leaf))
        count = squeezed.count(sought) if sought else 0
        if not count:
            return None
        counts.append(count)
    return max(counts) if len(counts) >= _LEAST_TEXTS else None


def _copied(schema: Mapping[str, Any], path: str) -> bool:
    """Whether a text that stands here is one that a record prints in one way: no choice, no date, no number."""
    try:
        own = subschema(dict(schema), path)
    except KeyError:
        return False
    branches = [own, *own.get("anyOf", ()), *own.get("oneOf", ())]
    return not is_choice(own) and not any("format" in one or "pattern" in one for one in branches)


def _lists(value: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(value, list):
        yield path, value
        for place, item in enumerate(value):
            yield from _lists(item, below(path, str(place)))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lists(inner, below(path, key))
