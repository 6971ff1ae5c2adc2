"""The official ``openai`` client works against the fake service."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.fakes.qwen import FakeQwen, Fault, Reply, Rules

TEXT = '{"name":"kettle","price":12.5}'
QUESTION = [{"role": "user", "content": "Which product? Give JSON."}]
TOOL = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.fixture
def service() -> Iterator[FakeQwen]:
    with FakeQwen(Reply(TEXT, thinking="It says kettle.")) as qwen:
        yield qwen


@pytest.fixture
def client(service: FakeQwen) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=service.compat_url, max_retries=0, timeout=10) as made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(
        model="qwen-plus", messages=QUESTION, response_format={"type": "json_object"}, seed=7
    )
    assert got.choices[0].message.content == TEXT
    assert got.choices[0].message.reasoning_content == "It says kettle."
    assert got.choices[0].finish_reason == "stop"
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens > 0


def test_streamed_chat_brings_thinking_apart_and_the_usage_last(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="qwen-plus", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "It says kettle."
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_streamed_chat_has_no_usage_unless_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="qwen-plus", messages=QUESTION, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_named_tool_is_called_whole_and_in_pieces(client: openai.OpenAI) -> None:
    asked = {
        "model": "qwen-plus",
        "messages": QUESTION,
        "tools": [{"type": "function", "function": {"name": "give", "parameters": TOOL}}],
        "tool_choice": {"type": "function", "function": {"name": "give"}},
    }
    whole = client.chat.completions.create(**asked).choices[0]
    assert (whole.message.tool_calls[0].function.arguments, whole.finish_reason) == (TEXT, "tool_calls")
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == TEXT
    assert final.choices[0].message.tool_calls[0].function.name == "give"


def test_responses(client: openai.OpenAI) -> None:
    got = client.responses.create(model="qwen-plus", instructions="Be short.", input="Which product?")
    assert (got.status, got.output_text) == ("completed", TEXT)
    assert got.output[0].summary[0].text == "It says kettle."
    assert got.usage.total_tokens == got.usage.input_tokens + got.usage.output_tokens


def test_streamed_responses_build_up_what_the_last_event_holds(client: openai.OpenAI) -> None:
    with client.responses.stream(model="qwen-plus", input="Which product?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == TEXT
    assert final.output_text == TEXT
    assert events[-1].type == "response.completed"
    assert [one.sequence_number for one in events] == list(range(len(events)))


def test_a_response_calls_its_tool_in_both_forms(client: openai.OpenAI) -> None:
    asked = {
        "model": "qwen-plus",
        "input": "Which product?",
        "tools": [{"type": "function", "name": "give", "parameters": TOOL}],
        "tool_choice": {"type": "function", "name": "give"},
    }
    call = client.responses.create(**asked).output[-1]
    assert (call.type, call.name, call.arguments) == ("function_call", "give", TEXT)
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output[-1].arguments == TEXT


def test_an_answer_cut_by_the_limit_is_incomplete(service: FakeQwen, client: openai.OpenAI) -> None:
    service.answer_with(Fault.truncated('{"name": "ket'))
    got = client.responses.create(model="qwen-plus", input="Which product?")
    assert (got.status, got.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert client.chat.completions.create(model="q", messages=QUESTION).choices[0].finish_reason == "length"


def test_embeddings_of_texts_that_share_words_lie_closer(client: openai.OpenAI) -> None:
    texts = ["a red kettle", "a blue kettle", "quarterly tax return"]
    got = client.embeddings.create(model="text-embedding-v4", input=texts, dimensions=256, encoding_format="float")
    kettle, another, tax = (row.embedding for row in got.data)

    def close(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert len(kettle) == 256
    assert close(kettle, kettle) == pytest.approx(1)
    assert close(kettle, another) > 0.5 > close(kettle, tax)


def test_more_than_ten_texts_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="batch size is invalid"):
        client.embeddings.create(model="text-embedding-v4", input=["x"] * 11)


def test_a_text_over_the_limit_is_refused_by_its_length(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Range of input length"):
        client.embeddings.create(model="text-embedding-v4", input=["x" * 40_000])


def test_files_are_kept_listed_read_and_deleted(client: openai.OpenAI) -> None:
    data = b'{"custom_id":"1"}\r\n\r\n--\xff\x00'
    made = client.files.create(file=("lines.jsonl", data), purpose="batch")
    assert (made.filename, made.bytes, made.status) == ("lines.jsonl", len(data), "processed")
    assert client.files.content(made.id).content == data
    assert [one.id for one in client.files.list(purpose="batch")] == [made.id]
    assert client.files.retrieve(made.id).bytes == len(data)
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.BadRequestError, match="File not found"):
        client.files.retrieve(made.id)


def test_models_are_listed(service: FakeQwen, client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["qwen-plus"]


def test_errors_arrive_as_the_client_s_own(service: FakeQwen, client: openai.OpenAI) -> None:
    service.answer_with(Fault.named("429-burst"))
    with pytest.raises(openai.RateLimitError, match="increased too quickly") as limited:
        client.chat.completions.create(model="qwen-plus", messages=QUESTION)
    assert limited.value.code == "limit_burst_rate"
    service.answer_with(Fault.error_in_stream(answer=TEXT))
    with pytest.raises(openai.APIError, match="Try again"):
        list(client.chat.completions.create(model="qwen-plus", messages=QUESTION, stream=True))
    *before, last = client.responses.create(model="qwen-plus", input="?", stream=True)
    assert (last.type, last.message, last.sequence_number) == ("error", "Try again.", len(before))


def test_a_wrong_key_is_refused_everywhere() -> None:
    with (
        FakeQwen(rules=Rules(api_key="right")) as service,
        openai.OpenAI(api_key="wrong", base_url=service.compat_url, max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="qwen-plus", messages=QUESTION)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        with pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model="text-embedding-v4", input="x")


def test_files_and_batches(client: openai.OpenAI, service: FakeQwen) -> None:
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "qwen-plus", "messages": QUESTION, "enable_thinking": False}}
        for n in range(3)
    ]  # fmt: skip
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    uploaded = client.files.create(file=("in.jsonl", data), purpose="batch")
    made = client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h",
        metadata={"ds_name": "three"},
    )  # fmt: skip
    assert made.status == "validating"
    while (batch := client.batches.retrieve(made.id)).status not in ("completed", "failed"):
        assert batch.status == "in_progress"
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 3, 3)
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(row["custom_id"] for row in rows) == ["c0", "c1", "c2"]
    assert rows[0]["response"]["body"]["choices"][0]["message"]["content"] == TEXT
    assert [one.id for one in client.batches.list()] == [made.id]
    assert service.count == 0, "lines of a batch are no live requests"


def test_a_batch_is_cancelled_with_what_is_done(client: openai.OpenAI, service: FakeQwen) -> None:
    service.batches.polls = 10
    body = {"model": "qwen-plus", "messages": QUESTION}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    data = b"".join(json.dumps({**line, "custom_id": f"c{n}"}).encode() + b"\n" for n in range(4))
    uploaded = client.files.create(file=("in.jsonl", data), purpose="batch")
    made = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert client.batches.cancel(made.id).status == "cancelling"
    batch = client.batches.retrieve(made.id)
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 2)


def test_a_file_with_two_models_is_refused_as_a_whole(client: openai.OpenAI) -> None:
    data = b"".join(
        json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
                    "body": {"model": name, "messages": QUESTION}}).encode() + b"\n"
        for name in ("qwen-plus", "qwen-max")
    )  # fmt: skip
    uploaded = client.files.create(file=("in.jsonl", data), purpose="batch")
    made = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = client.batches.retrieve(made.id)
    assert batch.status == "failed"
    assert batch.errors.data[0].code == "mismatched_model"
