"""Many objects from one record: its lists of objects a window at a time, complete and in order. Pure, like ``Extraction``.

The fields beside the lists are asked first (in the chunks that matter), then every window for its items, each by an
``Extraction`` of its own: a list that the output limit cuts off is continued, what is invalid is corrected. The model counts
the items before it writes them; where fewer came, or numbered lines of the text have none, it is asked for the missing
ones, and a gap that stays open is told in the row (``incomplete``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from extractors.corrections import outermost, problems_of
from extractors.documents.places import pages_of
from extractors.extraction import Extraction
from extractors.images import Pictures
from extractors.longtext.budget import is_longer, room_of
from extractors.longtext.collecting import MARKS, Beside, Listed, found_in, is_again, label, within
from extractors.longtext.counting import unmet
from extractors.longtext.merging import Found, joined, placed, with_missing, without_repeats
from extractors.longtext.parts import GAP, Parts, key_in_json
from extractors.longtext.retrieval import Ranker
from extractors.longtext.windows import Window, windows
from extractors.parsing import loads_exact
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, Purpose
from extractors.recipe import Recipe
from extractors.tokens import estimate_tokens
from extractors.tools.requests import ToolRequest, ToolResult
from schemas.outcomes import Attempt, Extracted, Failed, FieldProblem, Outcome, Reason
from schemas.pointers import escape
from schemas.records import Record
from schemas.usage import Usage

logger = logging.getLogger(__name__)
MOST_GAPS = 2
"""Times that a window is looked at again for items that are missing; the second time only where the first found some."""
_LEAST_WINDOW = 256


class LongLists:
    """One record with lists of objects on its way to an outcome: driven as an ``Extraction`` is."""

    __slots__ = (
        "_at",
        "_attempts",
        "_gaps",
        "_givers",
        "_lists",
        "_offset",
        "_parts",
        "_pictures",
        "_ranker",
        "_recipe",
        "_record",
        "_repaired",
        "_request",
        "_rest",
        "_stage",
        "_step",
        "_sub",
        "_usage",
        "_windows",
        "outcome",
    )

    def __init__(
        self, recipe: Recipe, record: Record, pictures: Pictures, *, parts: Parts, ranker: Ranker | None = None
    ) -> None:
        self._recipe = recipe
        self._record = record
        self._pictures = pictures
        self._ranker = ranker
        self._parts = parts
        self._lists = [Listed(one) for one in parts.lists]
        self._rest: Extracted | None = None
        self._attempts: list[Attempt] = []
        self._givers: dict[str, None] = {}
        """Who gave the values, in order."""
        self._usage = Usage()
        self._offset = 0
        self._repaired = False
        self._at = -1
        self._gaps = 0
        self._step = ""
        self._sub: Extraction | None = None
        self._request: ChatRequest | ToolRequest | None = None
        self.outcome: Outcome | None = None
        long = is_longer(recipe, record.text)
        self._windows = windows_of(recipe, record.text) if long else (Window(1, 0, len(record.text)),)
        self._stage = "rest"
        if len(self._windows) > recipe.lists.max_windows:
            self._fail(
                Reason.TOO_LONG,
                f"the record's lists need {len(self._windows)} windows of {window_tokens(recipe)} tokens, and --max-windows "
                f"is {recipe.lists.max_windows}: raise it, or --max-output-tokens for larger windows, or split the record",
            )
        elif not long:
            self._stage = "whole"
            self._start(parts.whole, record, "the record", pictures)
        elif parts.rest is not None:
            self._start(parts.rest, record, "the fields beside the lists", pictures)
        else:
            self._next_window()

    def next_request(self) -> ChatRequest | ToolRequest | None:
        """The question to ask now, or the look-up to make, the same until it is answered; None once there is an outcome."""
        return self._request

    def receive(self, reply: ChatReply | CallError | ToolResult) -> None:
        """Take the answer to ``next_request()``. Raises ``RuntimeError`` when nothing was asked."""
        if self._request is None or self._sub is None:
            raise RuntimeError("receive() without an open request")
        self._request = None
        self._sub.receive(reply)
        self._go_on()

    # One part after the other -------------------------------------------------------------------

    def _start(self, recipe: Recipe, record: Record, step: str, pictures: Pictures | None = None) -> None:
        """Begin a part. Settles the outcome where the record has no tokens left for it."""
        cap, used = self._recipe.max_record_tokens, self._usage.total_tokens
        if cap is not None:
            if used >= cap:
                self._fail(Reason.BUDGET, f"the record used {used} of its {cap} tokens before {step}")
                return
            recipe = replace(recipe, max_record_tokens=cap - used)
        self._step = step
        self._sub = Extraction(recipe, record, pictures or Pictures(), ranker=self._ranker)
        self._go_on()

    def _go_on(self) -> None:
        sub = self._sub
        assert sub is not None
        request = sub.next_request()
        if isinstance(request, ToolRequest):
            self._request = request
            return
        if request is not None:
            purpose = Purpose.LOOK if self._stage == "gap" and request.purpose is Purpose.EXTRACT else request.purpose
            # Attempts count through the record: no two of its questions are the same one.
            self._request = replace(request, attempt=self._offset + request.attempt, purpose=purpose)
            return
        outcome = sub.outcome
        assert outcome is not None
        self._sub = None
        self._keep(outcome)
        if self._stage in ("rest", "whole") and isinstance(outcome, Failed):
            where = "" if self._stage == "whole" else f"{self._step}: "
            self._fail(outcome.reason, f"{where}{outcome.message}", outcome.problems)
        elif self._stage == "gap":
            self._take_missing(outcome)
        elif isinstance(outcome, Failed):
            self._window_failed(outcome)
        else:
            if self._stage != "window":
                self._rest = outcome
            if self._stage == "rest":
                self._next_window()
            else:
                self._at = max(self._at, 0)
                self._take_window(outcome)

    def _keep(self, outcome: Outcome) -> None:
        for attempt in outcome.attempts:
            purpose = "look" if self._stage == "gap" and attempt.purpose == "extract" else attempt.purpose
            self._attempts.append(replace(attempt, number=self._offset + attempt.number, purpose=purpose))
        if outcome.attempts:
            self._offset += max(attempt.number for attempt in outcome.attempts)
        self._usage += outcome.usage
        if isinstance(outcome, Extracted):
            self._repaired = self._repaired or outcome.repaired
            self._givers.update(dict.fromkeys(outcome.model.split("+")))

    def _next_window(self) -> None:
        self._at += 1
        if self._at == len(self._windows):
            self._finish()
            return
        self._stage, self._gaps = "window", 0
        self._start(self._parts.window, self._shown(), self._named())

    def _shown(self) -> Record:
        """The record as its window at hand."""
        return replace(self._record, text=self._window.of(self._record.text), images=())

    @property
    def _window(self) -> Window:
        return self._windows[self._at]

    def _named(self) -> str:
        window = self._window
        return f"window {window.number} of {len(self._windows)} (characters {window.start} to {window.end})"

    # What a window gave -------------------------------------------------------------------------

    def _take_window(self, outcome: Extracted) -> None:
        window, text = self._window, self._record.text
        for one in self._lists:
            one.here = placed(found_in(outcome, one.of, self._window), text, window)
            one.told[window.number] = int(getattr(outcome.value, one.of.count, 0) or 0)
        self._close_window()

    def _close_window(self) -> None:
        """Go back for what is missing of the window at hand, or on to the next."""
        gaps = [(one, missing) for one in self._lists if (missing := self._missing(one)) > 0]
        if gaps and self._gaps < MOST_GAPS:
            self._gaps += 1
            self._stage = "gap"
            tail = "\n\n".join(self._gap_words(one, missing) for one, missing in gaps)
            recipe = replace(self._parts.gap, prompter=self._parts.gap.prompter.adding(tail))
            self._start(recipe, self._shown(), f"{self._named()}, for what was missing")
            return
        for one in self._lists:
            one.items = self._with_here(one)
            one.here = []
        logger.info(
            "record %s: %s: %s",
            self._record.record_id,
            self._named(),
            ", ".join(f"{len(one.items)} {one.of.path}" for one in self._lists),
        )
        self._next_window()

    def _take_missing(self, outcome: Outcome) -> None:
        window, grew = self._window, False
        if isinstance(outcome, Extracted):
            for one in self._lists:
                again = placed([*one.here, *found_in(outcome, one.of, self._window)], self._record.text, window)
                old, new = again[: len(one.here)], again[len(one.here) :]
                new = [each for each in new if not any(is_again(each, other) for other in old)]
                grew = grew or bool(new)
                one.here = with_missing(old, new)
        if not grew:
            self._gaps = MOST_GAPS
        self._close_window()

    def _missing(self, one: Listed) -> int:
        """Items that the window at hand holds by the model's count, or by the text's numbering, and that are not there."""
        if self._recipe.lists.count == "never":
            return 0
        window = self._window
        inside = within(self._with_here(one), window)
        counted = one.told.get(window.number, 0) - len(inside)
        unnumbered = unmet(inside, self._record.text, window) if len(self._lists) == 1 else 0
        return max(counted, unnumbered)

    def _with_here(self, one: Listed) -> list[Found]:
        if self._at == 0:
            return list(one.here)
        return joined(one.items, one.here, (self._window.start, self._windows[self._at - 1].end))

    def _gap_words(self, one: Listed, missing: int) -> str:
        inside = within(self._with_here(one), self._window)
        labels = "\n".join(label(item, one.of) for item in inside) or "(none)"
        count = f", {missing} fewer than it should"
        said = GAP.replace("{{done}}", str(len(inside))).replace("{{list}}", one.of.path)
        return said.replace("{{count}}", count).replace("{{labels}}", labels)

    def _window_failed(self, outcome: Failed) -> None:
        message = f"{self._named()}: {outcome.message}"
        if outcome.reason is Reason.TOO_LONG:
            message = f"{message}; a lower --context-tokens makes smaller windows"
        if self._recipe.lists.failed_windows == "fail" or outcome.reason is Reason.BUDGET:
            self._fail(outcome.reason, message, outcome.problems)
            return
        logger.warning("record %s: %s", self._record.record_id, message)
        for one in self._lists:
            one.unread.append(self._window.number)
            one.here = []
            one.items = self._with_here(one)
        self._next_window()

    # The end ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        model, rest = self._recipe.model, self._rest
        lists = {one.of.name: one for one in self._lists}
        items = {name: without_repeats(one.items) for name, one in lists.items()}
        told: dict[str, Any] = {}
        for name, each in model.model_fields.items():
            if name in lists:
                told[key_in_json(name, each)] = [item.value for item in items[name]]
            elif rest is not None and name in rest.value.model_fields_set:
                told[key_in_json(name, each)] = getattr(rest.value, name)
        try:
            value = self._parts.model.model_validate(told)
            if type(value) is not model:
                value = model.model_construct(value.model_fields_set, **dict(value))
        except ValidationError as error:
            problems = problems_of(error, self._partial())
            self._fail(Reason.INVALID, f"the lists as a whole: {problems[0].path}: {problems[0].message}", problems)
            return
        unfit = self._recipe.codec.check(value)
        if unfit:
            found = outermost(unfit)
            self._fail(Reason.INVALID, f"the lists as a whole: {found[0].path}: {found[0].message}", found)
            return
        beside = None if rest is None else Beside(rest, tuple(lists[name].of for name in lists))
        evidence = [] if beside is None else list(beside.evidence)
        confidence = {} if beside is None else dict(beside.confidence)
        marks: dict[str, list[str]] = {
            kind: [] if beside is None else list(beside.paths(getattr(beside.rest, kind))) for kind in MARKS
        }
        for name, one in lists.items():
            step = escape(one.of.path)
            for at, item in enumerate(items[name]):
                prefix = f"{step}/{at}/"
                chunk = item.window if len(self._windows) > 1 else None
                evidence += [
                    replace(each, path=prefix + each.path, chunk=None if each.start is None else chunk)
                    for each in item.evidence
                ]
                confidence |= {prefix + path: sure for path, sure in item.confidence}
                for kind in marks:
                    marks[kind] += [prefix + path for path in getattr(item, kind)]
        pages = pages_of(self._record.text)
        self.outcome = Extracted(
            value=value,
            evidence=evidence if pages is None else pages.told(evidence),
            model="+".join(self._givers),
            attempts=self._attempts,
            usage=self._usage,
            corrected=tuple(marks["corrected"]),
            nulled=tuple(marks["nulled"]),
            repaired=self._repaired,
            confidence=confidence,
            routed=tuple(marks["routed"]),
            incomplete=tuple(escape(one.of.path) for name, one in lists.items() if self._is_open(one)),
        )

    def _is_open(self, one: Listed) -> bool:
        """Whether a window holds more items than were found in it, the windows beside it included."""
        if one.unread:
            return True
        if self._recipe.lists.count == "never":
            return False
        text = self._record.text
        return any(
            len(inside := within(one.items, window)) < one.told.get(window.number, 0)
            or (len(self._lists) == 1 and unmet(inside, text, window) > 0)
            for window in self._windows
        )

    def _partial(self) -> dict[str, Any]:
        return {one.of.path: [loads_exact(item.text) for item in (*one.items, *one.here)] for one in self._lists}

    def _fail(self, reason: Reason, message: str, problems: Sequence[FieldProblem] = ()) -> None:
        model = self._attempts[-1].model if self._attempts else self._recipe.policy.name
        partial = self._partial() if any(one.items or one.here for one in self._lists) else None
        self.outcome = Failed(reason, message, model, tuple(problems), self._attempts, self._usage, partial)


def windows_of(recipe: Recipe, text: str) -> tuple[Window, ...]:
    """The windows in which the lists of a long record are read."""
    return windows(text, most_tokens=window_tokens(recipe), tokens=recipe.policy.tokenizer or estimate_tokens)


def window_tokens(recipe: Recipe) -> int:
    """Tokens of a window: as many as one call shows, but no more than one answer may have, since a list's answer is about as
    long as what it is taken from."""
    return max(_LEAST_WINDOW, min(room_of(recipe).shown, recipe.max_output_tokens))
