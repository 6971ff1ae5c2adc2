"""The pure core: one record's extraction as a state machine.

It never touches a socket, a file or a clock. Whoever drives it asks ``next_request`` and hands back
what came, until there is an ``outcome``::

    extraction = Extraction(recipe, record)
    while (request := extraction.next_request()) is not None:
        extraction.receive(ask(request))
    extraction.outcome

Where the recipe has look-ups, they come first (``extractors.tools.lookups``). The way of an answer: parse (and ask for the rest of a list that was cut off) -> validate -> correct (only the
failing paths) -> ground -> look again for what is missing -> ask once more whether it agrees -> route what is doubtful to the final model -> outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from extractors.agreement import Agreement, compared
from extractors.confidence import TokenScore, confidence_of, inside, token_scores
from extractors.continuation import Beginning, answered, beginning, continued, extended, joining, unwound
from extractors.corrections import merge, signature
from extractors.dropping import dropped, moved, moved_paths
from extractors.errors import SchemaError
from extractors.final_stage import FOR_THE_FINAL, FinalStage
from extractors.images import Pictures
from extractors.judging import Judge, Verdict
from extractors.longtext.focus import Shown, focus_of, narrowed
from extractors.longtext.looking import filled, first_of
from extractors.longtext.retrieval import Ranker
from extractors.parsing import Answer, dumps_exact, joined_keys, loads_exact, read_answer
from extractors.prompting import correctable
from extractors.questions import Questions
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Mode, Purpose
from extractors.recipe import Recipe
from extractors.routing import Draft
from extractors.second_look import First, doubtful_paths, missing_paths, taken
from extractors.tokens import estimate_tokens
from extractors.tools.evidence import Results
from extractors.tools.lookups import LookUps
from extractors.tools.requests import ToolRequest, ToolResult
from extractors.trail import Trail
from schemas.answer_values import answer_values
from schemas.evidence import Evidence
from schemas.outcomes import Extracted, Failed, FieldProblem, Outcome, Reason
from schemas.records import Record

CALL_REASONS = {
    ErrorKind.RATE_LIMITED: Reason.UNAVAILABLE,
    ErrorKind.OVERLOADED: Reason.UNAVAILABLE,
    ErrorKind.CONNECTION: Reason.UNAVAILABLE,
    ErrorKind.GARBLED: Reason.UNAVAILABLE,
    ErrorKind.TIMED_OUT: Reason.TIMED_OUT,
    ErrorKind.REFUSED: Reason.REFUSED,
    ErrorKind.TOO_LONG: Reason.TOO_LONG,
    ErrorKind.BAD_REQUEST: Reason.REJECTED,
    ErrorKind.UNSUPPORTED: Reason.REJECTED,
    ErrorKind.KEY: Reason.REJECTED,
    ErrorKind.MODEL: Reason.REJECTED,
    ErrorKind.CANCELLED: Reason.INTERNAL,
    ErrorKind.UNANSWERED: Reason.UNAVAILABLE,
}
_NO_PICTURES = Pictures()


@dataclass(frozen=True, slots=True)
class _Cut:
    """An answer that was cut off: its beginning, its shape, and the paths asked for (None: the whole record)."""

    start: Beginning
    shape: AnswerShape
    asked: tuple[str, ...] | None


class Extraction:
    """One record on its way to an outcome. ``pictures`` are those of the record, loaded by who drives it; ``ranker``
    chooses what is shown of a long one."""

    __slots__ = (
        "_agreement",
        "_corrected",
        "_cut",
        "_data",
        "_draft",
        "_exemplified",
        "_final",
        "_first",
        "_focus",
        "_found_later",
        "_from_final",
        "_images",
        "_judge",
        "_last",
        "_last_problems",
        "_last_unreadable",
        "_look_ups",
        "_nulled",
        "_questions",
        "_ranker",
        "_recipe",
        "_record",
        "_repaired",
        "_request",
        "_routed",
        "_scores",
        "_shown_last",
        "_standing",
        "_trail",
        "outcome",
    )

    def __init__(
        self, recipe: Recipe, record: Record, pictures: Pictures = _NO_PICTURES, *, ranker: Ranker | None = None
    ) -> None:
        self._recipe = recipe
        self._record = record
        self._trail = Trail(limit=recipe.max_attempts, most_tokens=recipe.max_record_tokens)
        self._data: Any = None
        """The last answer that was JSON, when a correction works on it."""
        self._corrected: list[str] = []
        self._repaired = False
        self._last_problems: frozenset[tuple[str, str, str]] | None = None
        self._last_unreadable = False
        self._images = pictures.images
        shown, self._shown_last = recipe.shown(record)
        self._exemplified = bool(self._shown_last) or (recipe.policy.final or recipe.policy).tuned is not None
        """Whether the final model knows whole answers before it gives its own: examples, or what it was tuned on."""
        self._ranker = ranker
        asked = record.problem is None and pictures.problem is None
        self._focus = focus_of(recipe, record.text, ranker=ranker) if asked else None
        """What is shown of a record that is too long for one call."""
        self._nulled: tuple[str, ...] = ()
        """Paths that were made null before further chunks were looked at."""
        self._judge = Judge(recipe, record, pictured=bool(pictures.images), examples=shown, focus=self._focus)
        self._questions = Questions(recipe, record, pictures.images, first=shown, last=self._shown_last)
        self._final = FinalStage(recipe, self._judge)
        self._cut: _Cut | None = None
        """The answer whose rest is being asked for."""
        self._first: First | None = None
        """The answer that is being looked over a second time."""
        self._found_later: list[str] = []
        """Paths whose values came with the second look."""
        self._standing: Draft | None = None
        """The answer that stands while the first question is asked once more."""
        self._agreement: Agreement | None = None
        """What a second answer to the first question said alike, where one could be compared."""
        self._draft: Draft | None = None
        """The draft's answer while the final model is asked about it."""
        self._routed: tuple[str, ...] = ()
        self._from_final: list[str] = []
        """Paths whose values the final model wrote, or both did: the draft's calibration says nothing of them."""
        self._last: ChatRequest | None = None
        self._scores: dict[str, TokenScore] = {}
        """What the model thought of each value that it wrote."""
        self._request: ChatRequest | ToolRequest | None = None
        self._look_ups: LookUps | None = None
        """What is being looked up, before the first answer."""
        self.outcome: Outcome | None = None
        if record.problem is not None:
            self._fail(Reason.BAD_INPUT, record.problem)
            return
        if pictures.problem is not None:
            self._fail(pictures.problem.reason, pictures.problem.message)
            return
        if self._focus is not None:
            self._show(self._focus.first())
            self._begin()
            return
        length = estimate_tokens(record.text) if recipe.long_text == "whole" and len(record.text) > 1000 else 0
        # The estimate may be 15 % off: only what is surely too long is turned away unasked.
        if length * 0.8 > recipe.policy.max_input_tokens:
            self._fail(
                Reason.TOO_LONG,
                f"the record is about {length} tokens long ({len(record.text)} characters); "
                f"{recipe.policy.name} reads at most {recipe.policy.max_input_tokens}. "
                "Leave out --long-text whole, split it, or use a model with a longer context",
            )
            return
        self._begin()

    def _begin(self) -> None:
        """Ask the first question: for look-ups, where the recipe has any, else for the answer."""
        recipe = self._recipe
        first = self._request = self._questions.first()
        if recipe.tools is not None and recipe.asking is not None:
            self._look_ups = LookUps(recipe.tools, first, recipe.asking, record=self._record.fingerprint)
            self._request = self._look_ups.request

    def next_request(self) -> ChatRequest | ToolRequest | None:
        """The question to ask now, or the look-up to make, the same until it is answered; None once there is an
        outcome."""
        return self._request

    def receive(self, reply: ChatReply | CallError | ToolResult) -> None:
        """Take the answer to ``next_request()``. Raises ``RuntimeError`` when nothing was asked."""
        request = self._request
        if request is None:
            raise RuntimeError("receive() without an open request")
        self._request = None
        if self._look_ups is not None:
            self._receive_look_up(request, reply, self._look_ups)
            return
        if isinstance(request, ToolRequest) or isinstance(reply, ToolResult):
            raise RuntimeError("a look-up is not under way")
        # What follows is asked as the answer was, not as its second sample.
        self._last = (
            request if self._standing is None or self._last is None else replace(self._last, attempt=request.attempt)
        )
        self._trail.usage += reply.usage
        if isinstance(reply, CallError):
            self._trail.note(request, reply, raw=reply.body or None, error=f"{reply.kind}: {reply.message}")
            if reply.kind is ErrorKind.TOO_LONG and self._standing is None and self._show_less(request):
                return
            self._end_early(CALL_REASONS[reply.kind], reply.message)
        elif reply.finish_reason in ("content_filter", "refusal"):
            self._trail.note(request, reply, raw=reply.text, error="refused by the provider's filter")
            self._end_early(Reason.REFUSED, "the provider's content filter stopped the answer")
        elif self._standing is not None:
            self._receive_second(request, reply, self._standing)
        elif self._first is not None:
            self._receive_look(request, reply, self._first)
        elif self._draft is not None:
            self._receive_final(request, reply, self._draft)
        elif self._cut is not None and request.purpose is Purpose.CONTINUE:
            self._receive_rest(request, reply, self._cut)
        elif request.purpose in (Purpose.CORRECT, Purpose.ROUTE) and "" not in self._asked(request):
            self._receive_correction(request, reply)
        else:
            self._receive_whole(request, reply)

    # What came back -----------------------------------------------------------------------------

    def _receive_look_up(
        self, request: ChatRequest | ToolRequest, reply: ChatReply | CallError | ToolResult, look_ups: LookUps
    ) -> None:
        """What the model wants looked up, or what was found; once it wants no more, the answer is asked for."""
        if isinstance(request, ToolRequest):
            if not isinstance(reply, ToolResult):
                raise RuntimeError("a look-up was answered with a model's reply")
            look_ups.looked_up(request, reply)
        elif isinstance(reply, ToolResult):
            raise RuntimeError("a model's question was answered with a look-up's result")
        else:
            self._trail.usage += reply.usage
            if isinstance(reply, CallError):
                self._trail.note(request, reply, raw=reply.body or None, error=f"{reply.kind}: {reply.message}")
                self._fail(CALL_REASONS[reply.kind], reply.message)
                return
            called = "\n".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
            self._trail.note(request, reply, raw=called or reply.text, error=None)
            look_ups.answered(reply)
        if look_ups.request is not None and not self._trail.over_tokens:
            self._request = look_ups.request
            return
        self._look_ups = None
        if look_ups.failure is not None:
            self._fail(*look_ups.failure)
        elif self._trail.over_tokens:
            cap, used = self._recipe.max_record_tokens, self._trail.usage.total_tokens
            self._fail(
                Reason.BUDGET, f"the record used {used} of its {cap} tokens before its first answer, on look-ups"
            )
        else:
            self._questions.knowing(look_ups.found)
            self._judge.results = Results(look_ups.found) if look_ups.found else None
            self._request = self._questions.first()

    def _receive_whole(self, request: ChatRequest, reply: ChatReply) -> None:
        self._judge.written_out.clear()
        self._scores = self._token_scores(reply)
        self._wrote([""])
        verdict = self._judge.reply(reply.text, reply.finish_reason)
        if isinstance(verdict, Verdict):
            self._trail.note(request, reply, raw=reply.text, error="invalid" if verdict.invalid else None)
            self._take(request, verdict)
            return
        self._trail.note(request, reply, raw=reply.text, error=verdict.problem)
        start = self._beginning(reply, truncated=verdict.truncated)
        if start is None or not self._go_on(request, reply, verdict.problem, _Cut(start, request.shape, None)):
            self._unreadable(request, reply, verdict)

    def _receive_correction(self, request: ChatRequest, reply: ChatReply) -> None:
        answer = read_answer(reply.text, finish_reason=reply.finish_reason)
        asked = self._asked(request)
        if answer.json is None:
            self._trail.note(request, reply, raw=reply.text, error=answer.problem)
            start = self._beginning(reply, truncated=answer.truncated)
            if start is None or not self._go_on(request, reply, answer.problem, _Cut(start, request.shape, asked)):
                self._unreadable(request, reply, answer)
            return
        self._trail.note(request, reply, raw=reply.text, error=None)
        self._correct(request, loads_exact(answer.json), asked, self._token_scores(reply, pointers=True))

    def _correct(
        self, request: ChatRequest, values: Any, asked: Sequence[str], scores: Mapping[str, TokenScore] | None = None
    ) -> None:
        """The answer with the values that a correction gave; what was thought of those before them is gone with them."""
        self._data, changed = merge(self._data, values, asked)
        self._scores = {path: score for path, score in self._scores.items() if not inside(path, changed)}
        self._scores |= {path: score for path, score in (scores or {}).items() if inside(path, asked)}
        self._corrected.extend(path for path in changed if path not in self._corrected)
        self._wrote(asked)
        self._take(request, self._judge.data(self._data))

    def _receive_rest(self, request: ChatRequest, reply: ChatReply, cut: _Cut) -> None:
        """The rest of an answer that was cut off, which may be cut off as well."""
        answer = read_answer(reply.text, finish_reason=reply.finish_reason)
        self._cut = None
        if answer.json is None:
            self._trail.note(request, reply, raw=reply.text, error=answer.problem)
            looped = reply.finish_reason == "loop"
            more = beginning(reply.text) if answer.truncated or looped else None
            start = None if more is None else continued(cut.start, more, self._asked(request))
            start = None if start is None else self._unwound(start)
            longer = None if start is None or (looped and not start.closed) else replace(cut, start=start)
            if longer is None or not self._go_on(request, reply, answer.problem, longer):
                self._unreadable(request, reply, answer)
            return
        self._trail.note(request, reply, raw=reply.text, error=None)
        self._repaired = self._repaired or answer.unwrapped
        whole = extended(cut.start, answered(loads_exact(answer.json), self._asked(request))).value
        if cut.asked is None:
            self._take(request, self._judge.data(whole))
        else:
            self._correct(request, whole, cut.asked)

    def _receive_look(self, request: ChatRequest, reply: ChatReply, first: First) -> None:
        """What the second look found; the first answer stands whatever came back."""
        self._first = None
        answer = read_answer(reply.text, finish_reason=reply.finish_reason)
        self._trail.note(request, reply, raw=reply.text, error=answer.problem or None)
        if answer.json is None:
            self._settle(first.value, first.evidence, dumps_exact(first.data), self._nulled)
            return
        said = loads_exact(answer.json)
        self._data, value, changed = taken(
            first,
            said if self._focus is None else filled(said),
            validated=self._judge.allowed,
            grounded=self._judge.ground,
        )
        self._nulled = tuple(path for path in self._nulled if path not in changed)
        evidence: Sequence[Evidence] = self._judge.ground(value)
        self._corrected.extend(path for path in changed if path not in self._corrected)
        self._wrote(changed)
        self._found_later += changed
        found = self._token_scores(reply, pointers=True)
        self._scores = {path: score for path, score in self._scores.items() if not inside(path, changed)}
        self._scores |= {path: score for path, score in found.items() if inside(path, changed)}
        if changed:
            # What was taken is spelt, or dropped, by the rules that hold for a first answer.
            verdict = self._judge.data(self._data)
            if verdict.value is not None and verdict.reason is None:
                self._data, value, evidence = verdict.data, verdict.value, verdict.evidence
                self._repaired = self._repaired or verdict.repaired
                self._lose(verdict.items)
                self._nulled = (*self._nulled, *(path for path in verdict.nulled if path not in self._nulled))
        if not self._look_elsewhere(request, self._data, value, evidence):
            self._settle(value, evidence, dumps_exact(self._data), self._nulled)

    def _receive_second(self, request: ChatRequest, reply: ChatReply, standing: Draft) -> None:
        """A second answer to the first question, which the first is compared with; one that is not right tells nothing."""
        self._standing = None
        judge = self._judge
        verdict = judge.reply(reply.text, reply.finish_reason)
        if isinstance(verdict, Answer):
            self._trail.note(request, reply, raw=reply.text, error=verdict.problem)
        else:
            self._trail.note(request, reply, raw=reply.text, error="invalid" if verdict.invalid else None)
            # A value that stands nowhere is another one all the same.
            if verdict.value is not None and verdict.reason in (None, Reason.UNGROUNDED):
                self._agreement = compared(
                    answer_values(standing.value),
                    answer_values(verdict.value),
                    self._recipe.schema,
                    lost=(*standing.nulled, *verdict.nulled),
                    found_later=self._found_later,
                    # Their strings were longer than the grammar lets a first answer have them.
                    apart=judge.written_out,
                )
        self._settle_again(standing)

    def _receive_final(self, request: ChatRequest, reply: ChatReply, draft: Draft) -> None:
        """What the final model says of the doubtful fields; the draft stands where that is no better."""
        self._draft = None
        heard = self._final.heard(reply, draft, self._token_scores(reply, pointers=not draft.whole))
        better = self._final.improved(draft, heard, self._scores)
        used = better is not None and bool(better.changed)
        self._trail.note(request, reply, raw=reply.text, error=heard.problem or None, used=used)
        if better is None:
            self._succeed(draft.value, draft.evidence, draft.nulled)
            return
        self._data, self._scores = better.data, better.scores
        if self._agreement is not None:
            self._agreement = self._agreement.after(better.changed, better.agreed)
        self._repaired = self._repaired or better.repaired
        self._routed = (*self._routed, *(path for path in better.changed if path not in self._routed))
        self._corrected.extend(path for path in better.changed if path not in self._corrected)
        self._wrote((*better.changed, *better.agreed))
        self._succeed(better.value, better.evidence, better.nulled)

    # What follows from it -----------------------------------------------------------------------

    def _take(self, request: ChatRequest, verdict: Verdict) -> None:
        """An answer was judged: it is taken, looked over once more, or corrected."""
        self._repaired = self._repaired or verdict.repaired
        self._lose(verdict.items)
        if verdict.reason is not None:
            self._data = verdict.data
            self._ask_again(request, verdict.problems, verdict.reason)
        elif verdict.value is not None and not self._look_again(request, verdict.value, verdict):
            self._settle(verdict.value, verdict.evidence, verdict.text, verdict.nulled)

    def _lose(self, removals: Sequence[Sequence[str]]) -> None:
        """Items are gone from their lists: what is known by path goes with them, or moves up."""
        for items in removals:
            self._scores = moved(self._scores, items)
            self._corrected = moved_paths(self._corrected, items)
            self._nulled = tuple(moved_paths(self._nulled, items))
            self._from_final = moved_paths(self._from_final, items)

    def _wrote(self, paths: Sequence[str]) -> None:
        """Values came at these paths; it matters whether they are the final model's."""
        if self._questions.final:
            self._from_final.extend(paths)

    def _settle(self, value: BaseModel, evidence: Sequence[Evidence], text: str, nulled: Sequence[str] = ()) -> None:
        """The answer is as right as this model gets it: it is asked once more where agreement counts, and what it is not sure
        of goes to the final one, if there is."""
        if self._last is not None and self._asks_twice(self._last):
            self._standing = Draft(loads_exact(text), value, evidence, (), tuple(nulled))
            self._request = self._questions.again(self._last)
            return
        last = self._before_the_final
        asked = None
        if last is not None:
            draft = Draft(loads_exact(text), value, evidence, (), tuple(nulled))
            whole = self._exemplified and self._focus is None
            disagreed = () if self._agreement is None else self._agreement.disagreed
            asked = self._final.about(draft, self._confidence(evidence, nulled), whole=whole, disagreed=disagreed)
        if last is None or asked is None:
            self._succeed(value, evidence, nulled)
            return
        self._draft, shape = asked
        self._routed = paths = self._draft.paths
        self._judge.show(self._shown_last)
        if self._focus is not None:
            self._show(
                self._focus.about(paths, [one.start for one in evidence if one.start is not None and one.path in paths])
            )
        self._request = self._questions.routed(last, shape)

    def _settle_again(self, standing: Draft) -> None:
        """What stood while something else was asked."""
        self._settle(standing.value, standing.evidence, dumps_exact(standing.data), standing.nulled)

    def _asks_twice(self, last: ChatRequest) -> bool:
        """Whether the first question is asked once more after ``last``: once, of the model that answers first, where attempts
        and tokens allow it. Of a long record only parts were shown, not the same ones for every field."""
        return (
            self._recipe.agreement == "always"
            and self._focus is None
            and not self._questions.final
            and not self._trail.asked_for(Purpose.AGREE)
            and last.attempt < self._trail.limit
            and not self._trail.over_tokens
        )

    def _handed_over(self, problems: Sequence[FieldProblem], reason: Reason) -> bool:
        """Give a draft that could not be put right to the final model. False where there is none to take it."""
        last = self._before_the_final
        if last is None or reason not in FOR_THE_FINAL:
            return False
        self._trail.limit = last.attempt + self._recipe.max_attempts
        self._last_problems, self._last_unreadable = None, False
        handed = self._final.handed(problems if self._data is not None else ())
        self._routed = handed.paths
        self._judge.show(self._shown_last)
        if handed.problems:
            self._request = self._questions.handed_over(last, handed.problems, handed.shape)
        else:
            self._data = None
            self._request = self._questions.routed(last, handed.shape)
        return True

    @property
    def _before_the_final(self) -> ChatRequest | None:
        """The last question, where a final model may still be asked after it."""
        if self._recipe.policy.final is None or self._questions.final or self._trail.over_tokens:
            return None
        return self._last

    def _ask_again(self, request: ChatRequest, problems: Sequence[FieldProblem], reason: Reason) -> None:
        """Correct the failing paths, unless that was tried in vain."""
        seen = signature(problems)
        if seen == self._last_problems:
            self._give_up(problems, reason, "the same error came back after a correction")
            return
        self._last_problems = seen
        if not self._may_ask(request, problems, reason):
            return
        asked = correctable(problems)
        paths = tuple(dict.fromkeys(problem.path for problem in asked))
        # The grammar would cut a string off again; the schema's own mode has no such limit.
        free = reason is Reason.TRUNCATED
        if free:
            self._judge.written_out.update(paths)
        shape = self._recipe.correction_shape(paths, mode=Mode.JSON_SCHEMA if free else self._questions.whole.mode)
        if shape.schema is self._recipe.shape.schema:
            paths = ("",)
            asked = [
                FieldProblem("", p.error, f"{p.path}: {p.message}" if p.path else p.message, p.value) for p in asked
            ]
        self._request = self._questions.correction(request, asked, shape)

    def _beginning(self, reply: ChatReply, *, truncated: bool) -> Beginning | None:
        """What there is to go on from of an answer that was cut off, or was stopped because a list of it went round."""
        looped = reply.finish_reason == "loop"
        plain = beginning(reply.text) if truncated or looped else None
        if plain is None:
            return None
        start = self._unwound(plain)
        if self._recipe.shape.text_order:
            start = joining(reply.text, plain, start)
        return start if start.closed or not looped else None

    def _unwound(self, start: Beginning) -> Beginning:
        """The beginning with its list closed, where that went round in circles."""
        circle = unwound(start, self._record.text)
        if circle is None:
            return start
        closed, gone = circle
        self._repaired, self._scores = True, moved(self._scores, gone)
        return closed

    def _go_on(self, request: ChatRequest, reply: ChatReply, problem: str, cut: _Cut) -> bool:
        """Ask for the rest of an answer that was cut off inside of a list. False where the list is none of the
        schema's; settles the outcome when no call is left for it."""
        try:
            shape = self._recipe.rest_shape(cut.shape, cut.start)
        except (KeyError, SchemaError):
            return False
        if not shape.schema["properties"]:
            if cut.asked is None:
                self._take(request, self._judge.data(cut.start.value))
            else:
                self._correct(request, cut.start.value, cut.asked)
            return True
        if cut.asked is None:
            self._data = cut.start.value
        if not self._may_ask(request, (), Reason.TRUNCATED, problem):
            return True
        self._cut = cut
        room = request.max_output_tokens
        if reply.finish_reason == "length":
            # What did not fit once may be long: more room means fewer parts, and only what is used is paid.
            room = min(room * 2, self._recipe.policy.max_output_tokens)
        self._request = self._questions.rest(request, cut.start, shape, room=room)
        return True

    def _look_again(self, request: ChatRequest, value: BaseModel, verdict: Verdict) -> bool:
        """Ask a second time for what is missing or doubtful, once, where attempts and tokens allow it."""
        recipe = self._recipe
        if self._focus is not None:
            return self._look_elsewhere(request, verdict.data, value, verdict.evidence, verdict.nulled)
        if (
            not recipe.looks_twice(self._images)
            or self._trail.asked_for(Purpose.LOOK)
            or request.attempt >= self._trail.limit
            or self._trail.over_tokens
        ):
            return False
        data = verdict.data
        first = First(
            data,
            value,
            verdict.evidence,
            missing=tuple(missing_paths(data, recipe.schema)),
            doubtful=tuple(doubtful_paths(verdict.evidence, recipe.schema)),
        )
        shape = recipe.correction_shape(first.paths) if first.paths else recipe.shape
        if shape is recipe.shape:
            return False
        self._first, self._nulled = first, tuple(verdict.nulled)
        self._request = self._questions.look(request, shape)
        return True

    def _look_elsewhere(
        self,
        request: ChatRequest,
        data: Any,
        value: BaseModel,
        evidence: Sequence[Evidence],
        nulled: Sequence[str] = (),
    ) -> bool:
        """Ask for what is missing or doubtful in chunks of a long record that were not shown yet."""
        recipe = self._recipe
        self._nulled = tuple(nulled) or self._nulled
        if self._focus is None or request.attempt >= self._trail.limit or self._trail.over_tokens:
            return False
        first = first_of(recipe, data, value, evidence, self._nulled)
        shape = recipe.correction_shape(first.paths, mode=self._questions.whole.mode) if first.paths else recipe.shape
        if shape.schema is recipe.shape.schema:
            return False
        shown = self._focus.another(first.paths)
        if shown is None:
            return False
        self._first = first
        self._show(shown)
        self._request = self._questions.look(request, shape)
        return True

    def _show_less(self, request: ChatRequest) -> bool:
        """Ask again with fewer examples, or at first with less of the text, whichever is longer: the model takes less than
        is known of it."""
        if request.attempt >= self._trail.limit:
            return False
        focus = None
        examples = sum(example.tokens for example in self._questions.examples)
        if request.purpose is Purpose.EXTRACT:
            shown = estimate_tokens(self._record.text) if self._focus is None else self._focus.budget
            if shown >= examples:
                focus = narrowed(self._recipe, self._record.text, self._focus, ranker=self._ranker)
        if focus is None:
            return self._show_fewer(request)
        self._focus = focus
        self._judge.focus(focus)
        self._show(focus.first())
        self._request = replace(self._questions.first(), attempt=request.attempt + 1)
        return True

    def _show_fewer(self, request: ChatRequest) -> bool:
        """Ask again with fewer examples; False where there are none, or no call is left."""
        if not self._questions.examples or request.attempt >= self._trail.limit:
            return False
        self._request = self._questions.with_fewer(request)
        self._judge.show(self._questions.examples)
        return True

    def _show(self, shown: Shown) -> None:
        """Let the questions show these chunks from here on."""
        text = self._record.text
        self._questions.show(shown.text, "\n\n".join(text[start:end] for start, end in shown.ranges))

    def _unreadable(self, request: ChatRequest, reply: ChatReply, answer: Answer) -> None:
        """The answer was no JSON object: ask for the whole again, once with more room if it was cut."""
        problem = answer.problem
        if answer.refusal:
            self._fail(Reason.REFUSED, "the model declined to answer; its words are in the attempts")
            return
        # A stream that was lost had room enough: the same question again.
        truncated = answer.truncated and reply.finish_reason == "length"
        reason = Reason.TRUNCATED if truncated else Reason.UNAVAILABLE if answer.truncated else Reason.NOT_JSON
        room = request.max_output_tokens
        # Cut off before its own limit: prompt and answer together are more than the server holds.
        full = truncated and 0 < reply.usage.output_tokens < room
        if full and self._show_fewer(request):
            return
        if truncated:
            room = min(room * 2, self._recipe.policy.max_output_tokens)
            if room == request.max_output_tokens:
                self._fail(reason, f"the answer was cut off at the model's output limit of {room} tokens")
                return
        elif self._last_unreadable:
            self._fail(reason, f"the answer could not be read twice in a row: {problem}")
            return
        self._last_unreadable = True
        if self._may_ask(request, (), reason, problem):
            self._data, self._last_problems = None, None
            said = None if answer.truncated else problem
            self._request = self._questions.whole_again(request, said, room=room)

    def _may_ask(
        self, request: ChatRequest, problems: Sequence[FieldProblem], reason: Reason, problem: str = ""
    ) -> bool:
        """Whether attempts and tokens allow one more call; settles the outcome when they do not."""
        if request.attempt >= self._trail.limit:
            why = f"not right after {request.attempt} attempts"
            if problems:
                self._give_up(problems, reason, why)
            else:
                self._fail(reason, f"{why}: {problem}")
            return False
        if self._trail.over_tokens:
            cap, used = self._recipe.max_record_tokens, self._trail.usage.total_tokens
            self._fail(Reason.BUDGET, f"the record used {used} of its {cap} tokens", problems)
            return False
        return True

    def _give_up(self, problems: Sequence[FieldProblem], reason: Reason, why: str) -> None:
        """No more corrections. Ungrounded values become null where the policy and the schema allow it, which a final model
        is asked about with all else that is doubtful."""
        if reason is Reason.UNGROUNDED and self._recipe.evidence_policy != "fail":
            wrong = [problem.path for problem in problems]
            data, paths, items = dropped(self._data, wrong, self._recipe.schema, objects=True)
            value = self._judge.fitting(data)
            if value is not None:
                self._lose((items,))
                evidence = self._judge.ground(value)
                if self._last is None or not self._look_elsewhere(self._last, data, value, evidence, paths):
                    self._settle(value, evidence, dumps_exact(data), paths)
                return
            why = f"{why}; and null is not allowed there"
        named = ", ".join(problem.path or "the whole answer" for problem in problems)
        self._fail(reason, f"{why}: {named}: {problems[0].message}", problems)

    # The end ------------------------------------------------------------------------------------

    def _succeed(self, value: BaseModel, evidence: Sequence[Evidence], nulled: Sequence[str] = ()) -> None:
        self.outcome = Extracted(
            value=value,
            evidence=evidence,
            model=self._answerers(),
            attempts=self._trail.attempts,
            usage=self._trail.usage,
            corrected=tuple(path for path in self._corrected if path not in nulled),
            nulled=tuple(nulled),
            repaired=self._repaired,
            confidence=self._confidence(evidence, nulled),
            routed=self._routed,
        )

    def _answerers(self) -> str:
        """Who wrote the values: one model, or the draft's and the final's with a plus between them."""
        givers = self._trail.givers
        return "+".join(dict.fromkeys(givers)) if self._routed not in ((), ("",)) else givers[-1]

    def _end_early(self, reason: Reason, message: str) -> None:
        """No answer came: a failure, unless an answer stands that was only looked over."""
        if self._first is not None:
            first, self._first = self._first, None
            self._settle(first.value, first.evidence, dumps_exact(first.data), self._nulled)
        elif self._standing is not None:
            standing, self._standing = self._standing, None
            self._settle_again(standing)
        elif self._draft is not None:
            self._succeed(self._draft.value, self._draft.evidence, self._draft.nulled)
        else:
            self._fail(reason, message)

    def _fail(self, reason: Reason, message: str, problems: Sequence[FieldProblem] = ()) -> None:
        if self._handed_over(problems, reason):
            return
        self.outcome = Failed(
            reason=reason,
            message=message,
            model=self._trail.attempts[-1].model if self._trail.attempts else self._recipe.policy.name,
            problems=tuple(problems),
            attempts=self._trail.attempts,
            usage=self._trail.usage,
            partial=self._data,
        )

    # Small things -------------------------------------------------------------------------------

    def _token_scores(self, reply: ChatReply, *, pointers: bool = False) -> dict[str, TokenScore]:
        if reply.logprobs is None or self._recipe.confidence != "auto":
            return {}
        start = reply.text.find("{")
        # In a whole answer that leaves nulls out, a key is a choice.
        keys = self._recipe.shape.omit_nulls and not pointers
        if self._recipe.shape.text_order and not pointers:
            answer = read_answer(reply.text, finish_reason=reply.finish_reason)
            if answer.json is not None and joined_keys(answer.json) is not None:
                # What is joined of several places has none of its own.
                return {}
        return token_scores(reply.text, reply.logprobs, start=max(start, 0), pointers=pointers, keys=keys)

    def _confidence(self, evidence: Sequence[Evidence], nulled: Sequence[str]) -> dict[str, float]:
        recipe = self._recipe
        if recipe.confidence == "never":
            return {}
        scores = {path: score for path, score in self._scores.items() if path not in nulled}
        return confidence_of(
            evidence, scores, recipe.schema, recipe.calibration, self._agreement, uncalibrated=self._from_final
        )

    def _asked(self, request: ChatRequest) -> tuple[str, ...]:
        # The same schema, though its grammar may be this record's own.
        if request.shape.schema is self._recipe.shape.schema:
            return ("",)
        return tuple(request.shape.schema["properties"])
