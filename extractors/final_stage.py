"""The final model's part of an extraction: what it is asked about a draft's answer, and what of its own is taken.

Pure, as the extraction is (``extractors.extraction``), which asks it and keeps the record's state; ``extractors.routing`` has
the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from extractors.confidence import TokenScore, inside, rescored
from extractors.dropping import moved, moved_paths
from extractors.judging import Judge
from extractors.parsing import Answer, dumps_exact, loads_exact, read_answer
from extractors.prompting import correctable
from extractors.qwen.requests import AnswerShape, ChatReply, Mode
from extractors.recipe import Recipe
from extractors.routing import SHORT_ANSWER, Draft, asked_whole, completed, doubtful_fields, merged, said_about
from extractors.tokens import estimate_tokens
from schemas.evidence import Evidence
from schemas.outcomes import FieldProblem, Reason

FOR_THE_FINAL = (Reason.NOT_JSON, Reason.TRUNCATED, Reason.INVALID, Reason.UNGROUNDED)
"""Failures of a draft that a stronger model may not meet."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the final said: ``answer`` as JSON values, None where there is ``problem`` with it, and how sure it was.
    ``nulled`` are the paths at which its value had to be dropped."""

    answer: Mapping[str, Any] | None
    scores: Mapping[str, TokenScore]
    problem: str = ""
    nulled: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Improved:
    """A draft with what was taken of the final's answer. ``changed`` are the paths, ``agreed`` those at which both wrote the
    same; ``repaired``: it had to be mended."""

    data: Any
    value: BaseModel
    evidence: Sequence[Evidence]
    nulled: tuple[str, ...]
    changed: tuple[str, ...]
    agreed: tuple[str, ...]
    scores: dict[str, TokenScore]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """What the final is asked about a draft that could not be put right: what is wrong at ``paths``, or without any
    ``problems`` all over again (the path "")."""

    paths: tuple[str, ...]
    problems: Sequence[FieldProblem]
    shape: AnswerShape


class FinalStage:
    """Asks a recipe's final model about one record, whose answers ``judge`` judges."""

    __slots__ = ("_judge", "_recipe")

    def __init__(self, recipe: Recipe, judge: Judge) -> None:
        self._recipe = recipe
        self._judge = judge

    def about(
        self, draft: Draft, sure: Mapping[str, float], *, whole: bool, disagreed: Sequence[str] = ()
    ) -> tuple[Draft, AnswerShape] | None:
        """A valid answer with what is doubtful of it, and the shape of an answer to that; None where nothing is. ``sure``
        is its confidence, ``disagreed`` what a second answer has otherwise; ``whole``: a short answer may be asked for as a
        whole."""
        recipe = self._recipe
        paths = doubtful_fields(
            draft.evidence,
            sure,
            recipe.schema,
            below=recipe.route_below,
            nulled=draft.nulled,
            disagreed=disagreed,
        )
        if not paths:
            return None
        draft = replace(draft, paths=paths)
        if whole and estimate_tokens(dumps_exact(draft.data)) <= SHORT_ANSWER:
            return asked_whole(draft, recipe.schema, sure), recipe.shape
        return draft, recipe.correction_shape(paths, mode=self._mode)

    def handed(self, problems: Sequence[FieldProblem]) -> Handed:
        """A draft's problems, those that a correction can be asked about; without any the whole is asked."""
        asked = correctable(problems)
        paths = tuple(dict.fromkeys(problem.path for problem in asked))
        shape = self._recipe.correction_shape(paths, mode=self._mode) if paths else self._recipe.shape
        if shape.schema is self._recipe.shape.schema:
            return Handed(("",), (), self._recipe.shape)
        return Handed(paths, asked, shape)

    def heard(self, reply: ChatReply, draft: Draft, scores: dict[str, TokenScore]) -> Heard:
        """The final's answer. A whole answer is judged as a first one is: keys that it left out are null."""
        if not draft.whole:
            answer = read_answer(reply.text, finish_reason=reply.finish_reason)
            return Heard(None if answer.json is None else loads_exact(answer.json), scores, answer.problem)
        judged = self._judge.reply(reply.text, reply.finish_reason)
        if isinstance(judged, Answer):
            return Heard(None, scores, judged.problem)
        for items in judged.items:
            scores = moved(scores, items)
        return Heard(completed(judged.data, self._recipe.schema, draft.open), scores, nulled=judged.nulled)

    def improved(self, draft: Draft, heard: Heard, scores: dict[str, TokenScore]) -> Improved | None:
        """The draft with the final's values where they are better; None where it stands as it is. ``scores`` are the
        draft's."""
        if heard.answer is None:
            return None
        asked = said_about(draft, heard.answer, heard.nulled)
        made = merged(asked, heard.answer, validated=self._judge.allowed, grounded=self._judge.ground)
        verdict = self._judge.data(made.data)
        if verdict.value is None or verdict.reason is not None:
            # Fine by itself, but not by the rules of evidence.
            return None
        left = [path for path in draft.nulled if not inside(path, made.changed)]
        changed, agreed = list(made.changed), list(made.agreed)
        scores = rescored(scores, heard.scores, made.changed, made.agreed)
        for items in verdict.items:
            left, changed, agreed = (moved_paths(one, items) for one in (left, changed, agreed))
            scores = moved(scores, items)
        return Improved(
            verdict.data,
            verdict.value,
            verdict.evidence,
            (*(path for path in left if path not in verdict.nulled), *verdict.nulled),
            tuple(changed),
            tuple(agreed),
            scores,
            verdict.repaired,
        )

    @property
    def _mode(self) -> Mode | None:
        final = self._recipe.policy.final
        return None if final is None else final.mode
