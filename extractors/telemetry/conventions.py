"""What a call looks like in OpenTelemetry's semantic conventions for generative AI.

Followed: version 1.41 (status: development), the last one published with the general conventions, at
https://opentelemetry.io/docs/specs/semconv/gen-ai/; they have moved to
https://github.com/open-telemetry/semantic-conventions-genai since, with the same names. What they have no name for is
under ``quarry.``. Pure: no clock, no socket, and nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from extractors.qwen.requests import CallError, ChatReply, ChatRequest

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
OPERATION = "chat"
_HOSTED = ".aliyuncs.com"
Attribute: TypeAlias = "str | int | float | bool | tuple[str, ...]"
_MOST_CONTENT = 100_000
"""Characters of one captured message."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers, as every span and metric of a run names it."""

    provider: str
    address: str
    port: int

    @classmethod
    def at(cls, url: str, *, embedded: bool) -> Server:
        """``dashscope`` for the hosted service, ``llama_cpp`` for the embedded model; else ``openai``, which the
        conventions say of whatever speaks its API."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        provider = "llama_cpp" if embedded else "dashscope" if host.endswith(_HOSTED) else "openai"
        return cls(provider, host, parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def common(self) -> dict[str, Attribute]:
        """The attributes that metrics have, too."""
        return {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": self.provider,
            "server.address": self.address,
            "server.port": self.port,
        }


@dataclass(frozen=True, slots=True)
class Told:
    """A call that has ended: when (Unix seconds, from the start of its first HTTP try), and its attributes."""

    start: float
    end: float
    attributes: dict[str, Attribute]
    error: str | None
    failed_tries: tuple[tuple[float, dict[str, Attribute]], ...]
    """When a try failed that was made again, and how."""


def told(
    request: ChatRequest, result: ChatReply | CallError, server: Server, *, content: bool = False, secret: str = ""
) -> Told | None:
    """A call in the conventions' words; None for one that was never sent.

    The time that it queued before its first try is not part of it; the waits between tries are. Neither an error's
    message nor its body is told, since providers quote what they were sent. ``content`` adds what was said, with
    ``secret`` taken out of it.
    """
    tries = [one for one in (*result.earlier, result) if one.started_at]
    if not tries:
        return None
    usage = result.usage
    attributes: dict[str, Attribute] = {
        **server.common,
        "gen_ai.request.model": request.model,
        "gen_ai.output.type": "json",
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.request.temperature": request.temperature,
        "quarry.call.purpose": request.purpose.value,
        "quarry.call.attempt": request.attempt,
        "quarry.call.tries": len(tries),
        "quarry.call.mode": (result.mode or request.shape.mode).value,
    }
    if request.seed is not None:
        attributes["gen_ai.request.seed"] = request.seed
    if usage.total_tokens:
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        if usage.cached_tokens:
            attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        if usage.reasoning_tokens:
            attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
        if usage.cost is not None:
            attributes["quarry.call.cost"] = float(usage.cost)
    error = None
    if isinstance(result, ChatReply):
        attributes["gen_ai.response.model"] = result.model
        attributes["gen_ai.response.finish_reasons"] = (result.finish_reason,)
    else:
        error = result.kind.value
        attributes |= _failure(result)
    if content:
        attributes |= _content(request, result, secret)
    return Told(
        start=tries[0].started_at,
        end=max(one.started_at + one.latency for one in tries),
        attributes=attributes,
        error=error,
        failed_tries=tuple((one.started_at + one.latency, _failure(one)) for one in result.earlier if one.started_at),
    )


def _failure(error: CallError) -> dict[str, Attribute]:
    told: dict[str, Attribute] = {"error.type": error.kind.value}
    if error.http_status is not None:
        told["http.response.status_code"] = error.http_status
    return told


def _content(request: ChatRequest, result: ChatReply | CallError, secret: str) -> dict[str, Attribute]:
    """What was said, in the conventions' JSON; pictures by their type only."""
    said = [
        {
            "role": message.role,
            "parts": [
                *({"type": "image", "mime_type": image.media_type} for image in message.images),
                {"type": "text", "content": _shown(message.content, secret)},
            ],
        }
        for message in request.messages
    ]
    found: dict[str, Attribute] = {"gen_ai.input.messages": _json(said)}
    if isinstance(result, ChatReply):
        answer = {
            "role": "assistant",
            "parts": [{"type": "text", "content": _shown(result.text, secret)}],
            "finish_reason": result.finish_reason,
        }
        found["gen_ai.output.messages"] = _json([answer])
    return found


def _shown(text: str, secret: str) -> str:
    return (text.replace(secret, "[key]") if secret else text)[:_MOST_CONTENT]


def _json(value: object) -> str:
    # Not orjson: a record's text may hold lone surrogates, which only escaped JSON has room for.
    return json.dumps(value, separators=(",", ":"))
