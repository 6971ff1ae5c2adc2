"""The OpenAI-compatible chat dialect: whole completions, chunks and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tests.fakes.asked import Asked, Body
from tests.fakes.sse import DONE
from tests.fakes.told import Tokens, Told, pieces

_CREATED = 1760000000


def whole(told: Told, asked: Asked) -> Body:
    """The body of a completion that is not streamed."""
    message: Body = {"role": "assistant", "content": told.text}
    if told.thinking is not None:
        message["reasoning_content"] = told.thinking
    if told.tool is not None:
        message["content"] = ""
        message["tool_calls"] = [_call(told.tool, told.text)]
    if told.calls:
        message["content"] = told.text or ""
        message["tool_calls"] = [_call(name, given, place) for place, (name, given) in enumerate(told.calls)]
    choice = {"index": 0, "finish_reason": told.finish, "logprobs": None, "message": message}
    body: Body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": _CREATED,
        "model": told.model,
        "choices": [choice] if told.choices else [],
    }
    if told.tokens is not None:
        body["usage"] = usage(told.tokens)
    return body


def events(told: Told, asked: Asked, *, size: int) -> Iterator[bytes]:
    """The chunks of a stream: thinking first, then the answer; usage last, where it was asked for."""

    def one(delta: Body, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _chunk(told.model, [choice] if told.choices else [])

    yield one({"role": "assistant", "content": None if told.thinking else ""})
    for piece in pieces(told.thinking or "", size):
        yield one({"content": None, "reasoning_content": piece})
    if told.tool is not None:
        # The name comes with the first piece of the arguments only.
        call = _call(told.tool, "")
        for piece in pieces(told.text or "", size):
            call["function"]["arguments"] = piece
            yield one({"content": None, "tool_calls": [call]})
            call = {"index": 0, "id": "", "type": "function", "function": {"arguments": ""}}
    else:
        for piece in pieces(told.text or "", size):
            yield one({"content": piece})
    for place, (name, given) in enumerate(told.calls):
        yield one({"content": None, "tool_calls": [_call(name, "", place)]})
        for piece in pieces(given, size):
            more = {"index": place, "id": "", "type": "function", "function": {"arguments": piece}}
            yield one({"content": None, "tool_calls": [more]})
    yield one({"content": ""}, told.finish)
    if told.tokens is not None and asked.usage_wanted:
        yield _chunk(told.model, [], usage(told.tokens))
    yield DONE


def error(code: str, message: str, kind: str | None) -> Body:
    """An error's body."""
    return {
        "error": {"message": message, "type": kind or code, "param": None, "code": code},
        "request_id": "fake",
    }


def error_event(status: int, body: Body, *, number: int) -> Iterator[bytes]:
    """An error inside of a stream that had begun well."""
    yield b"data: " + orjson.dumps(body) + b"\n\n"


def usage(tokens: Tokens) -> Body:
    details: Body = {"cached_tokens": tokens.cached}
    if tokens.images:
        details |= {"text_tokens": tokens.input - tokens.images, "image_tokens": tokens.images}
    if tokens.explicit:
        details |= cache_details(tokens)
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.total,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def cache_details(tokens: Tokens) -> Body:
    """What usage says beside ``cached_tokens`` where the request marked its prefix."""
    return {
        "cache_creation_input_tokens": tokens.created,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.created},
        "cache_type": "ephemeral",
    }


def _call(name: str, arguments: str | None, place: int = 0) -> dict[str, Any]:
    return {
        "id": f"call_{place}",
        "type": "function",
        "index": place,
        "function": {"name": name, "arguments": arguments},
    }


def _chunk(model: str, choices: list[Body], used: Body | None = None) -> bytes:
    body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": model,
        "system_fingerprint": None,
        "choices": choices,
        "usage": used,
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"
