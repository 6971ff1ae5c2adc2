"""DashScope's own dialect: native text generation, and native multimodal generation for models that see.

The two differ in the path and in the content of a message, which for models that see is a list of parts keyed by
what they are (``{"image": ...}``, ``{"text": ...}``), in requests and in replies. Sent to the other's path a
model answers 400 "url error". Pure; ``decode`` never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extractors.qwen.chat import EPHEMERAL, answer_in, take_delta, thinking_in, thinking_keys
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.replies import error_in, finished, garbled, object_in, text_of, usage_in, words
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, Message
from extractors.qwen.sse import Event
from extractors.qwen.streams import StreamReader
from extractors.qwen.tool_calls import calls_in, offered, with_calls
from extractors.qwen.wire import dump, picture_url


def encode_text(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The body for native text generation: contents are strings."""
    return _encode(request, profile, stream=stream, listed=False)


def encode_multimodal(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The body for native multimodal generation: contents are lists."""
    return _encode(request, profile, stream=stream, listed=True)


def _encode(request: ChatRequest, profile: Profile, *, stream: bool, listed: bool) -> bytes:
    marked = profile.cache == "explicit"
    parameters: dict[str, Any] = {
        # The default is `text` for most models; thinking and tools require `message`.
        "result_format": "message",
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        **profile.always,
        **thinking_keys(request),
        **request.shape.wire,
    }
    if request.seed is not None:
        parameters["seed"] = request.seed
    if stream:
        # Without it every event repeats the whole text so far; thinking requires it.
        parameters["incremental_output"] = True
    messages: list[dict[str, Any]] = [
        {
            "role": message.role,
            "content": _parts(message, marked=marked)
            if listed or message.images or (marked and message.role == "system")
            else message.content,
        }
        for message in request.messages
    ]
    if request.tools:
        messages = with_calls(messages, request.messages)
        parameters.update(offered(request.tools))
    return dump({"model": request.model, "input": {"messages": messages}, "parameters": parameters})


def _parts(message: Message, *, marked: bool) -> list[dict[str, Any]]:
    text: dict[str, Any] = {"text": message.content}
    if marked and message.role == "system":
        text = {"type": "text", **text, "cache_control": EPHEMERAL}
    return [*({"image": picture_url(image)} for image in message.images), text]


def decode(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing, tools: bool = False
) -> ChatReply | CallError:
    """What came back, read. A 200 with a ``code`` in it is an error; ``result_format`` text is understood too."""
    data = object_in(status, headers, body, model=model)
    if isinstance(data, CallError):
        return data
    output = data.get("output")
    if status != 200 or data.get("code") or not output:
        return error_in(status, headers, data, body, model=model, pricing=pricing, missing="output")
    usage = usage_in(data, pricing)
    try:
        choice = _choice(output)
        message = choice["message"]
        return finished(
            text_of(message.get("content")) if tools else answer_in(message),
            _reason(choice) or "stop",
            usage=usage,
            model=model,
            headers=headers,
            thinking=thinking_in(message),
            refusal=words(message.get("refusal")),
            calls=calls_in(message) if tools else (),
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return garbled("the reply is JSON, but not a generation", status, body, model=model, usage=usage)


def take(reader: StreamReader, frame: Mapping[str, Any], event: Event) -> None:
    """Read one frame of a native stream. Usage is on every frame, counted up."""
    if usage := frame.get("usage"):
        reader.told = usage
    if event.name == "error" or frame.get("code"):
        # 400 is what the provider's own client takes an error for that tells no status.
        reader.fail(frame, event, status=400 if event.name == "error" else 200)
        return
    output = frame.get("output")
    if not output:
        if usage:
            return
        raise KeyError("output")
    choice = _choice(output)
    take_delta(reader, choice["message"])
    if reason := _reason(choice):
        reader.reason = reason
        reader.ended = True


def _choice(output: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice, or the one that ``result_format`` text is."""
    choices = output.get("choices")
    if choices:
        first: Mapping[str, Any] = choices[0]
        return first
    return {"message": {"content": output["text"]}, "finish_reason": output.get("finish_reason")}


def _reason(choice: Mapping[str, Any]) -> str:
    """Why the answer ended; "" while it has not. In the middle of a stream it is null, or the word."""
    reason = choice.get("finish_reason")
    return str(reason) if reason and reason != "null" else ""
