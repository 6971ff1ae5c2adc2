"""DashScope's own dialect, text and multimodal: whole replies, result events and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tests.fakes.asked import Asked, Body
from tests.fakes.chat_shapes import cache_details
from tests.fakes.told import Tokens, Told, pieces


def whole(told: Told, asked: Asked) -> Body:
    """The body of a reply that is not streamed."""
    message = _message(told, asked, told.text, told.thinking or "", told.text)
    calls = [(place, name, given) for place, (name, given) in enumerate(told.calls)]
    return _reply(told, asked, _with_calls(message, calls), told.finish)


def events(told: Told, asked: Asked, *, size: int) -> Iterator[bytes]:
    """The result events of a stream: deltas, or the whole text so far where they were not asked for."""
    text, thought, arguments, number = "", "", "", 0
    for piece in pieces(told.thinking or "", size):
        number += 1
        thought = piece if asked.incremental else thought + piece
        yield _event(number, _reply(told, asked, _message(told, asked, "", thought, None), "null"))
    if asked.incremental:
        thought = ""
    for piece in pieces(told.text or "", size):
        number += 1
        if told.tool is not None:
            arguments = piece if asked.incremental else arguments + piece
        else:
            text = piece if asked.incremental else text + piece
        yield _event(number, _reply(told, asked, _message(told, asked, text, thought, arguments), "null"))
    last = ("", "") if asked.incremental else (text, arguments)
    message = _message(told, asked, last[0], thought, last[1])
    for place, (name, given) in enumerate(told.calls):
        number += 1
        # The arguments come in two pieces, the name with the first.
        half = len(given) // 2
        first = _with_calls(_message(told, asked, "", thought, None), [(place, name, given[:half])])
        yield _event(number, _reply(told, asked, first, "null"))
        number += 1
        rest = _with_calls(_message(told, asked, "", thought, None), [(place, "", given[half:])])
        yield _event(number, _reply(told, asked, rest, "null"))
    yield _event(number + 1, _reply(told, asked, message, told.finish))


def error(code: str, message: str, kind: str | None) -> Body:
    """An error's body."""
    return {"request_id": "fake", "code": code, "message": message}


def error_event(status: int, body: Body, *, number: int) -> Iterator[bytes]:
    """An error inside of a stream."""
    lines = (number + 1, status, status, orjson.dumps(body))
    yield b"id:%d\nevent:error\n:HTTP_STATUS/%d\nstatus:%d\ndata:%b\n\n" % lines


def usage(tokens: Tokens, asked: Asked) -> Body:
    details: Body = {"cached_tokens": tokens.cached}
    if tokens.explicit:
        details |= cache_details(tokens)
    used: Body = {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.total,
        "prompt_tokens_details": details,
        "output_tokens_details": {
            "text_tokens": tokens.output - tokens.reasoning,
            "reasoning_tokens": tokens.reasoning,
        },
    }
    if asked.dialect == "multimodal":
        used["image_tokens"] = tokens.images
        used["input_tokens_details"] = {"text_tokens": tokens.input - tokens.images, "image_tokens": tokens.images}
    return used


def _message(told: Told, asked: Asked, text: str | None, thinking: str, arguments: str | None) -> Body:
    content: Any = "" if told.tool is not None else text
    if asked.dialect == "multimodal":
        # Each piece of content is keyed by its modality; no text is an empty list.
        content = [{"text": content}] if content else [] if content is not None else None
    message: Body = {"role": "assistant", "content": content, "reasoning_content": thinking}
    if told.tool is not None and arguments is not None:
        function = {"name": told.tool, "arguments": arguments}
        message["tool_calls"] = [{"index": 0, "id": "call_0", "type": "function", "function": function}]
    return message


def _with_calls(message: Body, calls: list[tuple[int, str, str]]) -> Body:
    """The message with calls that the model chose to make: (place, name, arguments)."""
    if not calls:
        return message
    content = message["content"] if message["content"] is not None else ""
    functions = [
        {"index": place, "id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": given}}
        for place, name, given in calls
    ]
    return {**message, "content": content, "tool_calls": functions}


def _reply(told: Told, asked: Asked, message: Body, finish: str) -> Body:
    if asked.dialect == "text" and asked.get("result_format", "text") == "text" and told.tool is None:
        output: Body = {"text": message["content"], "finish_reason": finish}
    else:
        output = {"choices": [{"finish_reason": finish, "message": message}] if told.choices else []}
    body: Body = {"output": output, "request_id": "fake"}
    if told.tokens is not None:
        body["usage"] = usage(told.tokens, asked)
    return body


def _event(number: int, body: Body) -> bytes:
    return b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % (number, orjson.dumps(body))
