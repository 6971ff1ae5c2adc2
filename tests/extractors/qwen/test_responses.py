"""What only the Responses dialect has to read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from extractors.qwen.dialects import RESPONSES
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.sse import Event


def read(output: list[dict[str, Any]], **more: Any) -> ChatReply | CallError:
    body = {"object": "response", "status": "completed", "model": "m", "output": output, **more}
    return RESPONSES.decode(200, {}, orjson.dumps(body), model="m", pricing=Pricing.free())


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words}


def streamed(*frames: dict[str, Any]) -> ChatReply | CallError:
    reader = RESPONSES.reader(model="m", pricing=Pricing.free())
    for frame in frames:
        reader.feed(Event(orjson.dumps(frame)))
    return reader.result()


def test_the_words_of_all_messages_are_the_answer_and_other_items_are_not() -> None:
    search = {"type": "web_search_call", "status": "completed"}
    result = read([search, message(text('{"a":'), text("1}"))])
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason) == ('{"a":1}', "stop")


def test_the_first_function_call_is_the_answer() -> None:
    calls = [{"type": "function_call", "name": "a", "arguments": words} for words in ('{"a":1}', '{"a":2}')]
    result = read([message(text("Let me see.")), *calls])
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason) == ('{"a":1}', "tool_calls")


def test_of_two_streamed_function_calls_the_first_is_the_answer() -> None:
    def delta(item: str, words: str) -> dict[str, Any]:
        return {"type": "response.function_call_arguments.delta", "item_id": item, "delta": words}

    end = {"type": "response.completed", "response": {"output": [], "usage": {"input_tokens": 1}}}
    result = streamed(delta("x", '{"a":'), delta("y", '{"b"'), delta("x", "1}"), delta("y", ":2}"), end)
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason) == ('{"a":1}', "tool_calls")


def test_a_call_whose_end_was_not_heard_has_not_ended() -> None:
    reader = RESPONSES.reader(model="m", pricing=Pricing.free())
    frame = {"type": "response.function_call_arguments.delta", "item_id": "x", "delta": '{"a": [1, 2'}
    reader.feed(Event(orjson.dumps(frame)))
    assert (reader.ended, reader.reason, reader.worth_keeping) == (False, "", True)


def test_a_stream_without_deltas_is_read_from_its_last_event() -> None:
    response = {"status": "completed", "output": [message(text("{}"))], "usage": {"input_tokens": 7}}
    result = streamed({"type": "response.completed", "response": response})
    assert isinstance(result, ChatReply)
    assert (result.text, result.usage.input_tokens) == ("{}", 7)


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), (None, "length"), ("content_filter", None)]
)
def test_an_incomplete_response_is_cut_or_refused(reason: str | None, finish: str | None) -> None:
    result = read([message(text('{"a'))], status="incomplete", incomplete_details={"reason": reason})
    if finish is None:
        assert isinstance(result, CallError)
        assert result.kind is ErrorKind.REFUSED
    else:
        assert isinstance(result, ChatReply)
        assert (result.text, result.finish_reason) == ('{"a', finish)


def test_a_refusal_part_is_a_refusal() -> None:
    result = read([message({"type": "refusal", "refusal": "I can't help with that."})])
    assert isinstance(result, CallError)
    assert (result.kind, "can't help" in result.message) == (ErrorKind.REFUSED, True)


def test_a_failed_response_is_its_error_though_http_says_200() -> None:
    result = read([], status="failed", error={"code": "internal_error", "message": "later"})
    assert isinstance(result, CallError)
    assert result.kind is ErrorKind.OVERLOADED


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_a_response_that_is_not_finished_is_garbled(status: str) -> None:
    result = read([message(text("{}"))], status=status)
    assert isinstance(result, CallError)
    assert (result.kind, status in result.message) == (ErrorKind.GARBLED, True)


def test_a_self_hosted_server_gets_the_thinking_switch_through_its_chat_template() -> None:
    asked = ChatRequest("m", (Message("user", "x"),), AnswerShape("a", {}, Mode.PROMPTED), thinking=False)
    body = orjson.loads(RESPONSES.encode(asked, profile=Profile(name="p", switch="chat_template_kwargs")))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking" not in body
