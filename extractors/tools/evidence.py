"""Values that do not stand in the record but in a look-up's result: evidence that says where they are from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from extractors.grounding import Haystack, ground
from extractors.tools.words import Found
from schemas.evidence import Evidence, Match


class Results:
    """The results of a record's look-ups as texts in which values are sought."""

    __slots__ = ("_found", "_hays")

    def __init__(self, found: Sequence[Found]) -> None:
        self._found = [one for one in found if one.result is not None]
        self._hays: list[Haystack] | None = None

    def added(self, value: BaseModel, evidence: Sequence[Evidence]) -> list[Evidence]:
        """The evidence, in which a value that stands in a result, and not in the record, says in whose. The latest
        look-up comes first: it is asked for with what the earlier ones brought."""
        made = list(evidence)
        if self._hays is None:
            self._hays = [Haystack(_lines(one.result)) for one in self._found]
        for one, hay in zip(reversed(self._found), reversed(self._hays), strict=True):
            if all(each.match is not Match.UNGROUNDED for each in made):
                break
            there = {each.path: each for each in ground(value, hay) if each.match is not Match.UNGROUNDED}
            made = [
                Evidence(each.path, Match.TOOL, there[each.path].quote, score=there[each.path].score, tool=one.name)
                if each.match is Match.UNGROUNDED and each.path in there
                else each
                for each in made
            ]
        return made


def _lines(result: str | None) -> str:
    """The values of a JSON text, one a line, without the JSON around them; numbers as they are written, of any length."""
    return "\n".join(_values(json.loads(result or "null", parse_int=str, parse_float=str)))


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)
