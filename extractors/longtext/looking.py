"""What another look into a long record asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from extractors.grounding import ungrounded_paths
from extractors.recipe import ALL, Recipe
from extractors.second_look import First, doubtful_paths, is_choice, missing_paths
from schemas.evidence import Evidence, Match
from schemas.jsonschema import subschema
from schemas.pointers import below

MOST_FIELDS = 24
"""Fields of one look: as many as a model answers well beside a page of text."""


def first_of(
    recipe: Recipe, data: Any, value: BaseModel, evidence: Sequence[Evidence], nulled: Sequence[str] = ()
) -> First:
    """The answer with what is missing of it, empty lists included, and what stands nowhere in the record. Of a field
    that needs evidence only a value that has it will be taken."""
    gone = [*missing_paths(data, recipe.schema), *empty_lists(data)]
    gone = [path for path in dict.fromkeys(gone) if path not in nulled]
    strict = set(_needing_evidence(recipe, gone))
    doubtful = [*nulled, *(path for path in gone if path in strict), *doubtful_paths(evidence, recipe.schema)]
    return First(
        data,
        value,
        evidence,
        missing=tuple(path for path in gone if path not in strict),
        doubtful=tuple(dict.fromkeys(doubtful)),
        most=MOST_FIELDS,
    )


def empty_lists(data: Any) -> list[str]:
    """Paths of the lists that have no items, reached through objects only, in the order of the answer."""
    return list(_empty(data, ""))


def filled(answer: Any) -> dict[str, Any]:
    """An answer without its empty lists, which say no more than null."""
    return {key: each for key, each in answer.items() if each != []} if isinstance(answer, Mapping) else {}


def _empty(data: Any, path: str) -> Iterator[str]:
    if isinstance(data, Mapping):
        for name, each in data.items():
            yield from _empty(each, below(path, name))
    elif data == [] and path:
        yield path


def _needing_evidence(recipe: Recipe, paths: Sequence[str]) -> list[str]:
    required = recipe.require_evidence
    if ALL in required:
        return [path for path in paths if not _is_choice(recipe, path)]
    return ungrounded_paths([Evidence(path, Match.UNGROUNDED, score=0.0) for path in paths], required)


def _is_choice(recipe: Recipe, path: str) -> bool:
    try:
        return is_choice(subschema(recipe.schema, path))
    except KeyError:
        return False
