"""Routing without asking: a draft's and a final's answers to the same labelled records, each asked alone, put together as a
routed run does it (``extractors.routing``).

Where a routed run asks the final about some fields only, the values are those of the final's whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError

from extractors.continuation import answered
from extractors.corrections import with_value
from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation, Scored
from extractors.evaluate.fields import Compared, compared_fields
from extractors.evaluate.scoring import Cell, score_record
from extractors.final_stage import FOR_THE_FINAL
from extractors.grounding import ground
from extractors.parsing import dumps_exact
from extractors.routing import SHORT_ANSWER, Draft, asked_whole, completed, doubtful_fields, merged, said_about
from extractors.store import layout
from extractors.tokens import estimate_tokens
from schemas.jsonschema import answer_schema


class Replayed(NamedTuple):
    """Whether the final would have been ``asked`` about a record, and the ``cells`` of what it would have then."""

    asked: bool
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Replay:
    """A labelled record with both answers; ``kept`` is the draft's, as a routed run would hold it, None where it has none."""

    draft: Scored
    final: Scored
    kept: Draft | None
    recipe: _Recipe

    def at(self, below: float) -> Replayed:
        """The record in a run that routes values of less confidence than ``below``."""
        if self.kept is None:
            return self._handed_over()
        schema, given = self.recipe.schema, self.draft.given
        paths = doubtful_fields(self.kept.evidence, given.confidence, schema, below=below, nulled=given.nulled)
        if not paths:
            return Replayed(False, self.draft.cells)
        answer: Any = self.final.given.value
        if answer is None:
            return Replayed(True, self.draft.cells)
        draft = replace(self.kept, paths=paths)
        if self.recipe.exemplified and estimate_tokens(dumps_exact(draft.data)) <= SHORT_ANSWER:
            draft = asked_whole(draft, schema, given.confidence)
            answer = completed(answer, schema, draft.open)
        draft = said_about(draft, answer, self.final.given.nulled)
        made = merged(
            draft, answer, validated=self.recipe.validated, grounded=lambda value: ground(value, self.draft.text)
        )
        return Replayed(True, score_record(self.recipe.root, self.draft.label, made.data))

    def _handed_over(self) -> Replayed:
        """The record with what the final says at the paths that the draft's answer could not be put right at, or all of
        the final's where the draft has no answer."""
        given, answer = self.draft.given, self.final.given.value
        if given.reason not in FOR_THE_FINAL:
            return Replayed(False, self.draft.cells)
        if answer is not None and given.partial is not None and "" not in given.problems:
            data = given.partial
            for path, value in answered(answer, given.problems).items():
                data = with_value(data, path, value)
            if given.problems and self.recipe.validated(data) is not None:
                return Replayed(True, score_record(self.recipe.root, self.draft.label, data))
        return Replayed(True, self.final.cells)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What the records share. ``exemplified``: the final knows whole answers, from examples or from tuning."""

    model: type[BaseModel]
    schema: Mapping[str, Any]
    root: Compared
    exemplified: bool

    def validated(self, data: Any) -> BaseModel | None:
        """The answer as a value of the model; None where it is not valid."""
        try:
            return self.model.model_validate(data)
        except ValidationError:
            return None


def replays(draft: Evaluation, final: Evaluation, model: type[BaseModel]) -> list[Replay]:
    """The labelled records that two evaluations of one golden set have in common. Raises ``JobError`` where there is none,
    where the two are one recipe, and for pictures."""
    if (draft.out, draft.recipe) == (final.out, final.recipe):
        raise JobError(f"the draft and the final are both recipe {draft.recipe}: give two models, --model and --final")
    others = {one.given.key: one for one in final.records}
    pairs = [(one, others[one.given.key]) for one in draft.records if one.given.key in others]
    if not pairs:
        raise JobError("the two models have no labelled record in common: there is nothing to put together")
    if not any(one.text.strip() for one, _ in pairs):
        raise JobError(
            "the records are pictures without text, whose values no evidence is found for here: compare the two models with "
            "`quarry compare`, and a routed run with either of them"
        )
    recipe = _Recipe(model, answer_schema(model), compared_fields(model, draft.rules), _exemplified(draft, final))
    return [Replay(one, other, _kept(one, model), recipe) for one, other in pairs]


def _kept(one: Scored, model: type[BaseModel]) -> Draft | None:
    given = one.given
    if given.value is None:
        return None
    value = model.model_validate(given.value)
    return Draft(given.value, value, ground(value, one.text), (), given.nulled)


def _exemplified(draft: Evaluation, final: Evaluation) -> bool:
    """Whether the final behind the draft knows whole answers: from the examples of the recipe that they share, which are the
    draft's where that is shown any, or because it was tuned."""
    first, last = (_document(one) for one in (draft, final))
    if "tuned" in last["model"] or "examples" in first:
        return True
    return "tuned" in first["model"] and "examples" in last


def _document(evaluation: Evaluation) -> Mapping[str, Any]:
    folder = layout.recipe_folder(Path(evaluation.out), name=evaluation.name, recipe_id=evaluation.recipe)
    found: Mapping[str, Any] = orjson.loads((folder / "recipe.json").read_bytes())
    return found
