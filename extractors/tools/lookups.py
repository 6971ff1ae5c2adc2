"""Before the first answer: the model calls functions, their results go back, until it wants no more.

Pure, as ``extractors.extraction`` is, which drives it. Two phases work in every dialect and on every server, where
tools beside a response format or a grammar do not: first the look-ups, asked with tools and no format; then the
answer, in the recipe's own mode and without tools, with the results behind the record.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from dataclasses import replace
from typing import Any

from extractors.qwen.requests import AnswerShape, ChatReply, ChatRequest, Message, Mode, Purpose, ToolCall
from extractors.tools.requests import ToolRequest, ToolResult, Trouble
from extractors.tools.toolbox import Toolbox
from extractors.tools.words import Found, asked
from extractors.tools.written import written_calls
from schemas.outcomes import Reason

_SHAPE = AnswerShape("look_ups", {}, Mode.PROMPTED)
_MOST_OUTPUT = 1024
"""Tokens of a reply that asks for look-ups."""
_REASONS = {
    Trouble.UNKNOWN: Reason.INVALID,
    Trouble.ARGUMENTS: Reason.INVALID,
    Trouble.RESULT: Reason.INVALID,
    Trouble.TIMED_OUT: Reason.TIMED_OUT,
    Trouble.RAISED: Reason.UNAVAILABLE,
}


class LookUps:
    """The look-ups of one record. ``request`` is what is asked now: of the model, or of a function; None at the end,
    when ``found`` is all that was looked up. ``failure`` says why the record failed."""

    __slots__ = (
        "_asked", "_last", "_messages", "_new", "_record", "_round", "_shown", "_told", "_toolbox", "_waiting",
        "failure", "found", "request",
    )  # fmt: skip

    def __init__(self, toolbox: Toolbox, first: ChatRequest, system: Message, *, record: str) -> None:
        """``first`` is the question for the answer, whose last message is the record's; ``record`` is its fingerprint."""
        self._toolbox = toolbox
        self._record = record
        self._shown = hashlib.sha256(first.messages[-1].content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._waiting: deque[ToolCall] = deque()
        """Calls of the last reply that have no result yet."""
        self._round: list[Message] = []
        """The results of the last reply's calls."""
        self._asked: dict[tuple[str, str], Found] = {}
        self._told: set[tuple[str, Trouble]] = set()
        """Which troubles the model was told of."""
        self._new: set[tuple[str, Trouble]] = set()
        """Which it will be told of with the last reply's results."""
        self.found: list[Found] = []
        self.failure: tuple[Reason, str] | None = None
        self._messages: tuple[Message, ...] = (system, asked(first.messages[-1]))
        self._last = replace(
            first,
            messages=self._messages,
            shape=_SHAPE,
            purpose=Purpose.LOOKUP,
            max_output_tokens=min(first.max_output_tokens, _MOST_OUTPUT),
            logprobs=False,
            tools=toolbox.specs,
        )
        self.request: ChatRequest | ToolRequest | None = self._last

    def answered(self, reply: ChatReply) -> None:
        """Take what the model says: calls, or that it wants none (any words without a call)."""
        calls = reply.tool_calls or written_calls(reply.text, self._toolbox.tools)
        calls = tuple(replace(call, arguments=_tidy(call.arguments)) for call in calls)
        if all((call.name, call.arguments) in self._asked for call in calls):
            # Nothing new: it is done, or goes in circles.
            self.request = None
            return
        self._waiting.extend(calls)
        said = reply.text if reply.tool_calls else ""
        sendable = tuple(replace(call, arguments=_sendable(call.arguments)) for call in calls)
        self._messages = (*self._messages, Message("assistant", said, tool_calls=sendable))
        self._next()

    def looked_up(self, request: ToolRequest, result: ToolResult) -> None:
        """Take what came of a look-up."""
        call = self._waiting.popleft()
        if result.trouble is not None:
            trouble = ("" if result.trouble is Trouble.UNKNOWN else call.name, result.trouble)
            if trouble in self._told:
                self.request = None
                why = (
                    f"the look-up {call.name}({_clipped(call.arguments)}) failed again after the model was told of it: "
                )
                self.failure = (_REASONS[result.trouble], why + result.message)
                return
            self._new.add(trouble)
        found = Found(request.step, call.name, call.arguments, result.text, result.message)
        self._asked[(call.name, call.arguments)] = found
        self.found.append(found)
        self._answer(call, found)
        self._next()

    def _next(self) -> None:
        """The next look-up of the last reply, or the next question; nothing when all steps are used."""
        while self._waiting:
            call = self._waiting[0]
            known = self._asked.get((call.name, call.arguments))
            if known is None:
                break
            self._answer(self._waiting.popleft(), known)
        steps = len(self.found)
        if steps >= self._toolbox.most_steps:
            self.request = None
        elif self._waiting:
            call = self._waiting[0]
            self.request = ToolRequest(
                self._record, steps + 1, call.name, call.arguments, self._last.model, self._shown
            )
        else:
            self._messages = (*self._messages, *self._round)
            self._round = []
            self._told |= self._new
            self._last = replace(self._last, messages=self._messages, attempt=self._last.attempt + 1)
            self.request = self._last

    def _answer(self, call: ToolCall, found: Found) -> None:
        told = found.result if found.result is not None else json.dumps({"error": found.problem}, ensure_ascii=False)
        self._round.append(Message("tool", told, tool_call_id=call.id))


def _tidy(arguments: str) -> str:
    """Arguments in one spelling, so that the same call is known again; what is no JSON stays as it is."""
    try:
        told = _loads(arguments)
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments
    # Half of a pair of surrogates can be escaped, and not be sent or kept otherwise.
    return json.dumps(told, separators=(",", ":")) if re.search("[\ud800-\udfff]", text) else text


def _sendable(arguments: str) -> str:
    """Arguments as they may be sent back: servers read them as JSON and break on what is none."""
    return arguments if arguments.startswith("{") and _is_json(arguments) else "{}"


def _is_json(text: str) -> bool:
    try:
        _loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _loads(text: str) -> Any:
    """JSON as servers read it: without NaN and Infinity. Raises ``ValueError``, ``RecursionError``."""
    return json.loads(text, parse_constant=_refused)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _clipped(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
