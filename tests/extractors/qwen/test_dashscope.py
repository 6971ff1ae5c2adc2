"""What only DashScope's own dialect has to read."""

from __future__ import annotations

from typing import Any

import orjson

from extractors.qwen.dialects import DASHSCOPE
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from extractors.qwen.sse import Event


def read(output: Any, **more: Any) -> ChatReply | CallError:
    body = orjson.dumps({"request_id": "r", "output": output, **more})
    return DASHSCOPE.decode(200, {}, body, model="m", pricing=Pricing.free())


def streamed(*events: Event) -> ChatReply | CallError:
    reader = DASHSCOPE.reader(model="m", pricing=Pricing.free())
    for event in events:
        reader.feed(event)
    return reader.result()


def frame(words: str, reason: Any = "null", **more: Any) -> Event:
    output = {"choices": [{"message": {"content": words}, "finish_reason": reason}]}
    return Event(orjson.dumps({"output": output, **more}), "result")


def test_the_empty_code_that_the_provider_s_client_adds_is_no_error() -> None:
    result = read({"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}, code="", message="")
    assert isinstance(result, ChatReply)


def test_a_reply_in_the_older_text_format_is_read() -> None:
    result = read({"text": "{}", "finish_reason": "length"}, usage={"input_tokens": 3, "output_tokens": 4})
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason, result.usage.total_tokens) == ("{}", "length", 7)


def test_message_may_be_spelt_msg() -> None:
    result = DASHSCOPE.decode(500, {}, b'{"code":"InternalError","msg":"later"}', model="m", pricing=Pricing.free())
    assert isinstance(result, CallError)
    assert "later" in result.message


def test_the_end_of_a_stream_may_be_told_as_null_or_as_the_word() -> None:
    result = streamed(frame('{"a":', None), frame("1", "null"), frame("}", "stop"))
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason) == ('{"a":1}', "stop")


def test_usage_counts_up_with_the_frames_and_the_last_one_holds() -> None:
    result = streamed(
        frame("{", usage={"input_tokens": 9, "output_tokens": 1}),
        frame("}", "stop", usage={"input_tokens": 9, "output_tokens": 2}),
    )
    assert (result.usage.input_tokens, result.usage.output_tokens) == (9, 2)


def test_an_error_event_that_tells_no_status_is_a_400() -> None:
    result = streamed(Event(b'{"code":"InvalidParameter","message":"url error, check url!"}', "error"))
    assert isinstance(result, CallError)
    assert (result.kind, result.http_status) == (ErrorKind.BAD_REQUEST, 400)
