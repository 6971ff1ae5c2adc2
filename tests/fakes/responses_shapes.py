"""The Responses dialect: whole responses, typed events and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tests.fakes.asked import Asked, Body
from tests.fakes.told import Tokens, Told, pieces

_CREATED = 1760000000
_INCOMPLETE = {"length": "max_output_tokens"}


def whole(told: Told, asked: Asked) -> Body:
    """The body of a response that is not streamed."""
    reason = _INCOMPLETE.get(told.finish)
    return _response(told, asked, "incomplete" if reason else "completed", _items(told))


def events(told: Told, asked: Asked, *, size: int) -> Iterator[bytes]:
    """The typed events of a stream, numbered, each named in its ``event:`` line as well."""
    number = 0

    def one(kind: str, **more: Any) -> bytes:
        nonlocal number
        data = orjson.dumps({"type": kind, "sequence_number": number, **more})
        number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    yield one("response.created", response=_response(told, asked, "in_progress", []))
    yield one("response.in_progress", response=_response(told, asked, "in_progress", []))
    items = _items(told)
    for at, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": at}
        yield one("response.output_item.added", output_index=at, item=_empty(item))
        if item["type"] == "reasoning":
            text = item["summary"][0]["text"]
            part: Body = {"type": "summary_text", "text": ""}
            yield one("response.reasoning_summary_part.added", **place, summary_index=0, part=part)
            for piece in pieces(text, size):
                yield one("response.reasoning_summary_text.delta", **place, summary_index=0, delta=piece)
            yield one("response.reasoning_summary_text.done", **place, summary_index=0, text=text)
            yield one("response.reasoning_summary_part.done", **place, summary_index=0, part=item["summary"][0])
        elif item["type"] == "function_call":
            for piece in pieces(item["arguments"] or "", size):
                yield one("response.function_call_arguments.delta", **place, delta=piece)
            yield one("response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"])
        else:
            text = item["content"][0]["text"] or ""
            part = {"type": "output_text", "text": "", "annotations": []}
            yield one("response.content_part.added", **place, content_index=0, part=part)
            for piece in pieces(text, size):
                yield one("response.output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
            yield one("response.output_text.done", **place, content_index=0, text=text, logprobs=[])
            yield one("response.content_part.done", **place, content_index=0, part=item["content"][0])
        yield one("response.output_item.done", output_index=at, item=item)
    last = whole(told, asked)
    yield one(f"response.{last['status']}", response=last)


def error(code: str, message: str, kind: str | None) -> Body:
    """An error's body."""
    return {"error": {"message": message, "type": kind or code, "param": None, "code": code}, "request_id": "fake"}


def error_event(status: int, body: Body, *, number: int) -> Iterator[bytes]:
    """An error inside of a stream."""
    given = body.get("error", body)
    data = {"type": "error", "sequence_number": number, "param": None} | {
        key: given[key] for key in ("code", "message")
    }
    yield b"event: error\ndata: %b\n\n" % orjson.dumps(data)


def usage(tokens: Tokens) -> Body:
    details = {"cached_tokens": tokens.cached}
    if tokens.explicit:
        details["cache_creation_input_tokens"] = tokens.created
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": details,
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total,
    }


def _items(told: Told) -> list[Body]:
    if not told.choices:
        return []
    items: list[Body] = []
    if told.thinking is not None:
        summary = [{"type": "summary_text", "text": told.thinking}]
        items.append({"type": "reasoning", "id": "rs_fake", "summary": summary, "status": "completed"})
    if told.tool is not None:
        items.append(
            {
                "type": "function_call",
                "id": "fc_fake",
                "call_id": "call_0",
                "name": told.tool,
                "arguments": told.text,
                "status": "completed",
            }
        )
    elif told.text or not told.calls:
        content: list[Body] = [{"type": "output_text", "text": told.text, "annotations": []}]
        status = "incomplete" if told.finish == "length" else "completed"
        items.append({"type": "message", "id": "msg_fake", "role": "assistant", "content": content, "status": status})
    for place, (name, given) in enumerate(told.calls):
        call = {"type": "function_call", "id": f"fc_fake_{place}", "call_id": f"call_{place}", "name": name}
        items.append({**call, "arguments": given, "status": "completed"})
    return items


def _empty(item: Body) -> Body:
    """An item as it is announced, before its text."""
    hollow = {"summary": [], "content": [], "arguments": ""}
    return {**item, "status": "in_progress", **{key: value for key, value in hollow.items() if key in item}}


def _response(told: Told, asked: Asked, status: str, items: list[Body]) -> Body:
    reason = _INCOMPLETE.get(told.finish) if status == "incomplete" else None
    body: Body = {
        "id": "resp_fake",
        "object": "response",
        "created_at": _CREATED,
        "model": told.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": None,
        "metadata": {},
        "output": items,
        "parallel_tool_calls": False,
        "tool_choice": asked.raw.get("tool_choice", "auto"),
        "tools": asked.raw.get("tools") or [],
        "temperature": asked.get("temperature"),
        "top_p": asked.get("top_p"),
    }
    if told.tokens is not None and status != "in_progress":
        body["usage"] = usage(told.tokens)
    return body
