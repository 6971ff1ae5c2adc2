from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from extractors.qwen.dialects import CHAT
from extractors.qwen.modes import compile_shape
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import AnswerShape, ChatRequest, Image, Message, Mode, ToolSpec
from extractors.qwen.streaming import most_usage, wants_stream

SHAPE = AnswerShape("a", {}, Mode.PROMPTED)
PRICE = Pricing((Tier(Decimal(2), Decimal(6), thinking=Decimal(20)),))
HYBRID = {"thinking": "off-by-default", "max_thinking": 38_912, "stream_only_thinking": False}


def streams(profile: dict[str, Any] | None = None, *, choice: Any = "auto", **more: Any) -> bool:
    request = ChatRequest("m", (Message("user", "x"),), SHAPE, **more)
    return wants_stream(request, Profile(name="p", **(profile or {})), choice=choice)


@pytest.mark.parametrize(("tokens", "streamed"), [(2048, False), (4800, False), (4801, True), (32_768, True)])
def test_a_long_answer_is_streamed_because_the_service_ends_plain_replies_after_300_seconds(
    tokens: int, streamed: bool
) -> None:
    assert streams(max_output_tokens=tokens) is streamed


def test_a_model_that_sees_has_180_seconds() -> None:
    assert streams({"vision": True}, max_output_tokens=3000)
    assert not streams(max_output_tokens=3000)


def test_what_may_be_thought_counts() -> None:
    assert streams(HYBRID, thinking=True)
    assert not streams(HYBRID, thinking=True, thinking_budget=1000)
    assert not streams(HYBRID, thinking=False)


def test_a_model_that_thinks_only_in_streams_is_streamed_when_it_thinks() -> None:
    only = {**HYBRID, "stream_only_thinking": True}
    assert streams(only, thinking=True, thinking_budget=10)
    assert not streams(only, thinking=False)
    assert streams({"thinking": "always", "stream_only_thinking": True})


def test_a_server_on_this_machine_has_no_limit_of_time() -> None:
    assert not streams({"loopback": True}, max_output_tokens=32_768)
    assert not streams({"embedded": True}, max_output_tokens=32_768)


def test_the_embedded_model_is_listened_to_where_it_writes_lists() -> None:
    listing = AnswerShape("a", {}, Mode.GRAMMAR, lists=True)
    embedded = Profile(name="p", embedded=True)

    def heard(profile: Profile = embedded, **more: Any) -> bool:
        return wants_stream(ChatRequest("m", (), listing, **more), profile, choice="auto")

    assert heard(record="PC and Mac, or what else there is")
    assert not heard(), "nothing is known of the record"
    assert not heard(record="PC and Mac, or what else there is", tools=(ToolSpec("t", "", {}),))
    assert not heard(Profile(name="p", loopback=True), record="PC and Mac, or what else there is")
    assert not streams({"embedded": True}, record="PC and Mac, or what else there is"), "there is no list"
    assert not wants_stream(
        ChatRequest("m", (), listing, record="PC and Mac, or what else there is"), embedded, choice="never"
    )


@pytest.mark.parametrize(
    ("schema", "lists"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({"type": "object", "properties": {"a": {"type": ["array", "null"], "items": {"type": "string"}}}}, True),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "array"}]}}}, True),
        ({"type": "object", "properties": {"array": {"enum": ["array"]}}}, False),
    ],
)
def test_a_shape_knows_whether_it_has_lists(schema: dict[str, Any], lists: bool) -> None:
    assert compile_shape("a", schema, Mode.PROMPTED).lists is lists


def test_who_says_always_or_never_is_obeyed() -> None:
    assert streams({"loopback": True}, choice="always")
    assert not streams({"thinking": "always"}, choice="never", max_output_tokens=32_768)


def bound(request: ChatRequest, *pieces: str, thought: str = "", told: Any = None) -> Any:
    reader = CHAT.reader(model="m", pricing=PRICE)
    for piece in pieces:
        reader.answer(piece)
    reader.thought(thought)
    reader.told = told
    return most_usage(request, CHAT.encode(request, profile=Profile(name="p")), reader, PRICE)


def test_the_bound_of_a_stream_is_its_request_in_bytes_and_the_whole_output_limit() -> None:
    words = "größer 价格 😀" * 20
    usage = bound(ChatRequest("m", (Message("user", words),), SHAPE, max_output_tokens=100), '{"a"')
    assert usage.input_tokens > len(words.encode())
    assert usage.output_tokens >= 110
    assert usage.cost == PRICE.cost(usage)


def test_thinking_comes_on_top_and_at_its_own_price() -> None:
    request = ChatRequest("m", (Message("user", "x"),), SHAPE, max_output_tokens=100)
    plain, thought = bound(request, "{"), bound(request, "{", thought="hm" * 50)
    assert thought.output_tokens == plain.output_tokens + 100
    assert (thought.reasoning_tokens, thought.cost > plain.cost) == (100, True)


def test_what_the_stream_told_so_far_is_believed_for_the_input() -> None:
    request = ChatRequest("m", (Message("user", "x" * 5000),), SHAPE, max_output_tokens=100)
    usage = bound(request, "{", told={"input_tokens": 1234, "output_tokens": 3})
    assert (usage.input_tokens, usage.output_tokens) == (1234, 116)


def test_a_picture_by_address_counts_with_the_most_that_one_can_be() -> None:
    image = Image("image/png", url="https://pictures.example/a.png")
    plain = ChatRequest("m", (Message("user", "x"),), SHAPE)
    seen = ChatRequest("m", (Message("user", "x", (image,)),), SHAPE)
    assert bound(seen).input_tokens - bound(plain).input_tokens > 16_384
