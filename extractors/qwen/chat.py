"""The OpenAI-compatible chat dialect: a ``ChatRequest`` to bytes, bytes to a ``ChatReply`` or ``CallError``.

Pure: no socket, no clock. ``decode`` never raises, whatever the bytes are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from extractors.qwen.errors_table import classify
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind
from schemas.usage import Usage

_NONE: Mapping[str, Any] = {}
_KEY_LIKE = re.compile(r"\bsk-[A-Za-z0-9_-]{6,}")
_BODY_KEPT = 2000
_MESSAGE_KEPT = 400


def encode(request: ChatRequest, *, always: Mapping[str, Any] = _NONE, switch: str = "enable_thinking") -> bytes:
    """The JSON body of a request, non-standard keys at the top level, as they travel.

    ``always`` and ``switch`` come from the model's profile: keys sent with every request, and where the
    thinking switch goes. Lone surrogates, which UTF-8 cannot carry, become U+FFFD."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        **always,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.thinking is not None:
        if switch == "enable_thinking":
            body["enable_thinking"] = request.thinking
        else:
            body[switch] = {"enable_thinking": request.thinking}
    body.update(request.shape.wire)
    try:
        return orjson.dumps(body)
    except TypeError:
        return orjson.dumps(_without_surrogates(body))


def decode(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing
) -> ChatReply | CallError:
    """What came back, read. ``headers`` is looked up with lower-case names."""
    data: Any
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        data = _lenient(body)
        if data is None:
            return _unreadable(status, headers, body, error, model)
    if not isinstance(data, dict):
        return _unreadable(status, headers, body, None, model)
    choices = data.get("choices")
    if status != 200 or not choices:
        return _error(status, headers, data, body, model, pricing)
    try:
        return _reply(headers, data, choices[0], model, pricing)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        message = "the reply is JSON, but not a chat completion"
        return CallError(ErrorKind.GARBLED, message, model, status, body=_shown(body), usage=_usage(data, pricing))


def _reply(
    headers: Mapping[str, str], data: dict[str, Any], choice: dict[str, Any], model: str, pricing: Pricing
) -> ChatReply | CallError:
    message = choice["message"]
    usage = _usage(data, pricing)
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls:
        arguments = calls[0]["function"]["arguments"]
        # "" is how a call without arguments is sent.
        text = arguments or "{}" if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    elif isinstance(content, str):
        text = content
    elif content is None:
        text = ""
    else:
        text = "".join(part["text"] for part in content if part.get("type", "text") == "text")
    reason = choice.get("finish_reason") or "stop"
    refusal = message.get("refusal")
    if reason == "content_filter" or (refusal and not text):
        why = f"the provider will not answer this record: {str(refusal or reason)[:_MESSAGE_KEPT]}"
        return CallError(ErrorKind.REFUSED, why, model, 200, code=reason, body=text[:_BODY_KEPT], usage=usage)
    if headers.get("x-dashscope-partialresponse") == "true":
        # The service's own time limit cut the answer: what is there is a beginning.
        reason = "length"
    thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    return ChatReply(
        text,
        str(reason),
        usage,
        str(data.get("model") or model),
        thinking=thinking if isinstance(thinking, str) else "",
    )


def _usage(data: dict[str, Any], pricing: Pricing) -> Usage:
    """The usage that a body tells, with its cost. Without one the tokens are 0 and the cost is unknown."""
    told = data.get("usage")
    if not isinstance(told, dict):
        return Usage(calls=1, cost=pricing.cost(Usage()) if pricing.is_free else None)
    fresh = _count(told, "prompt_tokens", "input_tokens")
    made = _count(told, "completion_tokens", "output_tokens")
    cached = _count(told.get("prompt_tokens_details") or told.get("input_tokens_details"), "cached_tokens")
    thought = _count(told.get("completion_tokens_details") or told.get("output_tokens_details"), "reasoning_tokens")
    bare = Usage(1, fresh, made, cached, thought)
    return Usage(1, fresh, made, cached, thought, pricing.cost(bare))


def _count(counts: Any, *names: str) -> int:
    if isinstance(counts, dict):
        for name in names:
            value = counts.get(name)
            if isinstance(value, int) and value > 0:
                return value
    return 0


def _error(
    status: int, headers: Mapping[str, str], data: dict[str, Any], body: bytes, model: str, pricing: Pricing
) -> CallError:
    """An error in any of its shapes: ``{"error": {...}}``, DashScope's ``{"code", "message"}``, or none."""
    inner = data.get("error")
    if isinstance(inner, str):
        inner = {"message": inner}
    if not isinstance(inner, dict):
        inner = data
    raw_code, kind = inner.get("code"), inner.get("type")
    said = inner.get("message") or data.get("message") or data.get("msg") or data.get("detail") or ""
    said = said if isinstance(said, str) else orjson.dumps(said).decode()
    judged = status
    if isinstance(raw_code, int):
        # llama.cpp repeats the HTTP status here; inside a 200 it is the only one there is.
        judged = raw_code if status == 200 and 300 <= raw_code < 600 else status
        raw_code = None
    codes = [code for code in (raw_code, kind) if isinstance(code, str) and code]
    row = classify(judged, codes, said)
    found = row.kind
    usage = _usage(data, pricing) if "usage" in data else Usage(calls=1)
    if status == 200 and not codes and not said:
        return CallError(ErrorKind.GARBLED, "the reply has no choices", model, status, body=_shown(body), usage=usage)
    found = _vendor_says(headers, found)
    code = codes[0] if codes else None
    return CallError(
        found,
        _sentence(found, status, code, said, row.hint),
        model,
        status,
        code=code,
        retry_after=retry_after(headers),
        body=_shown(body),
        usage=usage,
    )


def _unreadable(
    status: int, headers: Mapping[str, str], body: bytes, error: ValueError | None, model: str
) -> CallError:
    """A body that is no JSON object: judged by the status alone."""
    start = body[:200].lstrip().lower()
    if not body:
        what = "an empty body"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        what = "an HTML page"
    elif not _is_utf8(body):
        what = "bytes that are not UTF-8"
    elif error is None:
        what = "JSON that is not an object"
    else:
        what = f"text that is not JSON ({error})"
    row = classify(status, (), "")
    kind = ErrorKind.GARBLED if status == 200 else row.kind
    if status == 403:
        # A firewall before the service may dislike one record's text: that must not end the run.
        kind = ErrorKind.BAD_REQUEST
    hint = row.hint if kind is row.kind else ""
    message = f"HTTP {status} with {what}" + (f"; {hint}" if hint else "")
    return CallError(
        _vendor_says(headers, kind), message, model, status, retry_after=retry_after(headers), body=_shown(body)
    )


_SAID = {
    ErrorKind.KEY: "the key or its account was refused",
    ErrorKind.MODEL: "the model or the address is unknown",
    ErrorKind.REFUSED: "the provider will not answer this record",
    ErrorKind.TOO_LONG: "the record is too long for the model",
    ErrorKind.RATE_LIMITED: "the provider asks for fewer calls",
    ErrorKind.OVERLOADED: "the provider is overloaded or broken",
    ErrorKind.TIMED_OUT: "the provider ran out of time",
    ErrorKind.BAD_REQUEST: "the provider refused the request",
    ErrorKind.UNSUPPORTED: "the model does not take the request in this form",
    ErrorKind.GARBLED: "the reply is an error that is not known",
}


def _sentence(kind: ErrorKind, status: int, code: str | None, said: str, hint: str) -> str:
    words = " ".join(_KEY_LIKE.sub("sk-...", said).split())[:_MESSAGE_KEPT]
    name = f"HTTP {status}, {code}" if code else f"HTTP {status}"
    sentence = f"{_SAID[kind]} ({name})" + (f": {words}" if words else "")
    return f"{sentence}; {hint}" if hint else sentence


def _vendor_says(headers: Mapping[str, str], kind: ErrorKind) -> ErrorKind:
    """``x-should-retry`` wins over the table where the only question is whether to try again."""
    told = headers.get("x-should-retry")
    if told == "true" and kind is ErrorKind.BAD_REQUEST:
        return ErrorKind.OVERLOADED
    if told == "false" and kind in (ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED):
        return ErrorKind.BAD_REQUEST
    return kind


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (a number, or an HTTP date compared with the
    reply's own ``Date``, so that a wrong clock here does no harm); None without one that can be read."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        told = headers.get(name)
        if told is None:
            continue
        try:
            seconds = float(told) * scale
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    told, now = headers.get("retry-after"), headers.get("date")
    if told is None or now is None:
        return None
    try:
        return max(0.0, (parsedate_to_datetime(told) - parsedate_to_datetime(now)).total_seconds())
    except (ValueError, TypeError):
        return None


def _shown(body: bytes) -> str:
    text = body[: _BODY_KEPT * 4].decode("utf-8", "replace")
    return _KEY_LIKE.sub("sk-...", text)[:_BODY_KEPT]


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _lenient(body: bytes) -> Any:
    """JSON that only the standard library reads: an escaped half of a surrogate pair, where a server cut
    a character in two. None if that is not what was wrong."""
    if b"\\u" not in body:
        return None
    try:
        return _without_surrogates(json.loads(body.decode("utf-8")))
    except (ValueError, RecursionError):
        return None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(inner) for inner in value]
    return value
