"""The OpenAI-compatible chat dialect: a ``ChatRequest`` to bytes, bytes to a ``ChatReply`` or ``CallError``.

Pure: no socket, no clock. ``decode`` never raises, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.replies import arguments_text, error_in, finished, garbled, object_in, text_of, usage_in, words
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, Message
from extractors.qwen.sse import Event
from extractors.qwen.streams import StreamReader
from extractors.qwen.tool_calls import calls_in, offered, with_calls
from extractors.qwen.wire import dump, picture_url

EPHEMERAL: Mapping[str, str] = {"type": "ephemeral"}
"""The explicit cache marker: what stands before it is kept for five minutes."""


def encode(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The JSON body of a request, non-standard keys at the top level, as they travel."""
    marked = profile.cache == "explicit"
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [
            {"role": message.role, "content": message.content}
            if not message.images and not (marked and message.role == "system")
            else {"role": message.role, "content": _parts(message, marked=marked)}
            for message in request.messages
        ],
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        **profile.always,
    }
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if profile.embedded:
            body["timings_per_token"] = True
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": 1}
    if request.seed is not None:
        body["seed"] = request.seed
    if request.thinking is not None or request.thinking_budget is not None:
        _switch_thinking(body, request, profile)
    body.update(request.shape.wire)
    if request.tools:
        body["messages"] = with_calls(body["messages"], request.messages)
        body.update(offered(request.tools))
    return dump(body)


def _parts(message: Message, *, marked: bool) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": picture_url(image)}} for image in message.images
    ]
    words: dict[str, Any] = {"type": "text", "text": message.content}
    if marked and message.role == "system":
        words["cache_control"] = EPHEMERAL
    return [*parts, words]


def _switch_thinking(body: dict[str, Any], request: ChatRequest, profile: Profile) -> None:
    """Set the model's switch where the profile says that it is. A self-hosted server counts the thinking as
    output, so its budget goes on top of the limit; the hosted service's ``max_tokens`` is the answer alone."""
    keys = thinking_keys(request)
    if profile.switch == "enable_thinking":
        body.update(keys)
        return
    body[profile.switch] = keys
    if request.thinking and request.thinking_budget:
        body["max_tokens"] += request.thinking_budget


def thinking_keys(request: ChatRequest) -> dict[str, Any]:
    """``enable_thinking`` and ``thinking_budget``, each only where it is decided; no budget for who does not think."""
    keys: dict[str, Any] = {}
    if request.thinking is not None:
        keys["enable_thinking"] = request.thinking
    if request.thinking_budget is not None and request.thinking is not False:
        keys["thinking_budget"] = request.thinking_budget
    return keys


def decode(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing, tools: bool = False
) -> ChatReply | CallError:
    """What came back, read. ``headers`` is looked up with lower-case names; ``tools``: calls are told apart from the
    answer."""
    data = object_in(status, headers, body, model=model)
    if isinstance(data, CallError):
        return data
    choices = data.get("choices")
    if status != 200 or not choices:
        return error_in(status, headers, data, body, model=model, pricing=pricing, missing="choices")
    usage = usage_in(data, pricing)
    try:
        choice = choices[0]
        message = choice["message"]
        return finished(
            text_of(message.get("content")) if tools else answer_in(message),
            str(choice.get("finish_reason") or "stop"),
            usage=usage,
            model=str(data.get("model") or model),
            headers=headers,
            thinking=thinking_in(message),
            refusal=words(message.get("refusal")),
            tokens=tokens_in(choice),
            calls=calls_in(message) if tools else (),
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return garbled("the reply is JSON, but not a chat completion", status, body, model=model, usage=usage)


def answer_in(message: Mapping[str, Any]) -> str:
    """The answer in an assistant's message: the first tool call's arguments, else the content."""
    calls = message.get("tool_calls")
    if calls:
        return arguments_text(calls[0]["function"]["arguments"])
    return text_of(message.get("content"))


def tokens_in(choice: Mapping[str, Any]) -> list[Any]:
    """The tokens of a choice with their logarithmic probabilities; none where there are none."""
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    return tokens if isinstance(tokens, list) else []


def thinking_in(message: Mapping[str, Any]) -> str:
    """What was thought: ``reasoning_content``, or ``reasoning`` as newer vLLM calls it."""
    return words(message.get("reasoning_content") or message.get("reasoning"))


def take(reader: StreamReader, frame: Mapping[str, Any], event: Event) -> None:
    """Read one frame of a streamed chat completion."""
    choices = frame.get("choices")
    usage = frame.get("usage")
    if usage:
        reader.told = usage
    elif timings := frame.get("timings"):
        reader.told = _counted(timings)
    if not choices:
        if "error" in frame or (usage is None and (frame.get("code") or event.name == "error")):
            reader.fail(frame, event)
        return
    choice = choices[0]
    if name := frame.get("model"):
        reader.model = str(name)
    delta = choice.get("delta") or choice.get("message") or {}
    take_delta(reader, delta)
    if "timings" in frame:
        reader.spelt(tokens_in(choice), text_of(delta.get("content")))
    else:
        reader.tokens.extend(tokens_in(choice))
    reason = choice.get("finish_reason")
    if reason and reason != "null":
        reader.reason = str(reason)


def _counted(timings: Mapping[str, Any]) -> dict[str, Any]:
    """The usage so far, as llama.cpp tells it with each token where it is asked to (``timings_per_token``)."""
    cached = timings.get("cache_n", 0)
    return {
        "prompt_tokens": timings["prompt_n"] + cached,
        "completion_tokens": timings["predicted_n"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def take_delta(reader: StreamReader, delta: Mapping[str, Any]) -> None:
    """Read what one frame adds to the message. Of several tool calls the first alone is the answer, unless the
    reader wants the calls."""
    content = delta.get("content")
    if content:
        reader.answer(text_of(content))
    if thought := thinking_in(delta):
        reader.thought(thought)
    for call in delta.get("tool_calls") or ():
        if reader.calls is not None:
            reader.calls.add(call)
        elif not call.get("index"):
            arguments = call["function"].get("arguments")
            if arguments:
                reader.answer(arguments if isinstance(arguments, str) else arguments_text(arguments))
    if refusal := delta.get("refusal"):
        reader.refused(words(refusal))
