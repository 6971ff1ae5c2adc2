"""How likely each value is right: from the model's own token probabilities, else from where the value stands.

A value's token score is the product of the probabilities of its tokens, the one that ends it included: the
probability that the model gave to writing just this value. Where nulls are left out, the tokens that lead to it count
as well, from the end of the value before: whether there is a value, and of which field, is said by writing its key
(``docs/values.md``). A value that stands nowhere in its record is worth a part of that. Without token probabilities the
kind of evidence alone decides. Where the first question was asked twice (``extractors.agreement``), both ways count whether the
two answers agree, and every null has a score.

These are scores; a ``Calibration`` fitted on labelled records makes probabilities of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.agreement import Agreement
from extractors.calibration import Calibration
from extractors.positions import leaf_spans
from extractors.qwen.requests import Logprobs
from extractors.second_look import is_choice
from schemas.evidence import Evidence, Match
from schemas.jsonschema import subschema

_BY_EVIDENCE: Mapping[Match, float] = {
    Match.EXACT: 0.9,
    Match.VALUE: 0.9,
    Match.NORMALISED: 0.85,
    Match.TOOL: 0.8,
    Match.FUZZY: 0.6,
    Match.IMAGE: 0.5,
    Match.UNGROUNDED: 0.1,
}
"""Scores where the model tells no probabilities."""
_CHOICE = 0.85
"""The same for a boolean or an enum, which is rarely printed."""
_UNGROUNDED = 0.1
"""What is left of a token score where the value stands nowhere in the record and is no choice."""
_AGREED_ODDS = 2.0
"""What agreement makes of a score's odds without token probabilities: surer, and what stands nowhere stays doubtful."""
_DISAGREED = 1 / 3
"""What disagreement leaves of such a score: two answers that differ cannot both be right, so it is below any that agrees."""
_DISAGREED_TOKENS = 0.5
"""What it leaves of a token score, which may have told of the doubt already; agreement adds nothing to one."""
_EMPTY_AGREED = 0.8
"""The score of a null or an empty list, without token probabilities, that both answers have: it has no evidence."""
_EMPTY_DISAGREED = 0.3
"""The same where the second answer has a value: the first may have missed it, or the second invented it."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """The probability that the model gave to a value; whether that value was null."""

    score: float
    null: bool


def token_scores(
    text: str, logprobs: Logprobs | None, *, start: int = 0, pointers: bool = False, keys: bool = False
) -> dict[str, TokenScore]:
    """The score of each leaf of the JSON that begins at ``start`` in a reply's text; see ``leaf_spans``. ``keys``: the
    model was free to write a key or not, and its tokens are part of the value's score."""
    if logprobs is None:
        return {}
    ends, values = logprobs.ends, logprobs.values
    ascii_only = text.isascii()
    found = {}
    # The first token after the value before.
    after = bisect_right(ends, len(text[:start].encode("utf-8", "replace")))
    for path, (first, last) in leaf_spans(text, start, pointers=pointers).items():
        begin = first if ascii_only else len(text[:first].encode("utf-8", "replace"))
        end = begin + len(text[first:last].encode("utf-8", "replace"))
        # The first token that ends after the value's beginning, to the one that holds the character after its end.
        at = bisect_right(ends, begin)
        total = sum(values[after:at]) if keys else 0.0
        while at < len(ends):
            total += values[at]
            at += 1
            if ends[at - 1] > end:
                break
        after = at
        found[path] = TokenScore(math.exp(total), text[first:last] == "null" and text[first - 1 : first] != '"')
    return found


def confidence_of(
    evidence: Sequence[Evidence],
    scores: Mapping[str, TokenScore],
    schema: Mapping[str, Any],
    calibration: Calibration | None = None,
    agreement: Agreement | None = None,
    *,
    uncalibrated: Sequence[str] = (),
) -> dict[str, float]:
    """A number from 0 to 1 for each value, and for each null that the model wrote with known probability, or that was
    compared with a second answer. Values at or below the paths ``uncalibrated`` ("" for all) keep their score: another model
    wrote them than the one that was calibrated."""
    found: dict[str, float] = {}
    nulls: set[str] = set()
    for one in evidence:
        told = scores.get(one.path)
        told = None if told is None or told.null else told
        if one.match is Match.UNGROUNDED:
            choice = _is_choice(schema, one.path)
            if choice is None:
                continue
            score = (_CHOICE if choice else _BY_EVIDENCE[one.match]) if told is None else told.score
            score *= 1.0 if told is None or choice else _UNGROUNDED
        elif told is not None:
            score = told.score
        else:
            score = _BY_EVIDENCE[one.match] * (one.score if one.match is Match.FUZZY else 1.0)
        found[one.path] = _agreeing(score, one.path, agreement, tokens=told is not None)
    for path, told in scores.items():
        if told.null and path not in found and _is_choice(schema, path) is not None:
            found[path] = _agreeing(told.score, path, agreement, tokens=True)
            nulls.add(path)
    for path, same in () if agreement is None else agreement.of_empty:
        if path not in found and _is_choice(schema, path) is not None:
            found[path] = _EMPTY_AGREED if same else _EMPTY_DISAGREED
            nulls.add(path)
    if calibration is not None:
        found = {
            path: score
            if "" in uncalibrated or inside(path, uncalibrated)
            else calibration.apply(score, null=path in nulls)
            for path, score in found.items()
        }
    return {path: round(score, 4) for path, score in found.items()}


def rescored(
    draft: Mapping[str, TokenScore],
    final: Mapping[str, TokenScore],
    changed: Sequence[str],
    agreed: Sequence[str],
) -> dict[str, TokenScore]:
    """The scores of a draft after a second model was asked: the final's own where its value was taken; where both
    wrote the same, the probability that not both are wrong, as if they erred independently."""
    scores = {path: score for path, score in draft.items() if not inside(path, changed)}
    for path, score in final.items():
        if inside(path, changed):
            scores[path] = score
        elif inside(path, agreed) and path in draft:
            scores[path] = TokenScore(1 - (1 - draft[path].score) * (1 - score.score), score.null)
    return scores


def inside(path: str, fields: Sequence[str]) -> bool:
    """Whether a path is one of ``fields`` or below one."""
    return any(path == field or path.startswith(f"{field}/") for field in fields)


def _agreeing(score: float, path: str, agreement: Agreement | None, *, tokens: bool) -> float:
    """A score with what is known of agreement; ``tokens``: it is one of token probabilities."""
    same = None if agreement is None else agreement.at(path)
    if same is None or (same and tokens):
        return score
    if same:
        return _AGREED_ODDS * score / (1 + (_AGREED_ODDS - 1) * score)
    return score * (_DISAGREED_TOKENS if tokens else _DISAGREED)


def _is_choice(schema: Mapping[str, Any], path: str) -> bool | None:
    """Whether a path is a choice among fixed values; None where the schema has no such path."""
    try:
        return is_choice(subschema(schema, path))
    except KeyError:
        return None
