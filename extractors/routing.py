"""Draft -> final: what of a cheap model's answer a stronger one is asked, and what of its answer is taken.

Pure. The draft's answer stands wherever the final has nothing better: each field by itself. Asked are fields whose
value stands nowhere in the record, those whose confidence is below a threshold, and those on which two answers of the
draft disagree; a list is asked as a whole, because what a draft left out of it has no path of its own. Where the model is shown whole
answers as examples, and the answer is short, the final is asked the record's first question, like them: of its answer
the doubtful fields are taken, and what the draft left out. A draft that cannot be put right is handed over with its
problems (``extractors.extraction``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from extractors.calibration import Pair
from extractors.continuation import answered
from extractors.corrections import value_at, with_value
from extractors.error_bounds import chance_of_so_few
from extractors.errors import JobError
from extractors.parsing import dumps_exact
from extractors.qwen.fitting import may_be_left_out, nullable
from extractors.second_look import is_choice, properties_of
from schemas.evidence import Evidence, Match
from schemas.jsonschema import subschema
from schemas.pointers import escape

MOST_FIELDS = 24
"""Fields that the final is asked of one record."""
SHORT_ANSWER = 160
"""Tokens of a draft's answer, estimated, up to which the final is asked for a whole one."""
_PARTS = 10


@dataclass(frozen=True, slots=True)
class Draft:
    """A valid answer that the final is asked about at ``paths``; it stands where that brings nothing. ``left_out`` are
    further paths at which a whole answer may add a choice, or something that stands in the record; None: the final is
    asked for ``paths`` alone. ``choices`` are those of them that are choices among fixed values, which records rarely
    print."""

    data: Any
    value: BaseModel
    evidence: Sequence[Evidence]
    paths: tuple[str, ...]
    nulled: tuple[str, ...] = ()
    left_out: tuple[str, ...] | None = None
    choices: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether the final is asked for a whole answer."""
        return self.left_out is not None

    @property
    def open(self) -> tuple[str, ...]:
        """The paths at which the final's values are looked at."""
        return (*self.paths, *(self.left_out or ()))


@dataclass(frozen=True, slots=True)
class Merged:
    """A draft with what was taken of the final's answer: ``changed`` paths, and those on which both ``agreed``."""

    data: Any
    value: BaseModel
    changed: tuple[str, ...]
    agreed: tuple[str, ...]


def doubtful_fields(
    evidence: Sequence[Evidence],
    confidence: Mapping[str, float],
    schema: Mapping[str, Any],
    *,
    below: float,
    nulled: Sequence[str] = (),
    disagreed: Sequence[str] = (),
) -> tuple[str, ...]:
    """What the final should be asked: at most ``MOST_FIELDS`` paths, the least sure first, then in the order of the
    schema's answer. ``disagreed`` are paths of which the draft says one thing and another, whatever their confidence."""
    doubts: dict[str, float] = {}
    for one in evidence:
        if one.match is Match.UNGROUNDED and not _is_choice(schema, one.path):
            doubts[one.path] = 0.0
    for path, sure in confidence.items():
        if sure < below:
            doubts.setdefault(path, sure)
    for path in disagreed:
        doubts.setdefault(path, confidence.get(path, 0.0))
    doubts |= dict.fromkeys(nulled, 0.0)
    fields: dict[str, float] = {}
    for path, sure in doubts.items():
        whole = _outermost_list(schema, path)
        if whole is not None:
            fields[whole] = min(sure, fields.get(whole, 1.0))
    kept = sorted(fields, key=lambda path: fields[path])[:MOST_FIELDS]
    return tuple(path for path in fields if path in kept)


def asked_whole(draft: Draft, schema: Mapping[str, Any], known: Mapping[str, float]) -> Draft:
    """The draft for a whole answer of the final, which may also add what the draft left out: where it says nothing (a
    null, an empty list, no such key) and no confidence is ``known``; in objects too, and not in lists."""
    left_out = tuple(path for path in _empty(draft.data, schema, "") if path not in known and path not in draft.paths)
    choices = frozenset(path for path in left_out if _is_choice(schema, path))
    return replace(draft, left_out=left_out, choices=choices)


def completed(answer: Any, schema: Mapping[str, Any], paths: Sequence[str]) -> Any:
    """A whole answer with null, or an empty list, at those of ``paths`` that it left out and that may be it."""
    for path in paths:
        try:
            value_at(answer, path)
        except KeyError:
            own = subschema(schema, path)
            if may_be_left_out(own):
                answer = with_value(answer, path, None if nullable(own) else [])
    return answer


def said_about(draft: Draft, answer: Any, nulled: Sequence[str]) -> Draft:
    """The draft, open only where the final's ``answer`` says something: a null at one of the paths that were ``nulled``
    says that its value was not to be had, not that there is none."""
    unsaid = {path for path in nulled if _text_at(answer, path) == "null"}
    left_out = None if draft.left_out is None else tuple(path for path in draft.left_out if path not in unsaid)
    return replace(draft, paths=tuple(path for path in draft.paths if path not in unsaid), left_out=left_out)


def merged(
    draft: Draft,
    answer: Mapping[str, Any],
    *,
    validated: Callable[[Any], BaseModel | None],
    grounded: Callable[[BaseModel], Sequence[Evidence]],
) -> Merged:
    """Take the final's values, all of them or else each by itself: what validates, and does not put a value that
    stands nowhere in the place of one that stands in the record."""
    found = answered(answer, draft.open)
    agreed = tuple(path for path, value in found.items() if dumps_exact(value) == _text_at(draft.data, path))
    other = {path: value for path, value in found.items() if path not in agreed}
    data, value = draft.data, draft.value
    changed: list[str] = []
    together = data
    for path, new in other.items():
        together = with_value(together, path, new)
    whole = validated(together) if other else None
    if whole is not None and not _loses(draft, grounded(whole), tuple(other)):
        return Merged(together, whole, tuple(other), agreed)
    for path, new in other.items():
        attempt = with_value(data, path, new)
        better = validated(attempt)
        if better is not None and not _loses(draft, grounded(better), (path,)):
            data, value = attempt, better
            changed.append(path)
    return Merged(data, value, tuple(changed), agreed)


def threshold_for(
    pairs: Sequence[Pair], *, max_error: float, sure: float = 0.95, records: Sequence[int] | None = None
) -> float:
    """The confidence from which a draft's values may stand so that, with probability ``sure``, at most ``max_error``
    of them are wrong. ``pairs`` are (confidence, right) of labelled values of the draft, ``records`` the record of each,
    whose values are right or wrong together; without it each is a record's only one.

    Tested are the thresholds that let the surest tenth stand, the surest two tenths, and so on to all, each by the
    binomial tail of as many values as the records are worth (``extractors.error_bounds``) with its share of the
    uncertainty (Bonferroni); the lowest that passes is it. They depend on the confidences alone, so that choosing among
    them costs no more than that. 1.01, above any confidence, where none passes: everything is routed. Raises ``JobError``
    for bounds that are no probabilities.
    """
    if not (0 < max_error < 1 and 0 < sure < 1):
        raise JobError(f"an error bound and its certainty lie between 0 and 1, not {max_error} and {sure}")
    scores = sorted((score for score, _ in pairs), reverse=True)
    tested = sorted(
        {scores[max(math.ceil(len(scores) * part / _PARTS), 1) - 1] for part in range(1, _PARTS + 1) if scores}
    )
    whose = range(len(pairs)) if records is None else records
    for threshold in tested:
        kept: dict[int, tuple[int, int]] = {}
        for (score, right), record in zip(pairs, whose, strict=True):
            if score >= threshold:
                wrong, count = kept.get(record, (0, 0))
                kept[record] = (wrong + (not right), count + 1)
        if chance_of_so_few(list(kept.values()), max_error) <= (1 - sure) / len(tested):
            return threshold
    return 1.01


def _loses(draft: Draft, evidence: Sequence[Evidence], paths: Sequence[str]) -> bool:
    """Whether a value of these paths stands nowhere now, and all of the draft's there stood in the record, or there were
    none."""
    for path in paths:
        before = [one.match for one in _below(draft.evidence, path)]
        after = [one.match for one in _below(evidence, path)]
        filled = path in (draft.left_out or ()) and path not in draft.choices
        if (before or filled) and Match.UNGROUNDED not in before and Match.UNGROUNDED in after:
            return True
    return False


def _empty(data: Any, schema: Mapping[str, Any], above: str) -> Iterator[str]:
    for name, own in properties_of(schema).items():
        path = f"{above}{escape(name)}"
        value = data.get(name) if isinstance(data, Mapping) else None
        if value in (None, []) and may_be_left_out(own):
            yield path
        elif isinstance(value, Mapping):
            yield from _empty(value, own, f"{path}/")


def _below(evidence: Sequence[Evidence], path: str) -> Iterator[Evidence]:
    for one in evidence:
        if one.path == path or one.path.startswith(f"{path}/"):
            yield one


def _outermost_list(schema: Mapping[str, Any], path: str) -> str | None:
    """The first list on the way to a path, or the path itself; None for a path that the schema has not."""
    steps = path.split("/")
    for count in range(1, len(steps) + 1):
        part = "/".join(steps[:count])
        try:
            own = subschema(schema, part)
        except KeyError:
            return None
        branches = [own, *(branch for key in ("anyOf", "oneOf") for branch in own.get(key, ()))]
        if any(branch.get("type") == "array" for branch in branches):
            return part
    return path


def _is_choice(schema: Mapping[str, Any], path: str) -> bool:
    try:
        return is_choice(subschema(schema, path))
    except KeyError:
        return True


def _text_at(data: Any, path: str) -> str | None:
    try:
        return dumps_exact(value_at(data, path))
    except KeyError:
        return "null"
