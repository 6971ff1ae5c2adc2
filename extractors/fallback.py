"""When a model does not take what was sent: the next mode, or another thinking switch, once for the run.

A call that ends as ``UNSUPPORTED`` names a way of asking, not a record: every other call would fail in the same
way. The first one to come back moves the model on; those that were in flight see that it has moved and just
ask again. Messages stay as they are, since prompts state the fields in every mode; only the shape differs.

The request that the engine journals is the one in the recipe's mode, so neither the recipe id nor a replay depends
on what was learned. What was truly sent is told by the result's ``mode``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from extractors.errors import BudgetReached
from extractors.learned import Learned, Lesson, Switch
from extractors.qwen.fitting import SEEN_ACCEPTED
from extractors.qwen.modes import compile_shape, with_the_word_json
from extractors.qwen.regions import host_of
from extractors.qwen.requests import AnswerShape, Call, CallError, ChatReply, ChatRequest, ErrorKind, Mode

if TYPE_CHECKING:
    from extractors.endpoint import Endpoint

logger = logging.getLogger(__name__)

_MOST_STEPS = 8
_MOST_SHAPES = 512
_SAID = 300
_CLASH = re.compile(r"when enable_thinking is true|in thinking mode")
_MUST_THINK = re.compile(r"enable_thinking.{0,60}restricted to true")
_MUST_NOT = re.compile(r"enable_thinking must be (set to )?false")
_NO_SWITCH = re.compile(
    r"notsupportenablethinking|not support.{0,40}enable_thinking|enable_thinking.{0,60}(not support|unsupported|unknown)"
)
_STREAM_ONLY = re.compile(r"only support stream")


class ModeFallback:
    """Finds a way of asking which the model takes. Two ``Call`` wrappers share what it knows::

        fallback = ModeFallback(modes, host=..., learned=...)
        call = fallback.asking(Retrying(Limited(fallback.shaping(transport))))

    ``shaping`` gives each request its shape at the last moment, so that one which queued for a slot while another
    was refused goes the new way at once. ``asking`` asks again what was refused; it stands outside of the retries
    and the limits, since it is another question, which both must see.

    ``modes`` are tried in order; with one mode there is nothing to move on to, and its refusal is the call's result.
    ``host`` and ``learned`` say where lessons are kept, and ``keywords`` what a strict schema may hold.
    """

    def __init__(
        self,
        modes: Sequence[Mode],
        *,
        host: str = "",
        learned: Learned | None = None,
        keywords: Sequence[str] = SEEN_ACCEPTED,
    ) -> None:
        self._modes = tuple(modes)
        self._host = host
        self._learned = learned or Learned()
        self._keywords = keywords
        self._lessons: dict[str, Lesson] = {}
        self._shapes: dict[tuple[int, Mode], tuple[AnswerShape, AnswerShape]] = {}
        self._sent: dict[int, ChatRequest] = {}
        """What went out for a request in flight, by the request's ``id``."""

    @classmethod
    def of(cls, endpoint: Endpoint, address: str) -> ModeFallback:
        """The fallback that an endpoint's profile and the user's file of lessons describe."""
        return cls(endpoint.modes, host=host_of(address), learned=endpoint.learned, keywords=endpoint.policy.keywords)

    def shaping(self, call: Call) -> Call:
        """``call``, given every request as it may be sent now."""

        async def shaped(request: ChatRequest) -> ChatReply | CallError:
            sent = self._as_it_may_be_sent(request)
            self._sent[id(request)] = sent
            result = await call(sent)
            return result if sent.shape.mode is request.shape.mode else replace(result, mode=sent.shape.mode)

        return shaped

    def asking(self, call: Call) -> Call:
        """``call``, asked again in another way where it refuses this one."""

        async def asked(request: ChatRequest) -> ChatReply | CallError:
            refusals: list[CallError] = []
            for _ in range(_MOST_STEPS):
                try:
                    result = await call(request)
                except BudgetReached as reached:
                    reached.earlier = (*refusals, *reached.earlier)
                    raise
                finally:
                    sent = self._sent.pop(id(request), request)
                if not (isinstance(result, CallError) and result.kind is ErrorKind.UNSUPPORTED):
                    break
                if not self._moved_on(sent, result):
                    break
                refusals += [*result.earlier, replace(result, earlier=())]
            return replace(result, earlier=(*refusals, *result.earlier)) if refusals else result

        return asked

    def _as_it_may_be_sent(self, request: ChatRequest) -> ChatRequest:
        lesson = self._lesson(request.model)
        thinking, budget = request.thinking, request.thinking_budget
        if lesson.switch is not None:
            thinking = {"omit": None, "on": True, "off": False}[lesson.switch]
            budget = budget if thinking else None
        mode = self._mode(lesson, request, thinking=bool(thinking))
        if mode is not request.shape.mode:
            request = replace(request, shape=self._shape(request.shape, mode))
        if thinking is not request.thinking or budget != request.thinking_budget:
            request = replace(request, thinking=thinking, thinking_budget=budget)
        return with_the_word_json(request)

    def _lesson(self, model: str) -> Lesson:
        lesson = self._lessons.get(model)
        if lesson is None:
            lesson = self._lessons[model] = self._learned.about(self._host, model)
        return lesson

    def _mode(self, lesson: Lesson, request: ChatRequest, *, thinking: bool) -> Mode:
        """The first mode that was not refused; the request's own where all were."""
        refused = lesson.modes(thinking=thinking)
        wanted = request.shape.mode
        if wanted not in refused or request.tools:
            return wanted
        return next((mode for mode in self._modes if mode not in refused), wanted)

    def _shape(self, shape: AnswerShape, mode: Mode) -> AnswerShape:
        """The same structure in another mode; compiled once for each shape of the recipe."""
        key = (id(shape), mode)
        known = self._shapes.get(key)
        # The first of the pair keeps its id from being given to another shape.
        if known is None or known[0] is not shape:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            made = compile_shape(
                shape.name,
                shape.schema,
                mode,
                keywords=self._keywords,
                omit_nulls=shape.omit_nulls,
                text_order=shape.text_order,
            )
            known = self._shapes[key] = (shape, made)
        return known[1]

    def _moved_on(self, sent: ChatRequest, error: CallError) -> bool:
        """Learn from a refusal. False where there is nothing left to try."""
        lesson = self._lesson(sent.model)
        cure = _cure(sent, error)
        if cure is None or (cure == "mode" and sent.tools):
            # No other mode makes a model take tools that it does not take.
            return False
        if cure != "mode" and lesson.switch not in (None, cure):
            cure = "mode"  # both ways of the switch are refused: it is not the switch
        if cure != "mode":
            if lesson.switch == cure:
                return sent.thinking is not _VALUES[cure]  # false: it was sent so, and refused
            better = replace(lesson, switch=cure)
            now = {"omit": "without the thinking switch", "on": "with thinking on", "off": "with thinking off"}[cure]
        else:
            mode, thinking = sent.shape.mode, bool(sent.thinking)
            if mode in lesson.modes(thinking=thinking):
                return self._mode(lesson, sent, thinking=thinking) is not mode
            better = lesson.refusing(mode, thinking=thinking)
            following = self._mode(better, sent, thinking=thinking)
            if following is mode:
                return False
            now = f"in {following.value} mode in the place of {mode.value}"
        said = " ".join(error.message.split())[:_SAID]
        self._lessons[sent.model] = better = replace(better, said=said)
        self._learned.note(self._host, sent.model, better)
        logger.warning(
            "%s at %s is asked %s from now on; it said: %s (`quarry model forget %s` undoes this)",
            sent.model,
            self._host or "this address",
            now,
            said,
            sent.model,
        )
        return True


_VALUES: dict[str, bool | None] = {"omit": None, "on": True, "off": False}


def _cure(sent: ChatRequest, error: CallError) -> Switch | Literal["mode"] | None:
    """What a refusal asks for: another mode, another value of the thinking switch, or nothing that is known here.
    The provider's texts are those of its error pages."""
    words = f"{error.code or ''} {error.message} {error.body}".lower()
    if _STREAM_ONLY.search(words):
        return None
    if _CLASH.search(words):
        # Nobody asked it to think: it does so by default, and can be told not to.
        return "mode" if sent.thinking is not None else "off"
    if _MUST_THINK.search(words):
        return "on"
    if _MUST_NOT.search(words):
        return "off" if not sent.thinking else None
    if _NO_SWITCH.search(words) and sent.thinking is not None:
        # Without the switch it would not think, which is not what was asked for.
        return None if sent.thinking else "omit"
    return "mode"
