"""Taking out of an answer what has no evidence: null where the schema allows it, an item out of its list where not.

A list with one invented item is worth more without it than a failed record.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from extractors.corrections import value_at, with_value
from extractors.qwen.fitting import nullable
from extractors.second_look import is_choice
from schemas.jsonschema import subschema

_T = TypeVar("_T")

_WORDS = (
    "unknown", "null", "none", "n/a", "not available", "not specified", "not mentioned", "not stated", "not provided",
    "not given", "unspecified", "未知", "无", "不详", "未提及", "未说明", "未提供",
)  # fmt: skip
"""What models write where they mean null. Not ``na``, which is a code of many things."""
_NOTHING = re.compile("|".join(f'"{re.escape(word)}"' for word in _WORDS), re.IGNORECASE)


def says_nothing(answer: str) -> bool:
    """Whether an answer's text may hold a word for null. Costs microseconds."""
    return _NOTHING.search(answer) is not None


def nothings(data: Any, paths: Sequence[str], schema: Mapping[str, Any]) -> list[str]:
    """Those of ``paths``, of values that stand nowhere in the record, that are a word for null where null may stand, or
    an item of a list. A field that speaks of the word itself, or has fixed values, means it."""
    found = []
    for path in paths:
        try:
            value, own = value_at(data, path), subschema(dict(schema), path)
            above = subschema(dict(schema), path.rpartition("/")[0])
        except KeyError:
            continue
        if not isinstance(value, str) or value.strip().lower() not in _WORDS or is_choice(own):
            continue
        if not nullable(own) and _item(data, path, objects=False) is None:
            continue
        # The list of an item says what its items are.
        told = [own, above] if path.rpartition("/")[2].isdigit() else [own]
        if value.strip().lower() not in json.dumps(told, ensure_ascii=False).lower():
            found.append(path)
    return found


def dropped(
    data: Any, paths: Sequence[str], schema: Mapping[str, Any], *, objects: bool = False
) -> tuple[Any, list[str], list[str]]:
    """``data`` without the values at ``paths``; what it lost, a list standing for its items; and the items that are gone.

    ``objects``: a value that may not be null takes the list's object that it is in with it. What can be neither null
    nor left out becomes null all the same, and the schema refuses it.
    """
    lost: list[str] = []
    items: list[str] = []
    for path in paths:
        item = None if _may_be_null(schema, path) else _item(data, path, objects=objects)
        if item is None:
            data = with_value(data, path, None)
            lost.append(path)
        elif item not in items:
            items.append(item)
    data, lists = without_items(data, items)
    return data, list(dict.fromkeys([*moved_paths(lost, items), *lists])), items


def without_items(data: Any, items: Sequence[str]) -> tuple[Any, list[str]]:
    """``data`` without the items at these paths, and the paths of the lists that they were in."""
    lists: list[str] = []
    for item in sorted(items, key=_place, reverse=True):
        parent, _, index = item.rpartition("/")
        kept = list(value_at(data, parent))
        del kept[int(index)]
        data = with_value(data, parent, kept)
        lists.append(parent)
    return data, list(dict.fromkeys(lists))


def moved(found: Mapping[str, _T], items: Sequence[str]) -> dict[str, _T]:
    """What is kept by path, after ``items`` are gone from their lists: theirs is gone, and what came after moves up."""
    gone: dict[str, list[int]] = {}
    for item in items:
        parent, _, index = item.rpartition("/")
        gone.setdefault(parent, []).append(int(index))
    for indexes in gone.values():
        indexes.sort()
    kept: dict[str, _T] = {}
    for path, value in found.items():
        steps = path.split("/")
        before = ""
        for depth, step in enumerate(steps):
            indexes = gone.get(before, []) if step.isdecimal() else []
            before = f"{before}/{step}" if depth else step
            if indexes:
                earlier = bisect_left(indexes, int(step))
                if earlier < len(indexes) and indexes[earlier] == int(step):
                    break
                steps[depth] = str(int(step) - earlier)
        else:
            kept["/".join(steps)] = value
    return kept


def moved_paths(paths: Iterable[str], items: Sequence[str]) -> list[str]:
    """The paths themselves, after ``items`` are gone from their lists."""
    return list(moved(dict.fromkeys(paths), items))


def _item(data: Any, path: str, *, objects: bool) -> str | None:
    """The path itself where it is an item of a list, or with ``objects`` the nearest item that it is in."""
    while path:
        parent, _, step = path.rpartition("/")
        try:
            if parent and step.isdecimal() and isinstance(value_at(data, parent), list):
                return path
        except KeyError:
            return None
        if not objects:
            return None
        path = parent
    return None


def _may_be_null(schema: Mapping[str, Any], path: str) -> bool:
    try:
        return nullable(subschema(dict(schema), path))
    except KeyError:
        return False


def _place(path: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorts items so that those of a list come by their index, and those inside of them after them."""
    return tuple((step.isdecimal(), int(step) if step.isdecimal() else 0, step) for step in path.split("/"))
