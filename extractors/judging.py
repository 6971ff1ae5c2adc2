"""What an answer is worth: parse -> validate -> mend what needs no model -> fit for the table -> ground.

Pure. A ``Verdict`` says that an answer is right, or which paths are wrong and why; what is asked next is
``extractors.extraction``'s to decide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from extractors.corrections import (
    cut_strings,
    filled,
    fold_keys,
    nulls_for_words,
    outermost,
    problems_of,
    value_at,
    with_value,
    without_nulls,
)
from extractors.documents.places import pages_of
from extractors.dropping import dropped, nothings, says_nothing, without_items
from extractors.examples import Example, copied_form
from extractors.grounding import Haystack, ground, ungrounded_paths
from extractors.grounding.edges import is_span
from extractors.longtext.evidence import LongGrounding
from extractors.longtext.focus import Focus
from extractors.parsing import Answer, beyond_floats, dumps_exact, joined_keys, loads_exact, read_answer, repeats_a_key
from extractors.qwen.grammar import LONGEST_STRING
from extractors.qwen.requests import Mode
from extractors.recipe import ALL, Recipe
from extractors.repeats import repeats
from extractors.second_look import is_choice
from extractors.tools.evidence import Results
from extractors.validating import validate_model
from schemas.branches import subschemas_of
from schemas.evidence import Evidence, Match
from schemas.jsonschema import subschema
from schemas.outcomes import FieldProblem, Reason
from schemas.records import Record
from schemas.verbatim import is_verbatim

UNGROUNDED = "ungrounded"
"""The error of a value that stands nowhere in its record."""
_NOWHERE = "this value does not stand in the record; copy it as written, or null"
_PART = "this value is only a part of a word or a number in the record; copy whole ones as written, or null"
_NONE: frozenset[str] = frozenset()
COPIED = "copied"
"""The error of a value that was copied from an example."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer that was JSON, judged. ``value`` is None where it does not validate; ``problems`` are empty where
    it is right, and ``reason`` is then None. ``repaired``: its text, keys or nulls had to be mended. ``invalid``: the
    reply as it came did not validate. ``nulled``: paths that were made null for want of evidence, and lists that lost
    items; ``items`` are those, one removal after the other."""

    text: str
    value: BaseModel | None
    evidence: Sequence[Evidence] = ()
    problems: Sequence[FieldProblem] = ()
    reason: Reason | None = None
    repaired: bool = False
    invalid: bool = False
    nulled: Sequence[str] = ()
    items: Sequence[Sequence[str]] = ()

    @property
    def data(self) -> Any:
        """The answer as ``loads_exact`` gives it."""
        return loads_exact(self.text)


class Judge:
    """Judges the answers about one record. ``pictured``: the record comes with pictures."""

    __slots__ = (
        "_haystack",
        "_in_examples",
        "_long",
        "_pages",
        "_pictured",
        "_recipe",
        "_record",
        "results",
        "written_out",
    )

    def __init__(
        self,
        recipe: Recipe,
        record: Record,
        *,
        pictured: bool,
        examples: Sequence[Example] = (),
        focus: Focus | None = None,
    ) -> None:
        self._recipe = recipe
        self._record = record
        self._pictured = pictured
        self._in_examples = _NONE
        self.show(examples)
        self._haystack: Haystack | None = None
        self._long = None if focus is None else LongGrounding(record.text, focus)
        self._pages = pages_of(record.text)
        self.results: Results | None = None
        """What was looked up for the record, where something was."""
        self.written_out: set[str] = set()
        """Paths whose strings were written without the grammar's limit."""

    def show(self, examples: Sequence[Example]) -> None:
        """From here on the model that is asked is shown these."""
        self._in_examples = _NONE.union(*(example.copies for example in examples)) if examples else _NONE

    def focus(self, focus: Focus) -> None:
        """From here on parts of the record are shown, and evidence is first searched in them."""
        self._long = LongGrounding(self._record.text, focus)

    def reply(self, text: str, finish_reason: str) -> Verdict | Answer:
        """A whole answer as it came; an ``Answer`` without JSON where none could be read."""
        once = self._joined(text)
        found = self._reply(once or text, finish_reason)
        return replace(found, repaired=True) if once is not None and isinstance(found, Verdict) else found

    def _joined(self, text: str) -> str | None:
        """The answer without a key that it has twice, which no grammar forbids in the order of the text."""
        return joined_keys(text) if self._recipe.shape.text_order else None

    def _reply(self, text: str, finish_reason: str) -> Verdict | Answer:
        try:
            value = validate_model(self._recipe.model, text)
        except ValidationError as error:
            if error.errors(include_url=False, include_context=False)[0]["type"] != "json_invalid":
                return self._reply_invalid(text, error)
        else:
            if ("NaN" in text or "Infinity" in text) and (problem := _not_json(text)) is not None:
                return Answer(None, problem=problem)
            verdict = self._fit(value, text)
            return replace(verdict, repaired=True) if repeats_a_key(text) else verdict
        answer = read_answer(text, finish_reason=finish_reason)
        if answer.json is None:
            return answer
        once = self._joined(answer.json)
        verdict = self.data(loads_exact(once or answer.json))
        return replace(verdict, repaired=verdict.repaired or answer.unwrapped or once is not None)

    def data(self, data: Any) -> Verdict:
        """An answer as Python values."""
        text = dumps_exact(data)
        try:
            value = validate_model(self._recipe.model, text)
        except ValidationError as error:
            return self._invalid(data, error)
        return self._fit(value, text)

    def fitting(self, data: Any) -> BaseModel | None:
        """The answer as a value, None where it does not validate or has no place in the table."""
        text = dumps_exact(data)
        try:
            value = validate_model(self._recipe.model, text)
        except ValidationError:
            return None
        unfit = self._recipe.codec.check(value) or self._cut_strings(data) or any(beyond_floats(text))
        return None if unfit else value

    def allowed(self, data: Any) -> BaseModel | None:
        """The same, and None where it breaks the rules of evidence."""
        value = self.fitting(data)
        return None if value is None or self.data(data).reason is not None else value

    def ground(self, value: BaseModel) -> list[Evidence]:
        """Where each of the value's leaves stands in the record."""
        if self._long is not None:
            evidence = self._long.ground(value)
        else:
            if self._haystack is None:
                self._haystack = Haystack(self._record.text)
            evidence = ground(value, self._haystack)
        if self._pages is not None:
            evidence = self._pages.told(evidence)
        if self.results is not None:
            evidence = self.results.added(value, evidence)
        if self._pictured and not self._record.text.strip():
            return [one if one.match is Match.TOOL else replace(one, match=Match.IMAGE) for one in evidence]
        return evidence

    def _reply_invalid(self, text: str, error: ValidationError) -> Verdict | Answer:
        if (problem := _not_json(text)) is not None:
            return Answer(None, problem=problem)
        return replace(self._invalid(loads_exact(text), error), invalid=True)

    def _invalid(self, data: Any, error: ValidationError) -> Verdict:
        """Mend what needs no model: drifted keys, a null where a default stands, the word for null, and what was
        left out as it was told to be."""
        if self._recipe.shape.omit_nulls:
            full = filled(data, problems_of(error, data), self._recipe.schema)
            if full is not None:
                text = dumps_exact(full)
                try:
                    return self._fit(validate_model(self._recipe.model, text), text)
                except ValidationError as second:
                    data, error = full, second
        folded, renamed = fold_keys(data, self._recipe.model)
        problems = problems_of(error, folded)
        worded = None if renamed else nulls_for_words(folded, problems, self._recipe.schema)
        mended = folded if renamed else worded or without_nulls(folded, problems, self._recipe.schema)
        if mended is None:
            return Verdict(dumps_exact(data), None, problems=problems_of(error, data), reason=Reason.INVALID)
        repaired = renamed or worded is not None
        text = dumps_exact(mended)
        try:
            value = validate_model(self._recipe.model, text)
        except ValidationError as second:
            problems = problems_of(second, mended)
            return Verdict(text, None, problems=problems, reason=Reason.INVALID, repaired=repaired)
        return replace(self._fit(value, text), repaired=repaired)

    def _fit(self, value: BaseModel, text: str) -> Verdict:
        """A valid answer: can Parquet hold it, is it whole, is it in the record?"""
        unfit = self._recipe.codec.check(value)
        unfit += [
            FieldProblem(path, "number_range", "this number is larger than a 64-bit float can be", digits[:400])
            for path, digits in beyond_floats(text)
            if all(path != one.path for one in unfit)
        ]
        if unfit:
            return Verdict(text, value, problems=outermost(unfit), reason=Reason.INVALID)
        if len(text) > LONGEST_STRING and (cut := self._cut_strings(loads_exact(text))):
            return Verdict(text, value, problems=cut, reason=Reason.TRUNCATED)
        evidence = self.ground(value)
        if says_nothing(text):
            meant = self._without_nothings(evidence, text)
            if meant is not None:
                return meant
        # How often a thing is in a picture, or in what was looked up, the text does not say.
        if self._recipe.drops_repeats and not self._pictured and self.results is None:
            once = self._without_repeats(text)
            if once is not None:
                return once
        loose = self._loose(evidence, text) if self._recipe.verbatim else []
        spellings = _spellings(loose)
        if spellings:
            spelt = loads_exact(text)
            for path, spelling in spellings.items():
                spelt = with_value(spelt, path, spelling)
            respelt = self.fitting(spelt)
            if respelt is not None:
                value, text, evidence = respelt, dumps_exact(spelt), self.ground(respelt)
                loose = self._loose(evidence, text)
        required = self._recipe.require_evidence
        missing = ungrounded_paths(evidence, required) if required else []
        if ALL in required:
            missing = [path for path in missing if not self._is_choice(path)]
        missing += [one.path for one in loose if one.path not in missing]
        copied = self._copied(evidence, text) if self._in_examples else []
        ours = self._recipe.examples is not None and self._recipe.examples.made_up
        # What comes of a made-up example is not worth a question.
        if (missing or copied) and (self._recipe.evidence_policy == "drop" or (ours and not missing)):
            dropped = self._without(value, text, [*missing, *copied])
            if dropped is not None:
                return dropped
        if missing or copied:
            data = loads_exact(text)
            parts = {one.path for one in loose if one.match is Match.EXACT}
            problems = [
                FieldProblem(path, UNGROUNDED, _PART if path in parts else _NOWHERE, _shown(data, path))
                for path in missing
            ]
            said = "this value is an example's and does not stand in the record; give the record's own, or null"
            problems += [FieldProblem(path, COPIED, said, _shown(data, path)) for path in copied if path not in missing]
            return Verdict(text, value, evidence, problems, Reason.UNGROUNDED)
        return Verdict(text, value, evidence)

    def _without_nothings(self, evidence: Sequence[Evidence], text: str) -> Verdict | None:
        """The answer with null for the words that mean it, judged; None where there are none."""
        data = loads_exact(text)
        nowhere = [one.path for one in evidence if one.match is Match.UNGROUNDED]
        # A default of that word is what the schema wants to have there.
        defaults = {field.alias or name: field.default for name, field in self._recipe.model.model_fields.items()}
        paths = [
            path
            for path in nothings(data, nowhere, self._recipe.schema)
            if path not in defaults or defaults[path] != value_at(data, path)
        ]
        if not paths:
            return None
        data, _, items = dropped(data, paths, self._recipe.schema)
        value = self.fitting(data)
        if value is None:
            return None
        judged = self._fit(value, dumps_exact(data))
        return replace(judged, repaired=True, items=((tuple(items), *judged.items) if items else judged.items))

    def _without_repeats(self, text: str) -> Verdict | None:
        """The answer without what its lists say again, judged; None where they do not, or may not be shorter."""
        data = loads_exact(text)
        found = repeats(data, self._recipe.schema, self._record.text)
        by_list: dict[str, list[str]] = {}
        for item in found:
            by_list.setdefault(item.rpartition("/")[0], []).append(item)
        # All of them, or else those of each list that may be shorter.
        for items in (found, *by_list.values()) if found else ():
            shorter, _ = without_items(data, items)
            value = self.fitting(shorter)
            if value is not None:
                judged = self._fit(value, dumps_exact(shorter))
                return replace(judged, repaired=True, items=(tuple(items), *judged.items))
        return None

    def _without(self, value: BaseModel, text: str, paths: Sequence[str]) -> Verdict | None:
        """The answer with null at ``paths``, or without those that are items of a list; None where that is no
        answer, and the model must be asked."""
        data, lost, items = dropped(loads_exact(text), paths, self._recipe.schema)
        value_left = self.fitting(data)
        if value_left is None:
            return None
        evidence = self.ground(value_left)
        return Verdict(dumps_exact(data), value_left, evidence, nulled=tuple(lost), items=(tuple(items),))

    def _is_choice(self, path: str) -> bool:
        try:
            return is_choice(subschema(self._recipe.schema, path))
        except KeyError:
            return False

    def _copied(self, evidence: Sequence[Evidence], text: str) -> list[str]:
        """Paths of values that stand in an example that was shown, and not in the record. A value that an example
        did not copy from its own text either (a currency's code, say) is no copy."""
        data = loads_exact(text)
        found = []
        for one in evidence:
            try:
                if (
                    one.match is Match.UNGROUNDED
                    and not self._is_choice(one.path)
                    and copied_form(value_at(data, one.path)) in self._in_examples
                ):
                    found.append(one.path)
            except KeyError:
                continue
        return found

    def _loose(self, evidence: Sequence[Evidence], text: str) -> list[Evidence]:
        """The evidence of verbatim strings that are no spans of the record as they are."""
        data: Any = None
        found = []
        for one in evidence:
            if one.match is Match.IMAGE or (one.match is Match.EXACT and self._is_span(one)):
                continue
            try:
                if not is_verbatim(subschema(self._recipe.schema, one.path)):
                    continue
            except KeyError:
                continue
            # Python refuses an int of thousands of digits; which branch it is in a float says as well.
            data = json.loads(text, parse_int=float) if data is None else data
            if self._is_held(data, one.path):
                found.append(one)
        return found

    def _is_held(self, data: Any, path: str) -> bool:
        """Whether what is at a path that may be verbatim is a string, and of branches that are."""
        try:
            held = all(map(is_verbatim, subschemas_of(self._recipe.schema, data, path)))
            return held and isinstance(value_at(data, path), str)
        except KeyError:
            # A model that also reads a field's own name in the place of its alias.
            return True

    def _is_span(self, one: Evidence) -> bool:
        if one.start is None or one.end is None:
            return True
        return is_span(self._record.text, one.start, one.end)

    def _cut_strings(self, data: Any) -> list[FieldProblem]:
        """The strings that the embedded grammar cut off."""
        if self._recipe.shape.mode is not Mode.GRAMMAR:
            return []
        found = cut_strings(data, self._recipe.schema, longest=LONGEST_STRING)
        return [problem for problem in found if problem.path not in self.written_out]


def _not_json(text: str) -> str | None:
    """What is wrong with a text that Pydantic could read: its reader is laxer than JSON, NaN and Infinity pass."""
    try:
        loads_exact(text)
    except (ValueError, RecursionError) as problem:
        return f"it was not valid JSON ({problem})"
    return None


def _spellings(loose: Sequence[Evidence]) -> dict[str, str]:
    """What the record has in the place of values that differ from it in case, spaces or punctuation only, by path."""
    found = {}
    for one in loose:
        spelling = (one.quote or "").strip()
        if one.match is Match.NORMALISED or (one.match is Match.EXACT and spelling != one.quote):
            found[one.path] = spelling
    return found


def _shown(data: Any, path: str) -> str | None:
    try:
        return dumps_exact(value_at(data, path))
    except KeyError:
        return None
