"""What every dialect reads in the same way: errors in any of their shapes, usage and its cost, an answer's end.

Pure, and lenient: nothing in here raises, whatever a service sends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from extractors.qwen.errors_table import classify
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply, ErrorKind, Logprobs, ToolCall
from extractors.qwen.wire import load
from schemas.usage import Usage

_KEY_LIKE = re.compile(r"\bsk-[A-Za-z0-9_-]{6,}")
_BODY_KEPT = 2000
LEAST_LOGPROB = -30.0
"""Below it a token counts as impossible; some servers send such as -9999, or -Infinity as null. Above 0, which no probability
has, it counts as 0."""
_MESSAGE_KEPT = 400


def object_in(status: int, headers: Mapping[str, str], body: bytes, *, model: str) -> dict[str, Any] | CallError:
    """The JSON object that a body is, or the error of a body that is none."""
    try:
        data = load(body)
    except ValueError as error:
        return _unreadable(status, headers, body, error, model)
    return data if isinstance(data, dict) else _unreadable(status, headers, body, None, model)


def finished(
    text: str,
    reason: str,
    *,
    usage: Usage,
    model: str,
    headers: Mapping[str, str],
    thinking: str = "",
    refusal: str = "",
    tokens: Sequence[Any] = (),
    calls: Sequence[ToolCall] = (),
) -> ChatReply | CallError:
    """An answer that came to its end: the reply, or the refusal that it is.

    ``x-dashscope-partialresponse`` says that the service's own time limit cut the answer: then what is there
    is a beginning."""
    if reason == "content_filter" or (refusal and not text):
        why = f"the provider will not answer this record: {(refusal or reason)[:_MESSAGE_KEPT]}"
        return CallError(ErrorKind.REFUSED, why, model, 200, code=reason, body=text[:_BODY_KEPT], usage=usage)
    if headers.get("x-dashscope-partialresponse") == "true":
        reason = "length"
    return ChatReply(
        text, reason, usage, model, thinking=thinking, logprobs=logprobs_of(tokens, text), tool_calls=tuple(calls)
    )


def logprobs_of(tokens: Sequence[Any], text: str) -> Logprobs | None:
    """What ``logprobs.content`` says of the tokens of ``text``; None where it says nothing, or not of this text (of
    thinking, say)."""
    ends: list[int] = []
    values: list[float] = []
    end = 0
    for token in tokens:
        if not isinstance(token, dict) or "logprob" not in token:
            return None
        told = token["logprob"]
        data = token.get("bytes")
        end += len(data) if isinstance(data, list) else len(str(token.get("token") or "").encode())
        ends.append(end)
        known = isinstance(told, int | float) and not math.isnan(told)
        values.append(round(min(max(told, LEAST_LOGPROB), 0.0), 4) if known else LEAST_LOGPROB)
    return Logprobs(tuple(ends), tuple(values)) if end and end == len(text.encode("utf-8", "replace")) else None


def text_of(content: Any) -> str:
    """A message's words, be they one string or a list of parts (parts that are not text are left out).
    Raises ``KeyError``, ``TypeError`` or ``AttributeError`` for another shape."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    return "".join(part["text"] for part in content if part.get("type", "text") == "text" and "text" in part)


def arguments_text(arguments: Any) -> str:
    """A tool call's arguments as JSON text. "" is how a call without arguments is sent."""
    if isinstance(arguments, str):
        return arguments or "{}"
    return "{}" if arguments is None else orjson.dumps(arguments).decode()


def words(value: Any) -> str:
    """The value if it is text, else nothing."""
    return value if isinstance(value, str) else ""


def usage_in(data: Mapping[str, Any], pricing: Pricing) -> Usage:
    """The usage that a body tells, with its cost. Without one the tokens are 0 and the cost is unknown."""
    told = data.get("usage")
    if not isinstance(told, dict):
        return Usage(calls=1, cost=pricing.cost(Usage()) if pricing.is_free else None)
    fresh = _count(told, "prompt_tokens", "input_tokens")
    made = _count(told, "completion_tokens", "output_tokens")
    read = told.get("prompt_tokens_details") or told.get("input_tokens_details")
    cached = _count(read, "cached_tokens")
    thought = _count(told.get("completion_tokens_details") or told.get("output_tokens_details"), "reasoning_tokens")
    bare = Usage(1, fresh, made, cached, thought)
    cost = pricing.cost(bare)
    if cost and pricing.writing > 1 and (written := _count(read, "cache_creation_input_tokens")):
        # What is put into an explicit cache costs more than plain input, at the tier of the whole call.
        plain = pricing.cost(Usage(1, fresh)) or 0
        cost += (pricing.writing - 1) * plain * min(written, fresh) / max(fresh, 1)
    return Usage(1, fresh, made, cached, thought, cost)


def _count(counts: Any, *names: str) -> int:
    if isinstance(counts, dict):
        for name in names:
            value = counts.get(name)
            if isinstance(value, int) and value > 0:
                return value
    return 0


def error_in(
    status: int,
    headers: Mapping[str, str],
    data: Mapping[str, Any],
    body: bytes,
    *,
    model: str,
    pricing: Pricing,
    missing: str,
) -> CallError:
    """An error in any of its shapes: ``{"error": {...}}``, DashScope's ``{"code", "message"}``, or none: then
    the reply is garbled, for it has no ``missing`` either."""
    inner = data.get("error")
    if isinstance(inner, str):
        inner = {"message": inner}
    if not isinstance(inner, dict):
        inner = data
    raw_code, kind = inner.get("code"), inner.get("type")
    said = inner.get("message") or data.get("message") or data.get("msg") or data.get("detail") or ""
    said = said if isinstance(said, str) else _as_json(said)
    judged = status
    if isinstance(raw_code, int):
        # llama.cpp repeats the HTTP status here; inside a 200 it is the only one there is.
        judged = raw_code if status == 200 and 300 <= raw_code < 600 else status
        raw_code = None
    codes = [code for code in (raw_code, kind) if isinstance(code, str) and code]
    row = classify(judged, codes, said)
    usage = usage_in(data, pricing) if "usage" in data else Usage(calls=1)
    if status == 200 and not codes and not said:
        return garbled(f"the reply has no {missing}", status, body, model=model, usage=usage)
    found = _vendor_says(headers, row.kind)
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


def garbled(message: str, status: int, body: bytes, *, model: str, usage: Usage) -> CallError:
    """A reply that is JSON, but not of this protocol."""
    return CallError(ErrorKind.GARBLED, message, model, status, body=_shown(body), usage=usage)


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


def _as_json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Nested deeper, or with larger numbers, than orjson writes: no message that a person could read.
        return ""


def _shown(body: bytes) -> str:
    text = body[: _BODY_KEPT * 4].decode("utf-8", "replace")
    return _KEY_LIKE.sub("sk-...", text)[:_BODY_KEPT]


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
