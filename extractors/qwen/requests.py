"""What the pure core asks for and what it gets back, free of any wire format.

``ChatRequest`` -> a dialect encodes it, a transport sends it, the dialect decodes -> ``ChatReply``
or ``CallError``. Neither side of this border knows the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import orjson

from schemas.usage import Usage


class Purpose(StrEnum):
    """Why a call is made."""

    EXTRACT = "extract"
    CORRECT = "correct"
    """Only the failing paths are asked again."""
    REASK = "reask"
    """The whole answer is asked again: the last one was not JSON, or was cut off."""
    CONTINUE = "continue"
    """The rest of an answer is asked for whose beginning is kept: it was cut off inside of a list."""
    LOOK = "look"
    """What a valid answer left empty is asked a second time."""
    AGREE = "agree"
    """The first question is asked once more, to see whether the model says the same."""
    ROUTE = "route"
    """The final model is asked about what the draft is not sure of, or could not put right."""
    LOOKUP = "lookup"
    """Before the first answer: which look-ups the model wants."""
    EMBED = "embed"
    """Texts are made vectors of, to find the parts of a long text that matter."""
    RERANK = "rerank"
    """Parts of a long text are put in order by a model that reads them beside a query."""


class Mode(StrEnum):
    """How the answer's structure is asked for."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TOOLS = "tools"
    PROMPTED = "prompted"
    GRAMMAR = "grammar"
    """llama.cpp: a GBNF grammar compiled from the schema, for one line of JSON without indentation."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that goes with a message: its encoded bytes, ready to send, or an address that the provider
    fetches (then ``data`` is empty). ``media_type`` is such as ``image/jpeg``; sizes are in pixels, 0 unknown."""

    media_type: str
    data: bytes = b""
    url: str | None = None
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call: ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function that the model asked for. ``arguments`` is what it wrote, which may be no JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; pictures go before the words. An assistant's ``tool_calls`` are each answered by a message of
    the role tool, which names the call in ``tool_call_id``; their arguments are JSON objects."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """The structure that an answer must have, compiled once per recipe (and once per set of
    corrected paths). ``schema`` is plain JSON Schema with no ``$ref``; ``wire`` holds the request
    keys that express it in ``mode`` (``response_format``, ``tools``, ``grammar``), ready to send."""

    name: str
    schema: Mapping[str, Any]
    mode: Mode
    wire: Mapping[str, Any] = field(default_factory=dict)
    omit_nulls: bool = False
    """Whether what would be null may be left out of the answer."""
    text_order: bool = False
    """Whether what may be left out is written in the order in which the record has it."""
    lists: bool = False
    """Whether the answer may hold a list."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model."""

    model: str
    messages: tuple[Message, ...]
    shape: AnswerShape
    purpose: Purpose = Purpose.EXTRACT
    attempt: int = 1
    max_output_tokens: int = 2048
    temperature: float = 0.0
    seed: int | None = None
    thinking: bool | None = None
    """None: the model has no such switch, send nothing."""
    thinking_budget: int | None = None
    """Tokens that the model may think at most; None: the model's own limit."""
    logprobs: bool = False
    """Whether the reply should say how sure the model was of each token."""
    tools: tuple[ToolSpec, ...] = ()
    """Functions that the model may call before it answers; the reply tells them apart from its words."""
    record: str | None = None
    """The record's text, by which a streamed reply's lists are seen to go round in circles (``continuation.goes_round``);
    None: that is not looked for."""
    of: str = ""
    """Recipe and record, where the words do not tell: windows of two records may say the same. Part of the digest; not
    sent."""

    def digest(self) -> str:
        """32 hex digits that name this question: equal requests have equal digests in any process.

        ``attempt`` takes part, so asking the same words a second time is another question. The mode does not, nor
        ``logprobs``, nor whether a model that does not think is told so, nor what the reply is watched for: what is known of
        models changes, and an answer that is paid for is found again after it did."""
        head = orjson.dumps(
            [
                self.model,
                self.purpose,
                self.attempt,
                self.max_output_tokens,
                self.temperature,
                self.seed,
                bool(self.thinking),
                self.thinking_budget,
            ]
        )
        digest = hashlib.sha256(head)
        for message in self.messages:
            digest.update(f"\x00{message.role}\x00".encode())
            digest.update(message.content.encode("utf-8", "surrogatepass"))
            for image in message.images:
                digest.update(f"\x00image {image.media_type} {image.url or ''}\x00".encode())
                digest.update(hashlib.sha256(image.data).digest())
            for call in message.tool_calls:
                digest.update(f"\x00call {call.id}\x00{call.name}\x00{call.arguments}".encode("utf-8", "surrogatepass"))
        if self.of:
            digest.update(f"\x00of {self.of}".encode())
        for tool in self.tools:
            digest.update(f"\x00tool {tool.name}\x00{tool.description}\x00".encode("utf-8", "surrogatepass"))
            digest.update(orjson.dumps(tool.parameters, option=orjson.OPT_SORT_KEYS))
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How sure a model was of the tokens of its answer: where each ends, in UTF-8 bytes of the answer's text, and
    its logarithmic probability. A token that was copied and agreed to without being weighed (speculation) has 0."""

    ends: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A model's answer. ``text`` is the answer alone: thinking text, which providers send apart,
    is in ``thinking``. ``latency`` is in seconds, of the successful HTTP call only; ``started_at`` is
    that call's start in Unix seconds."""

    text: str
    finish_reason: str
    usage: Usage
    model: str
    latency: float = 0.0
    thinking: str = ""
    started_at: float = 0.0
    earlier: tuple[CallError, ...] = ()
    """The tries of the same call that failed before this one, oldest first."""
    mode: Mode | None = None
    """How structure was truly asked for, where that is not the request's own mode."""
    usage_estimated: bool = False
    """The usage was not told, because the stream was not heard to its end: it is a bound, never too low."""
    logprobs: Logprobs | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """What the model wants to be called, where the request offered ``tools``."""
    pack: str | None = None
    """The digest of a call about several records of whose reply this is one record's share."""


class ErrorKind(StrEnum):
    """What went wrong with a call, by what must happen next."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    """5xx: the provider is busy or broken."""
    TIMED_OUT = "timed_out"
    CONNECTION = "connection"
    """Refused, reset, cut off in the middle of the body."""
    GARBLED = "garbled"
    """A reply that is not the protocol: HTML, invalid UTF-8, JSON of another shape."""
    REFUSED = "refused"
    """The provider's moderation, or the model, will not answer this record."""
    TOO_LONG = "too_long"
    BAD_REQUEST = "bad_request"
    """4xx about this request."""
    UNSUPPORTED = "unsupported"
    """The model does not know the way in which structure was asked for, or a switch that was sent."""
    KEY = "key"
    """401/403, or an account in arrears: the whole run must stop."""
    MODEL = "model"
    """The model does not exist there: the whole run must stop."""
    CANCELLED = "cancelled"
    UNANSWERED = "unanswered"
    """A reply about several records that left this one out, or mixed it up with another."""


@dataclass(frozen=True, slots=True)
class CallError:
    """A call that gave no answer. ``message`` never holds a key. ``retry_after`` is in seconds.
    ``body`` is at most the first 2,000 characters of what came back."""

    kind: ErrorKind
    message: str
    model: str
    http_status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    body: str = ""
    latency: float = 0.0
    usage: Usage = field(default_factory=Usage)
    started_at: float = 0.0
    earlier: tuple[CallError, ...] = ()
    """The tries of the same call that failed before this one, oldest first."""
    mode: Mode | None = None
    """How structure was truly asked for, where that is not the request's own mode."""
    begun: bool = False
    """The answer had begun before it failed, so that it may be charged."""
    pack: str | None = None
    """The digest of a call about several records of whose failure this is one record's share."""

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed if it is made again."""
        return self.kind in _RETRYABLE

    @property
    def fatal(self) -> bool:
        """Whether every other call of the run would fail in the same way."""
        return self.kind in (ErrorKind.KEY, ErrorKind.MODEL)


_RETRYABLE = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.OVERLOADED,
        ErrorKind.TIMED_OUT,
        ErrorKind.CONNECTION,
        ErrorKind.GARBLED,
    }
)


Call = Callable[[ChatRequest], Awaitable[ChatReply | CallError]]
"""One question asked: what a transport is, and what every policy (limit, budget, retry) wraps and is."""
