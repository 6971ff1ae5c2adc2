"""When a reply is streamed, and what a stream costs at most that was not heard to its end."""

from __future__ import annotations

import unicodedata
from typing import Literal

from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import ChatRequest
from extractors.qwen.streams import StreamReader
from extractors.tokens import most_image_tokens, most_tokens
from schemas.usage import Usage

StreamChoice = Literal["auto", "always", "never"]

SLOWEST = 20.0
"""Output tokens a second that even a busy large model makes. Not documented: set low, so that streaming begins early."""
SERVICE_SECONDS = 300.0
"""A reply that is not streamed is ended by the service after this time (documented; 500 ``RequestTimeOut``)."""
SERVICE_SECONDS_VISION = 180.0
"""The same for models that see, which then give what they have so far (documented)."""
_SAFE = 0.8
"""The share of the time that may be planned with: prefill and queueing take the rest."""

_CHAT_TEMPLATE = 480
"""Tokens of the template around messages and tools that do not come from the request's bytes."""
_OUTPUT_SLACK = 16
"""Services overrun the output limit by up to 10 tokens."""


def wants_stream(request: ChatRequest, profile: Profile, *, choice: StreamChoice) -> bool:
    """Whether this request's reply is streamed.

    "auto": where the model thinks only in streams, and where the longest allowed reply (the answer and what may be
    thought before it) would at ``SLOWEST`` pass 80 % of the time that the service gives a reply that is not streamed. A
    server on this machine has no such limit and keeps to the plain reply, which is cheaper to read; but where the
    embedded model writes lists, which it may write until it is cut off, it is listened to. Our own time-out does not
    matter here: it bounds a stream as well."""
    if choice != "auto":
        return choice == "always"
    thinks = bool(request.thinking) or (request.thinking is None and profile.thinking == "always")
    if thinks and profile.stream_only_thinking:
        return True
    if profile.embedded:
        return request.record is not None and request.shape.lists and not request.tools
    if profile.loopback:
        return False
    tokens = request.max_output_tokens
    if thinks:
        tokens += profile.max_thinking if request.thinking_budget is None else request.thinking_budget
    limit = SERVICE_SECONDS_VISION if profile.vision else SERVICE_SECONDS
    return tokens / SLOWEST > _SAFE * limit


def most_usage(request: ChatRequest, sent: bytes, reader: StreamReader, pricing: Pricing) -> Usage:
    """A bound on what a stream cost whose usage was not heard: never too low.

    Input: what the stream told, else one token for each byte of the request, pictures apart. Output: the whole
    limit, because a service that does not notice that nobody listens goes on until there, and what was thought."""
    told = reader.usage
    fresh = told.input_tokens
    if not fresh:
        fresh = _CHAT_TEMPLATE + len(sent)
        if not sent.isascii():
            fresh = max(fresh, _CHAT_TEMPLATE + most_tokens(unicodedata.normalize("NFC", sent.decode("utf-8"))))
        pictures = (image for message in request.messages for image in message.images)
        fresh += sum(most_image_tokens(image.width, image.height) for image in pictures)
    thought = max(told.reasoning_tokens, sum(map(most_tokens, reader.thinking)))
    if request.thinking_budget is not None:
        thought = min(thought, request.thinking_budget + _OUTPUT_SLACK)
    answered = max(request.max_output_tokens + _OUTPUT_SLACK, sum(map(most_tokens, reader.text)))
    made = max(told.output_tokens, answered + thought)
    cost = pricing.worst_cost(fresh, made, thinks=thought > 0)
    return Usage(1, fresh, made, told.cached_tokens, thought, cost)
