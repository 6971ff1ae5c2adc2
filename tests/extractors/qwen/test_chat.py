from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from extractors.qwen import chat
from extractors.qwen.chat import decode
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode

PRICE = Pricing((Tier(Decimal(2), Decimal(6), Decimal(1)),))
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 100},
}


def request(content: str = "hello", *, mode: Mode = Mode.JSON_OBJECT, **more: Any) -> ChatRequest:
    wire: dict[str, Any] = {"response_format": {"type": "json_object"}} if mode is Mode.JSON_OBJECT else {}
    return ChatRequest("qwen-plus", (Message("user", content),), AnswerShape("a", {}, mode, wire), **more)


def encode(request: ChatRequest, **profile: Any) -> bytes:
    return chat.encode(request, profile=Profile(name="p", **profile))


def completion(message: dict[str, Any], *, reason: str | None = "stop", usage: Any = USAGE) -> bytes:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return orjson.dumps({"model": "qwen-plus-2025", "choices": [choice], "usage": usage})


def read(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> ChatReply | CallError:
    return decode(status, headers or {}, body, model="qwen-plus", pricing=PRICE)


def reply(body: bytes, **more: Any) -> ChatReply:
    result = read(body, **more)
    assert isinstance(result, ChatReply), result
    return result


def error(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> CallError:
    result = read(body, status, headers)
    assert isinstance(result, CallError), result
    return result


# encode ---------------------------------------------------------------------------------------------


def test_a_request_carries_its_words_limits_and_the_shape_s_keys() -> None:
    body = orjson.loads(encode(request(max_output_tokens=99, temperature=0.5, seed=7)))
    assert body == {
        "model": "qwen-plus",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 99,
        "temperature": 0.5,
        "seed": 7,
        "response_format": {"type": "json_object"},
    }


def test_thinking_is_sent_only_when_it_is_decided() -> None:
    assert "enable_thinking" not in orjson.loads(encode(request()))
    assert orjson.loads(encode(request(thinking=False)))["enable_thinking"] is False


def test_a_self_hosted_server_gets_the_thinking_switch_through_its_chat_template() -> None:
    body = orjson.loads(encode(request(thinking=False), switch="chat_template_kwargs"))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking" not in body


def test_a_self_hosted_server_gets_the_thinking_budget_on_top_of_its_output_limit() -> None:
    asked = request(max_output_tokens=100, thinking=True, thinking_budget=400)
    body = orjson.loads(encode(asked, switch="chat_template_kwargs"))
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "thinking_budget": 400}
    assert body["max_tokens"] == 500
    hosted = orjson.loads(encode(asked))
    assert (hosted["max_tokens"], hosted["thinking_budget"]) == (100, 400)


def test_only_the_system_message_is_marked_for_the_explicit_cache() -> None:
    asked = replace(request(), messages=(Message("system", "long"), Message("user", "short")))
    system, user = orjson.loads(encode(asked, cache="explicit"))["messages"]
    assert system["content"] == [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]
    assert user["content"] == "short"
    for kind in ("none", "implicit"):
        assert b"cache_control" not in encode(asked, cache=kind)


def test_the_profile_s_keys_are_sent_with_every_request() -> None:
    assert orjson.loads(encode(request(), always={"presence_penalty": 0}))["presence_penalty"] == 0


def test_lone_surrogates_become_replacement_characters_and_whole_pairs_stay() -> None:
    body = orjson.loads(encode(request("a\ud800b 😀")))
    assert body["messages"][0]["content"] == "a\ufffdb 😀"


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_text_can_be_encoded_and_text_without_surrogates_arrives_as_it_is(text: str) -> None:
    content = orjson.loads(encode(request(text)))["messages"][0]["content"]
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert content == text


# decode: answers ------------------------------------------------------------------------------------


def test_a_reply_has_its_text_reason_model_and_usage_with_its_cost() -> None:
    got = reply(completion({"content": '{"a":1}', "reasoning_content": "hm"}))
    assert (got.text, got.finish_reason, got.model, got.thinking) == ('{"a":1}', "stop", "qwen-plus-2025", "hm")
    usage = got.usage
    counts = (usage.calls, usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    assert counts == (1, 1000, 500, 400, 100)
    assert usage.cost == Decimal(600 * 2 + 400 * 1 + 500 * 6) / 1_000_000


def test_what_was_written_to_the_explicit_cache_costs_a_quarter_more() -> None:
    details = {"cached_tokens": 0, "cache_creation_input_tokens": 400}
    body = completion({"content": "{}"}, usage={**USAGE, "prompt_tokens_details": details})
    explicit = Pricing(PRICE.tiers, writing=Decimal("1.25"))
    cost = decode(200, {}, body, model="m", pricing=explicit).usage.cost
    assert cost == Decimal(1000 * 2 + 100 * 2 + 500 * 6) / 1_000_000


def test_a_tool_call_s_arguments_are_the_text() -> None:
    call = {"function": {"name": "a", "arguments": '{"x": 1}'}}
    got = reply(completion({"content": "", "tool_calls": [call]}, reason="tool_calls"))
    assert (got.text, got.finish_reason) == ('{"x": 1}', "tool_calls")


def test_arguments_sent_as_an_object_or_not_at_all_are_still_json_text() -> None:
    as_object = {"function": {"name": "a", "arguments": {"x": 1}}}
    empty = {"function": {"name": "a", "arguments": ""}}
    assert reply(completion({"content": None, "tool_calls": [as_object]})).text == '{"x":1}'
    assert reply(completion({"content": None, "tool_calls": [empty]})).text == "{}"


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": '{"a":'}, {"type": "text", "text": "1}"}]
    assert reply(completion({"content": parts})).text == '{"a":1}'


def test_null_content_is_an_empty_answer_and_thinking_is_not_taken_for_one() -> None:
    got = reply(completion({"content": None, "reasoning_content": '{"a":1}'}))
    assert (got.text, got.thinking) == ("", '{"a":1}')


def test_a_cut_answer_keeps_its_reason() -> None:
    assert reply(completion({"content": '{"a'}, reason="length")).finish_reason == "length"


def test_a_partial_response_of_the_service_counts_as_cut() -> None:
    got = reply(completion({"content": '{"a'}), headers={"x-dashscope-partialresponse": "true"})
    assert got.finish_reason == "length"


def test_without_usage_the_cost_is_unknown_unless_the_model_is_free() -> None:
    body = completion({"content": "{}"}, usage=None)
    assert reply(body).usage.cost is None
    free = decode(200, {}, body, model="m", pricing=Pricing.free())
    assert free.usage.cost == 0


def test_half_a_surrogate_pair_in_a_reply_is_replaced() -> None:
    body = completion({"content": "@@"}).replace(b"@@", b"caf\\ud83d!")
    assert reply(body).text == "caf\ufffd!"


def test_a_content_filter_is_a_refusal_with_its_usage() -> None:
    got = error(completion({"content": ""}, reason="content_filter"))
    assert (got.kind, got.usage.input_tokens) == (ErrorKind.REFUSED, 1000)


# decode: what is no answer --------------------------------------------------------------------------


def test_empty_choices_are_garbled_and_keep_their_usage() -> None:
    got = error(orjson.dumps({"choices": [], "usage": USAGE}))
    assert (got.kind, got.usage.total_tokens) == (ErrorKind.GARBLED, 1500)


def test_an_error_inside_a_200_is_an_error() -> None:
    compat = error(b'{"error": {"code": "internal_error", "message": "later"}}')
    native = error(b'{"request_id": "r", "code": "Throttling", "message": "slow"}')
    assert (compat.kind, native.kind) == (ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED)


def test_a_llama_cpp_error_with_a_number_as_its_code_is_read() -> None:
    body = b'{"error":{"code":400,"message":"exceeds","type":"exceed_context_size_error","n_ctx":4096}}'
    got = error(body, 400)
    assert (got.kind, got.code) == (ErrorKind.TOO_LONG, "exceed_context_size_error")


def test_html_says_so() -> None:
    got = error(b"<!DOCTYPE html><html></html>")
    assert (got.kind, "HTML" in got.message) == (ErrorKind.GARBLED, True)


def test_html_with_403_is_about_one_record_not_about_the_key() -> None:
    assert error(b"<html>blocked</html>", 403).kind is ErrorKind.BAD_REQUEST


def test_invalid_utf8_says_so() -> None:
    got = error(b'{"choices": "\xff"}')
    assert (got.kind, "UTF-8" in got.message) == (ErrorKind.GARBLED, True)


def test_the_body_of_an_error_is_kept_to_2000_characters() -> None:
    assert error(b"<html>" + b"x" * 9000, 500).body == "<html>" + "x" * 1994


def test_what_looks_like_a_key_is_not_repeated() -> None:
    got = error(b'{"error":{"code":"invalid_api_key","message":"Incorrect API key: sk-0123456789abcdef"}}', 401)
    assert "0123456789" not in got.message + got.body


def test_the_vendor_s_own_word_on_retrying_wins() -> None:
    body = b'{"error":{"code":"invalid_request_error","message":"x"}}'
    assert error(body, 400, {"x-should-retry": "true"}).retryable
    assert not error(body, 503, {"x-should-retry": "false"}).retryable
    assert error(body, 401, {"x-should-retry": "true"}).kind is ErrorKind.KEY


def test_retry_after_is_read_as_milliseconds_seconds_or_a_date() -> None:
    def wait(**headers: str) -> float | None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return error(b"{}", 429, named).retry_after

    assert wait(retry_after_ms="250", retry_after="9") == 0.25
    assert wait(retry_after="9") == 9
    assert wait(retry_after="Wed, 21 Oct 2026 07:28:30 GMT", date="Wed, 21 Oct 2026 07:28:00 GMT") == 30
    assert wait(retry_after="Wed, 21 Oct 2026 07:28:30 GMT") is None
    assert wait(retry_after="soon", date="today") is None
    assert wait(retry_after="nan") is None
    assert wait(retry_after="-3") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["choices", "error", "code", "usage"]), inner),
    max_leaves=8,
)
MESSAGE = st.dictionaries(st.sampled_from(["content", "tool_calls", "reasoning_content", "refusal"]), JSON)
BODY = st.one_of(
    st.binary(),
    JSON.map(lambda value: orjson.dumps(value, default=str) if _fits(value) else b"{}"),
    st.builds(
        lambda m, u: orjson.dumps({"choices": [{"message": m}], "usage": u}) if _fits([m, u]) else b"", MESSAGE, JSON
    ),
)


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@given(st.sampled_from([200, 301, 400, 403, 429, 500, 599]), BODY)
def test_no_bytes_make_decode_raise(status: int, body: bytes) -> None:
    result = read(body, status)
    assert isinstance(result.usage.input_tokens, int)
    if isinstance(result, ChatReply):
        assert isinstance(result.text, str)
        result.text.encode()
