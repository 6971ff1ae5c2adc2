"""The official ``dashscope`` client works against the fake service."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import dashscope
import pytest
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.api_entities.http_request import close_shared_sync_session

from tests.fakes.qwen import FakeQwen, Fault, Reply

TEXT = '{"name":"kettle","price":12.5}'
QUESTION = [{"role": "user", "content": "Which product? Give JSON."}]
PICTURE = [{"role": "user", "content": [{"image": "https://shop.example/kettle.png"}, {"text": "What is it?"}]}]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQwen]:
    with FakeQwen(Reply(TEXT, thinking="It says kettle.")) as qwen:
        monkeypatch.setattr(dashscope, "base_http_api_url", qwen.native_url)
        monkeypatch.setattr(dashscope, "api_key", "sk-test")
        yield qwen
        close_shared_sync_session()


def generate(**more: Any) -> Any:
    return dashscope.Generation.call("qwen-plus", messages=QUESTION, result_format="message", **more)


def test_generation(service: FakeQwen) -> None:
    got = generate(response_format={"type": "json_object"}, seed=7, temperature=0)
    assert (got.status_code, got.output.choices[0].message.content) == (HTTPStatus.OK, TEXT)
    assert got.output.choices[0].message.reasoning_content == "It says kettle."
    assert got.usage.total_tokens == got.usage.input_tokens + got.usage.output_tokens
    assert service.requests[0].asked["seed"] == 7


def test_the_result_is_text_unless_a_message_is_asked_for(service: FakeQwen) -> None:
    got = dashscope.Generation.call("qwen-plus", prompt="Which product?")
    assert (got.output.text, got.output.finish_reason) == (TEXT, "stop")


def test_streamed_generation_in_deltas(service: FakeQwen) -> None:
    got = list(generate(stream=True, incremental_output=True))
    messages = [one.output.choices[0].message for one in got]
    assert "".join(message.content for message in messages) == TEXT
    assert "".join(message.reasoning_content for message in messages) == "It says kettle."
    assert [one.output.choices[0].finish_reason for one in got[-2:]] == ["null", "stop"]


def test_streamed_generation_repeats_the_whole_text_unless_deltas_are_asked_for(service: FakeQwen) -> None:
    service.answer_with(TEXT)
    texts = [one.output.choices[0].message.content for one in generate(stream=True)]
    assert texts[-1] == TEXT
    assert all(after.startswith(before) for before, after in pairwise(texts))


def test_a_tool_is_called_whole_and_in_pieces(service: FakeQwen) -> None:
    tools = [{"type": "function", "function": {"name": "give", "parameters": {"type": "object"}}}]
    choice = {"type": "function", "function": {"name": "give"}}
    call = generate(tools=tools, tool_choice=choice).output.choices[0].message.tool_calls[0]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("give", TEXT)
    streamed = list(generate(tools=tools, tool_choice=choice, stream=True, incremental_output=True))
    calls = [one.output.choices[0].message.get("tool_calls") for one in streamed]
    assert "".join(one[0]["function"]["arguments"] for one in calls if one) == TEXT


def test_multimodal_conversation(service: FakeQwen) -> None:
    got = dashscope.MultiModalConversation.call(model="qwen3-vl-plus", messages=PICTURE)
    assert got.output.choices[0].message.content == [{"text": TEXT}]
    assert got.usage["image_tokens"] > 0
    assert service.requests[0].asked.images == 1


def test_streamed_multimodal_conversation(service: FakeQwen) -> None:
    got = dashscope.MultiModalConversation.call(
        model="qwen3-vl-plus", messages=PICTURE, stream=True, incremental_output=True
    )
    parts = [part for one in got for part in one.output.choices[0].message.content]
    assert "".join(part["text"] for part in parts) == TEXT


def test_a_model_on_the_other_path_is_a_url_error(service: FakeQwen) -> None:
    for got in (
        dashscope.MultiModalConversation.call(model="qwen-plus", messages=PICTURE),
        dashscope.Generation.call("qwen3-vl-plus", messages=QUESTION),
    ):
        assert (got.status_code, got.code, got.message) == (400, "InvalidParameter", "url error, check url!")


def test_text_embedding(service: FakeQwen) -> None:
    got = dashscope.TextEmbedding.call("text-embedding-v4", ["one", "two"], dimension=128)
    assert [len(row["embedding"]) for row in got.output["embeddings"]] == [128, 128]
    refused = dashscope.TextEmbedding.call("text-embedding-v4", ["x"] * 11)
    assert (refused.status_code, refused.code) == (400, "InvalidParameter")
    assert "batch size is invalid" in refused.message


@pytest.mark.parametrize("fault", [Fault.status(429, "limit_requests"), Fault.framed(429, "limit_requests")])
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_native_code(service: FakeQwen, fault: Fault, stream: bool) -> None:
    service.answer_with(fault)
    got = next(iter(generate(stream=True, incremental_output=True))) if stream else generate()
    assert (got.status_code, got.code) == (429, "Throttling.RateQuota")


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(service: FakeQwen) -> None:
    service.answer_with(Fault.error_in_stream(answer=TEXT))
    got = list(generate(stream=True, incremental_output=True))
    assert [one.status_code for one in got] == [200] * (len(got) - 1) + [500]
    assert (got[-1].code, got[-1].message) == ("InternalError", "Try again.")


async def test_the_asynchronous_client_streams_as_well(service: FakeQwen) -> None:
    stream = await dashscope.AioGeneration.call(
        "qwen-plus", messages=QUESTION, result_format="message", stream=True, incremental_output=True
    )
    texts = [one.output.choices[0].message.content async for one in stream]
    assert "".join(texts) == TEXT
    await close_shared_aio_session()
