"""What of a golden set a model can be taught: records that are asked whole, with labels that say everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from extractors.evaluate.records import prepared
from extractors.examples import Example, example_of
from extractors.longtext.begin import is_in_parts
from extractors.longtext.budget import budget_of
from extractors.recipe import Recipe
from schemas.answer_values import answer_values
from schemas.job import ExtractionJob


@dataclass(frozen=True, slots=True)
class Taught:
    """The records with their answers as a model writes them, one for each text. Left out were those ``partly`` labelled, whose
    missing values would be learned as if there were none, and those that a run asks ``in_parts``."""

    examples: tuple[Example, ...]
    partly: int
    in_parts: int

    @property
    def left_out(self) -> str:
        """Why there are not more, in words; empty where all were taken."""
        told = [
            (self.partly, "are labelled in part (a key that is not there is not labelled: give null)"),
            (self.in_parts, "are so long that a run asks them in parts"),
        ]
        return "; ".join(f"{count:,} {why}" for count, why in told if count)


def taught(golden: Path, job: ExtractionJob, recipe: Recipe) -> Taught:
    """Read the labelled records as an evaluation does: their texts by the job's template, from where the records are. Raises
    ``JobError`` as that does."""
    _, labels, records = prepared(golden, job, recipe.model)
    shape = recipe.shape
    found: dict[str, Example] = {}
    partly = in_parts = 0
    for (record_id, _), text in records.texts.items():
        expected = _said(labels[record_id].expected)
        try:
            value = recipe.model.model_validate(expected)
        except ValidationError:
            # What is not labelled is demanded by the schema.
            partly += 1
            continue
        if not _says_all(expected, answer_values(value)):
            partly += 1
        elif is_in_parts(recipe, text) or budget_of(recipe, text) is not None:
            in_parts += 1
        else:
            one = example_of(
                text, expected, value, recipe.schema, omit_nulls=shape.omit_nulls, text_order=shape.text_order
            )
            found.setdefault(one.fingerprint, one)
    return Taught(tuple(found.values()), partly, in_parts)


def _said(value: Any) -> Any:
    """A label's value with null for the empty texts that mean it."""
    if isinstance(value, Mapping):
        return {key: _said(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_said(inner) for inner in value]
    return None if value == "" else value


def _says_all(expected: Any, whole: Any) -> bool:
    """Whether a label has every key that the whole answer has, however deep."""
    if isinstance(whole, Mapping) and isinstance(expected, Mapping):
        return all(key in expected and _says_all(expected[key], inner) for key, inner in whole.items())
    if isinstance(whole, list) and isinstance(expected, list) and len(whole) == len(expected):
        return all(_says_all(one, inner) for one, inner in zip(expected, whole, strict=True))
    return True
