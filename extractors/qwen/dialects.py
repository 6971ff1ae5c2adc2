"""The wire formats that Qwen answers in, by name, as rows: same question, same answer, other bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from extractors.errors import JobError
from extractors.qwen import chat, dashscope, responses
from extractors.qwen.addresses import Route, endpoint_url
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import CallError, ChatReply, ChatRequest
from extractors.qwen.streams import StreamReader, Take

EVENT_STREAM = "text/event-stream"


class Encode(Protocol):
    """A request's body."""

    def __call__(self, request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes: ...


class Decode(Protocol):
    """A whole reply, read. Never raises."""

    def __call__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        model: str,
        pricing: Pricing,
        tools: bool = False,
    ) -> ChatReply | CallError: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire format. ``streaming`` holds the headers that ask for a stream besides ``Accept``; ``limits_output``
    says whether its reference lists a limit of output tokens, which else may have no effect."""

    name: str
    route: Route
    encode: Encode
    decode: Decode
    take: Take
    streaming: Mapping[str, str] = field(default_factory=dict)
    limits_output: bool = True

    def url(self, base_url: str) -> str:
        """Its endpoint at an address. Raises ``JobError`` for what is none."""
        return endpoint_url(base_url, self.route)

    def headers(self, *, stream: bool) -> Mapping[str, str]:
        """The headers that are its own."""
        return {"Accept": EVENT_STREAM, **self.streaming} if stream else {"Accept": "application/json"}

    def reader(self, *, model: str, pricing: Pricing, tools: bool = False, record: str | None = None) -> StreamReader:
        """Reads one streamed reply; ``tools``: calls are told apart from the answer; ``record``: as the request
        has it."""
        return StreamReader(self.take, model=model, pricing=pricing, tools=tools, record=record)


_SSE = {"X-DashScope-SSE": "enable"}

CHAT = Dialect("chat", Route.CHAT, chat.encode, chat.decode, chat.take)
RESPONSES = Dialect(
    "responses", Route.RESPONSES, responses.encode, responses.decode, responses.take, limits_output=False
)
DASHSCOPE = Dialect("dashscope", Route.TEXT, dashscope.encode_text, dashscope.decode, dashscope.take, _SSE)
MULTIMODAL = Dialect(
    "dashscope-multimodal", Route.MULTIMODAL, dashscope.encode_multimodal, dashscope.decode, dashscope.take, _SSE
)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (CHAT, RESPONSES, DASHSCOPE, MULTIMODAL)}


def pick_dialect(asked: str, profile: Profile, *, images: bool = False) -> Dialect:
    """The dialect for a model: ``auto`` is the profile's first.

    The native API takes models that see, and requests with ``images``, at the multimodal path, and all others at
    the text path; the wrong one answers 400. Raises ``JobError`` for a name that is none."""
    name = profile.dialects[0] if asked == "auto" else asked
    if name == DASHSCOPE.name and (profile.vision or images):
        return MULTIMODAL
    if name not in DIALECTS:
        raise JobError(f"{name!r} is no dialect; there are auto, {', '.join(DIALECTS)}")
    return DIALECTS[name]
