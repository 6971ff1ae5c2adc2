"""A streamed reply, put together from its events: what a dialect's ``take`` reads goes into one ``StreamReader``.

Pure: the transport feeds it and decides when to stop. An error frame is the error of the table; usage is that of the
last event that told one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extractors.continuation import beginning, goes_round
from extractors.qwen.json_end import JsonEnd
from extractors.qwen.loops import LoopWatch
from extractors.qwen.prices import Pricing
from extractors.qwen.replies import error_in, finished, garbled, logprobs_of, usage_in
from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from extractors.qwen.sse import Event
from extractors.qwen.tool_calls import Calls
from extractors.qwen.wire import load
from schemas.usage import Usage

Take = Callable[["StreamReader", Mapping[str, Any], Event], None]
"""Reads one event's JSON object into the reader. It may raise ``KeyError``, ``TypeError``, ``ValueError``,
``IndexError`` or ``AttributeError`` for what is not of its protocol."""

_FIRST_LOOK = 100
"""Characters of an answer before its lists are looked at."""
_NEXT_LOOK = 60
"""Further characters until the next look, at least."""
_NO_HEADERS: Mapping[str, str] = {}


class StreamReader:
    """Collects a stream. ``ended`` is true once the other side has said all; then ``result`` is the reply.

    ``json`` follows the answer and ``loop`` watches it, so that the transport can stop early. ``record`` is that of
    the request: lists that go round in circles are watched for where it is known."""

    __slots__ = (
        "_copied",
        "_pricing",
        "_record",
        "_seen",
        "_take",
        "_watched",
        "calls",
        "ended",
        "error",
        "json",
        "loop",
        "model",
        "reason",
        "refusal",
        "source",
        "strange",
        "text",
        "thinking",
        "thinking_loop",
        "tokens",
        "told",
    )

    def __init__(
        self, take: Take, *, model: str, pricing: Pricing, tools: bool = False, record: str | None = None
    ) -> None:
        self._take = take
        self._pricing = pricing
        self._record = record
        self._seen, self._watched = 0, _FIRST_LOOK
        self.model = model
        self.calls = Calls() if tools else None
        """The calls that the model asks for; None where a call is its way to answer."""
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.refusal: list[str] = []
        self.tokens: list[Any] = []
        """The answer's tokens with their logarithmic probabilities, as they came."""
        self._copied = 0
        """How many of them were copied."""
        self.reason = ""
        self.told: Mapping[str, Any] | None = None
        """The ``usage`` of the last event that had one."""
        self.source: object = None
        """Which of several tool calls is the answer, where a dialect names them."""
        self.error: CallError | None = None
        self.ended = False
        self.strange: bytes | None = None
        """The first event that was not of the protocol."""
        self.json = JsonEnd()
        self.loop = LoopWatch()
        self.thinking_loop = LoopWatch()

    def feed(self, event: Event) -> None:
        """Read one event. Never raises; what cannot be read is kept in ``strange``."""
        if self.error is not None:
            return
        data = event.data
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            self._read(load(data), event)
        except ValueError:
            if b"\n" not in data:
                self._odd(data)
                return
            # Some gateways forget the empty lines between their frames.
            for line in data.split(b"\n"):
                self.feed(Event(line, event.name, event.status))

    def _read(self, frame: Any, event: Event) -> None:
        if not isinstance(frame, dict):
            self._odd(event.data)
            return
        try:
            self._take(self, frame, event)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            self._odd(event.data)

    def _odd(self, data: bytes) -> None:
        if self.strange is None:
            self.strange = data

    # What a dialect calls ------------------------------------------------------------------------

    def answer(self, piece: str) -> None:
        """More of the answer. Raises ``TypeError`` for what is not text, as the next two do."""
        if _text(piece):
            self.text.append(piece)
            if self.calls is None:
                # Behind words that happen to be JSON a call may come.
                self.json.feed(piece)
            self.loop.feed(piece)
            self._seen += len(piece)
            if self._record is not None and self._seen >= self._watched and not self.loop.found:
                self._look_at_lists(self._record)

    def _look_at_lists(self, record: str) -> None:
        # Each look reads all that there is, so the next one is a quarter of it away.
        self._watched = self._seen + max(_NEXT_LOOK, self._seen // 4)
        if goes_round("".join(self.text), record):
            self.loop.found = "list"

    def spelt(self, tokens: Sequence[Any], piece: str) -> None:
        """The tokens of a piece of the answer. llama.cpp tells none for what it copied and agreed to without weighing it
        (speculation); in a whole reply such tokens have a probability of 1."""
        if piece and not tokens:
            self._copied += 1
            tokens = [{"token": piece, "logprob": 0.0}]
        self.tokens.extend(tokens)

    def thought(self, piece: str) -> None:
        """More of what was thought before it."""
        if _text(piece):
            self.thinking.append(piece)
            self.thinking_loop.feed(piece)

    def refused(self, piece: str) -> None:
        """More of the words in which the model declines."""
        if _text(piece):
            self.refusal.append(piece)

    def fail(self, frame: Mapping[str, Any], event: Event, *, status: int = 200) -> None:
        """The event is an error: judged like a reply of this status with this body."""
        self.error = error_in(
            event.status or status,
            _NO_HEADERS,
            frame,
            event.data,
            model=self.model,
            pricing=self._pricing,
            missing="choices",
        )
        self.ended = True

    # What the transport asks ---------------------------------------------------------------------

    @property
    def looping(self) -> bool:
        """Whether the answer, or the thinking, goes in circles."""
        return bool(self.loop.found or self.thinking_loop.found)

    @property
    def worth_keeping(self) -> bool:
        """Whether what is there can be gone on with: it ends inside of a list with at least one whole item. Of
        anything less the whole must be asked again, which a fresh try does better."""
        return beginning("".join(self.text)) is not None

    @property
    def usage(self) -> Usage:
        """The usage told so far, with its cost."""
        return usage_in({"usage": self.told}, self._pricing)

    @property
    def _weighed(self) -> list[Any]:
        """The tokens, where any of them was weighed."""
        return self.tokens if len(self.tokens) > self._copied else []

    def result(self, *, headers: Mapping[str, str] = _NO_HEADERS) -> ChatReply | CallError:
        """The reply of a stream that has ended by itself."""
        if self.error is not None:
            return self.error
        if not (self.text or self.thinking or self.reason or self.refusal or self.calls):
            body = self.strange or b""
            what = "the stream is not of this protocol" if body else "the stream has no answer in it"
            return garbled(what, 200, body, model=self.model, usage=self.usage)
        return finished(
            "".join(self.text),
            self.reason or "stop",
            usage=self.usage,
            model=self.model,
            headers=headers,
            thinking="".join(self.thinking),
            refusal="".join(self.refusal),
            tokens=self._weighed,
            calls=self.calls.whole if self.calls is not None else (),
        )

    def stopped(self, reason: str, *, usage: Usage) -> ChatReply:
        """The reply of a stream that was not heard to its end: ``reason`` says why, ``usage`` what it may have
        cost."""
        text = "".join(self.text)
        text = text[: len(text) - self.json.extra] if self.json.complete else text.rstrip()
        return ChatReply(
            text,
            reason,
            usage,
            self.model,
            thinking="".join(self.thinking),
            usage_estimated=True,
            logprobs=logprobs_of(self._weighed, "".join(self.text)),
        )

    def lost(self, kind: ErrorKind, message: str) -> CallError:
        """The error of a stream that was lost with nothing worth keeping."""
        return CallError(kind, message, self.model, body="".join(self.text)[:2000])


def _text(piece: str) -> bool:
    if not isinstance(piece, str):
        raise TypeError("text was expected")
    return bool(piece)
