"""The Responses dialect (``/responses``): a ``ChatRequest`` to bytes, bytes to a ``ChatReply`` or ``CallError``.

The service ignores what its reference does not list, and ``text.format``, ``max_output_tokens``, ``seed`` and
``thinking_budget`` are not listed: they are sent, may have no effect, and every answer is validated anyway.
Pure; ``decode`` never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from extractors.qwen.chat import thinking_keys
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.replies import arguments_text, error_in, finished, garbled, object_in, usage_in, words
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, Message
from extractors.qwen.sse import Event
from extractors.qwen.streams import StreamReader
from extractors.qwen.tool_calls import Calls, offered
from extractors.qwen.wire import dump, picture_url

_UNFINISHED = frozenset({"failed", "cancelled", "queued", "in_progress"})


def encode(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The JSON body of a request; the shape's chat keys are put into this dialect's form."""
    body: dict[str, Any] = {
        "model": request.model,
        "input": [{"role": message.role, "content": _content(message)} for message in request.messages],
        "max_output_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        **profile.always,
    }
    if stream:
        body["stream"] = True
    if request.seed is not None:
        body["seed"] = request.seed
    keys = thinking_keys(request)
    if profile.switch == "enable_thinking":
        body.update(keys)
    elif keys:
        body[profile.switch] = keys
    for key, value in request.shape.wire.items():
        body.update(_TRANSLATED[key](value) if key in _TRANSLATED else {key: value})
    if request.tools:
        body["input"] = [item for message in request.messages for item in _items(message)]
        body.update(offered(request.tools))
        body.update(_tools(body["tools"]))
    return dump(body)


def _items(message: Message) -> list[dict[str, Any]]:
    """A message as items of the input: what was called, and what came of it, are items of their own."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    if calls and not message.content:
        return calls
    return [{"role": message.role, "content": _content(message)}, *calls]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    pictures = [{"type": "input_image", "image_url": picture_url(image)} for image in message.images]
    return [*pictures, {"type": "input_text", "text": message.content}]


def _format(value: Mapping[str, Any]) -> dict[str, Any]:
    if value.get("type") != "json_schema":
        return {"text": {"format": value}}
    return {"text": {"format": {"type": "json_schema", **value["json_schema"]}}}


def _tools(value: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {"tools": [{"type": "function", **tool["function"]} for tool in value]}


def _tool_choice(value: Any) -> dict[str, Any]:
    """A named function is asked for as ``required``: the service allows that where there is one tool."""
    return {"tool_choice": "required" if isinstance(value, Mapping) else value}


_TRANSLATED: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "response_format": _format,
    "tools": _tools,
    "tool_choice": _tool_choice,
}


def decode(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing, tools: bool = False
) -> ChatReply | CallError:
    """What came back, read. ``headers`` is looked up with lower-case names; ``tools``: calls are told apart from the
    answer."""
    data = object_in(status, headers, body, model=model)
    if isinstance(data, CallError):
        return data
    return _decoded(status, headers, data, body, model=model, pricing=pricing, calls=Calls() if tools else None)


def _decoded(
    status: int,
    headers: Mapping[str, str],
    data: Mapping[str, Any],
    body: bytes,
    *,
    model: str,
    pricing: Pricing,
    calls: Calls | None,
) -> ChatReply | CallError:
    told = data.get("status")
    output = data.get("output")
    if status != 200 or data.get("error") or data.get("code") or not (output or told == "incomplete"):
        return error_in(status, headers, data, body, model=model, pricing=pricing, missing="output")
    usage = usage_in(data, pricing)
    if isinstance(told, str) and told in _UNFINISHED:
        return garbled(f"the response is {told}, without a reason", status, body, model=model, usage=usage)
    try:
        text, thinking, refusal, reason = _read(output or (), calls)
        return finished(
            text,
            _cut_for(data) or reason,
            usage=usage,
            model=str(data.get("model") or model),
            headers=headers,
            thinking=thinking,
            refusal=refusal,
            calls=calls.whole if calls is not None else (),
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return garbled("the reply is JSON, but not a response", status, body, model=model, usage=usage)


def _read(output: Any, calls: Calls | None = None) -> tuple[str, str, str, str]:
    """Answer, thinking, refusal and reason, out of the items. The first function call is the answer, unless ``calls``
    wants them; reasoning is thinking; calls of the service's own tools are nobody's answer."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    arguments: str | None = None
    for item in output:
        kind = item.get("type")
        if kind == "function_call" and calls is not None:
            calls.take(item)
        elif kind == "function_call":
            arguments = arguments_text(item["arguments"]) if arguments is None else arguments
        elif kind == "reasoning":
            thoughts += [part["text"] for part in (*(item.get("summary") or ()), *(item.get("content") or ()))]
        elif kind == "message":
            for part in item["content"]:
                if part.get("type") == "refusal":
                    refusals.append(words(part.get("refusal")))
                elif "text" in part:
                    texts.append(part["text"])
    answer = "".join(texts) if arguments is None else arguments
    called = arguments is not None or bool(calls)
    return answer, "".join(thoughts), "".join(refusals), "tool_calls" if called else "stop"


def _cut_for(data: Mapping[str, Any]) -> str:
    """Why an incomplete response is incomplete, in the chat dialect's words; "" for a whole one."""
    if data.get("status") != "incomplete":
        return ""
    details = data.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return "content_filter" if reason == "content_filter" else "length"


def take(reader: StreamReader, frame: Mapping[str, Any], event: Event) -> None:
    """Read one event of a streamed response; its name is in the frame as ``type``."""
    kind = frame.get("type") or event.name
    if kind == "response.output_text.delta":
        reader.answer(frame["delta"])
    elif kind == "response.function_call_arguments.delta":
        if reader.calls is None:
            _take_arguments(reader, frame)
    elif kind == "response.output_item.done" and reader.calls is not None:
        if frame["item"].get("type") == "function_call":
            reader.calls.take(frame["item"])
    elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
        reader.thought(frame["delta"])
    elif kind == "response.refusal.delta":
        reader.refused(frame["delta"])
    elif kind in ("response.completed", "response.incomplete"):
        _take_end(reader, frame["response"])
    elif kind == "response.failed":
        failed = frame["response"]
        if usage := failed.get("usage"):
            reader.told = usage
        reader.fail(failed, event)
    elif kind == "error" or ("error" in frame and "response" not in frame) or (not kind and frame.get("code")):
        # The event's own type is not the error's.
        reader.fail({key: value for key, value in frame.items() if key != "type"}, event)


def _take_arguments(reader: StreamReader, frame: Mapping[str, Any]) -> None:
    """The first function call's arguments are the answer; those of another are not."""
    item = frame.get("item_id") or frame.get("output_index")
    if reader.source is None:
        reader.source = item
    if item == reader.source:
        reader.answer(frame["delta"])


def _take_end(reader: StreamReader, response: Mapping[str, Any]) -> None:
    """The whole response comes once more at the end: usage is in it, and what no delta brought."""
    if usage := response.get("usage"):
        reader.told = usage
    if name := response.get("model"):
        reader.model = str(name)
    text, thinking, refusal, reason = _read(response.get("output") or (), reader.calls)
    if not reader.text:
        reader.answer(text)
    if not reader.thinking:
        reader.thought(thinking)
    if not reader.refusal:
        reader.refused(refusal)
    # That there is a reason means that the end was heard, so it is set only here.
    reader.reason = _cut_for(response) or (reason if reader.source is None else "tool_calls")
    reader.ended = True
