"""Agreement: whether a model says the same of a record when it is asked a second time.

Pure. A model that knows an answer gives it again when it is sampled anew; what it guesses comes out otherwise (Wang et
al. 2023, "Self-Consistency Improves Chain of Thought Reasoning in Language Models"). The first answer stands, the second is
only compared with it: value by value under the keys of the schema, nulls too, however each is spelt; a list, or a map with
keys of its own, as a whole, its items in any order. What agreement is worth is ``extractors.confidence``'s to say, and what
becomes of a disagreement ``extractors.routing``'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.examples import copied_form
from extractors.parsing import dumps_exact
from extractors.second_look import is_choice, properties_of
from schemas.jsonschema import subschema
from schemas.pointers import below

TEMPERATURE = 0.7
"""What the second answer is sampled at, where the recipe's own temperature is not higher: at 0 it would be the first."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two answers said alike. ``known`` has for each path that was compared whether they agree, in the order of the
    schema; ``empty`` are those at which the first answer says nothing."""

    known: Mapping[str, bool]
    empty: frozenset[str] = frozenset()

    @property
    def disagreed(self) -> tuple[str, ...]:
        """The paths at which the answers differ."""
        return tuple(path for path, same in self.known.items() if not same)

    @property
    def of_empty(self) -> tuple[tuple[str, bool], ...]:
        """Whether the second answer says nothing either, at each path where the first does."""
        return tuple((path, same) for path, same in self.known.items() if path in self.empty)

    def at(self, path: str) -> bool | None:
        """Whether the answers agree on the value at a path, or on the list that holds it; None: that is not known."""
        above = _at_or_above(path, self.known)
        return None if above is None else self.known[above]

    def after(self, changed: Sequence[str], confirmed: Sequence[str]) -> Agreement:
        """What is left of it once another model took the place of the ``changed`` values, and ``confirmed`` others."""
        known = {
            path: same or _at_or_above(path, confirmed) is not None
            for path, same in self.known.items()
            if _at_or_above(path, changed) is None
        }
        return Agreement(known, self.empty.intersection(known))


def compared(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    schema: Mapping[str, Any],
    *,
    lost: Collection[str] = (),
    found_later: Collection[str] = (),
    apart: Collection[str] = (),
) -> Agreement:
    """Two answers as ``schemas.answer_values`` gives them. Not compared are nulls at paths whose values were ``lost`` for want
    of evidence, which the model did not write; what was ``found_later``, in a second look, with nothing, which an answer
    that nobody looked over may have there; and the paths ``apart``."""
    known: dict[str, bool] = {}
    empty: set[str] = set()
    for path, one, other, own in _units(first, second, schema, ""):
        if (_says_nothing(one) and _at_or_above(path, lost) is not None) or (
            _says_nothing(other) and _touches(path, found_later)
        ):
            continue
        if _touches(path, apart):
            continue
        known[path] = _same(one, other, own)
        if one is None or one == []:
            empty.add(path)
    return Agreement(known, frozenset(empty))


def _units(first: Any, second: Any, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """(path, the one's value, the other's, its schema) of all that is compared by itself."""
    properties = properties_of(schema)
    if isinstance(first, Mapping) and properties:
        other = second if isinstance(second, Mapping) else {}
        # Keys that the schema does not name are no fields: beside fields they are not compared, below them all is one.
        if not path or properties.keys() >= {*first, *other}:
            for name, own in properties.items():
                yield from _units(first.get(name), other.get(name), own, below(path, name))
            return
    yield path, first, second, schema


def _same(one: Any, other: Any, schema: Mapping[str, Any]) -> bool:
    if _says_nothing(one) or _says_nothing(other):
        return _says_nothing(one) and _says_nothing(other)
    return _form(one, schema) == _form(other, schema)


def _says_nothing(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_says_nothing, value.values()))
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _form(value: Any, schema: Mapping[str, Any]) -> str:
    """A value as it is compared. Of fixed values each is another one, however alike they are spelt."""
    if isinstance(value, Mapping):
        properties = properties_of(schema)
        members = {
            key: _form(inner, properties.get(key, {})) for key, inner in value.items() if not _says_nothing(inner)
        }
        return dumps_exact(sorted(members.items()))
    if isinstance(value, list):
        return dumps_exact(sorted(_form(inner, _item(schema, place)) for place, inner in enumerate(value)))
    return dumps_exact(value) if is_choice(schema) else copied_form(value)


def _item(schema: Mapping[str, Any], place: int) -> Mapping[str, Any]:
    try:
        return subschema(schema, str(place))
    except KeyError:
        return {}


def _at_or_above(path: str, paths: Collection[str]) -> str | None:
    """The nearest of ``paths`` that is this path or holds it."""
    while path not in paths:
        path, cut, _ = path.rpartition("/")
        if not cut:
            return None
    return path


def _touches(path: str, paths: Iterable[str]) -> bool:
    """Whether one of ``paths`` is this path, holds it or lies in it."""
    return any(path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in paths)
