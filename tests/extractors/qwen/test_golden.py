"""All dialects, side by side: the same questions, the same answers, other bytes."""

from __future__ import annotations

import base64
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import JobError
from extractors.qwen.dialects import CHAT, DASHSCOPE, DIALECTS, MULTIMODAL, RESPONSES, Dialect, pick_dialect
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import (
    AnswerShape,
    CallError,
    ChatReply,
    ChatRequest,
    ErrorKind,
    Image,
    Message,
    Mode,
)
from extractors.qwen.sse import Event, SseParser

GOLDEN = Path(__file__).parent / "golden"
PAIRS = sorted((path.parent.name, path.stem) for path in GOLDEN.glob("*/*.json"))
PRICE = Pricing((Tier(Decimal(2), Decimal(6), Decimal(1)),))
each_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def loaded(*parts: str) -> Any:
    return orjson.loads(GOLDEN.joinpath(*parts).read_bytes())


def asked(case: Any) -> tuple[ChatRequest, Profile]:
    """The question of a golden case."""
    given = dict(case["request"])
    messages = tuple(
        Message(one["role"], one["content"], tuple(map(picture, one.get("images", ()))))
        for one in given.pop("messages")
    )
    mode = Mode(given.pop("mode"))
    shape = AnswerShape("thing", {}, mode, given.pop("wire"))
    return ChatRequest("qwen-plus", messages, shape, **given), Profile(name="p", **case["profile"])


def picture(given: dict[str, str]) -> Image:
    return Image(given["media_type"], base64.b64decode(given.get("base64", "")), given.get("url"))


def matches(result: ChatReply | CallError, case: Any) -> None:
    """The result is the one that the case wants."""
    if "error" in case:
        assert isinstance(result, CallError), result
        assert result.kind == case["error"]["kind"]
        assert "inappropriate" in result.message
        return
    assert isinstance(result, ChatReply), result
    usage = result.usage
    assert {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "thinking": result.thinking,
        "usage": [usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens],
    } == case["answer"]
    assert (result.model, usage.calls, usage.cost) == ("qwen-plus", 1, PRICE.cost(usage))


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_a_golden_question_travels_as_the_reference_says(name: str, case: str) -> None:
    request, profile = asked(loaded(f"{case}.json"))
    assert (
        orjson.loads(DIALECTS[name].encode(request, profile=profile, stream=False))
        == loaded(name, f"{case}.json")["body"]
    )


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_a_golden_reply_is_read_as_the_same_answer_in_every_dialect(name: str, case: str) -> None:
    pair = loaded(name, f"{case}.json")
    result = DIALECTS[name].decode(pair["status"], {}, orjson.dumps(pair["reply"]), model="qwen-plus", pricing=PRICE)
    matches(result, loaded(f"{case}.json"))


@pytest.mark.parametrize("size", [1, 50, 100_000])
@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_a_golden_stream_is_read_as_the_same_answer_in_every_dialect(name: str, case: str, size: int) -> None:
    stream = (GOLDEN / name / f"{case}.sse").read_bytes()
    reader, parser = DIALECTS[name].reader(model="qwen-plus", pricing=PRICE), SseParser()
    for at in range(0, len(stream), size):
        for event in parser.feed(stream[at : at + size]):
            reader.feed(event)
    matches(reader.result(), loaded(f"{case}.json"))
    assert reader.ended
    assert reader.strange is None


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_a_streamed_question_differs_only_in_the_keys_that_ask_for_the_stream(name: str, case: str) -> None:
    request, profile = asked(loaded(f"{case}.json"))
    plain = orjson.loads(DIALECTS[name].encode(request, profile=profile, stream=False))
    streamed = orjson.loads(DIALECTS[name].encode(request, profile=profile, stream=True))
    if name.startswith("dashscope"):
        assert streamed["parameters"].pop("incremental_output") is True
    else:
        assert streamed.pop("stream") is True
        assert streamed.pop("stream_options", None) == ({"include_usage": True} if name == "chat" else None)
    assert streamed == plain


def test_a_stream_is_asked_for_with_the_headers_of_the_dialect() -> None:
    assert CHAT.headers(stream=True) == RESPONSES.headers(stream=True) == {"Accept": "text/event-stream"}
    assert DASHSCOPE.headers(stream=True) == {"Accept": "text/event-stream", "X-DashScope-SSE": "enable"}
    assert all(dialect.headers(stream=False) == {"Accept": "application/json"} for dialect in DIALECTS.values())


# Which one --------------------------------------------------------------------------------------------


def test_auto_is_the_profile_s_first_dialect() -> None:
    assert pick_dialect("auto", Profile(name="p")) is CHAT
    assert pick_dialect("auto", Profile(name="p", dialects=("responses", "chat"))) is RESPONSES


def test_what_is_asked_for_goes_above_the_profile() -> None:
    assert pick_dialect("chat", Profile(name="p", dialects=("dashscope",))) is CHAT


def test_the_native_path_is_the_one_that_the_model_is_served_at() -> None:
    assert pick_dialect("dashscope", Profile(name="p")) is DASHSCOPE
    assert pick_dialect("dashscope", Profile(name="p", vision=True)) is MULTIMODAL
    assert pick_dialect("dashscope", Profile(name="p"), images=True) is MULTIMODAL
    assert pick_dialect("chat", Profile(name="p", vision=True), images=True) is CHAT


def test_an_unknown_dialect_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(JobError, match="auto, chat, responses, dashscope"):
        pick_dialect("anthropic", Profile(name="p"))


# What holds in each ---------------------------------------------------------------------------------


def sent_words(body: Any) -> list[str]:
    """The messages' words, wherever a dialect puts them."""
    messages = body.get("messages") or body["input"]
    messages = messages["messages"] if isinstance(messages, dict) else messages
    contents = [message["content"] for message in messages]
    return [content if isinstance(content, str) else content[-1]["text"] for content in contents]


@each_dialect
@given(words=st.lists(st.text(st.characters(codec=None, categories=None)), min_size=1, max_size=3))
def test_any_words_can_be_sent_and_arrive_unless_utf_8_cannot_carry_them(dialect: Dialect, words: list[str]) -> None:
    request = ChatRequest("m", tuple(Message("user", w) for w in words), AnswerShape("a", {}, Mode.PROMPTED))
    got = sent_words(orjson.loads(dialect.encode(request, profile=Profile(name="p"), stream=False)))
    assert got == [w.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for w in words]


@each_dialect
def test_a_switch_that_is_not_decided_is_not_sent(dialect: Dialect) -> None:
    request = ChatRequest("m", (Message("user", "x"),), AnswerShape("a", {}, Mode.PROMPTED))
    body = dialect.encode(request, profile=Profile(name="p"), stream=False)
    assert b"thinking" not in body
    assert b"seed" not in body


@each_dialect
def test_a_budget_is_not_sent_to_a_model_that_is_told_not_to_think(dialect: Dialect) -> None:
    shape = AnswerShape("a", {}, Mode.PROMPTED)
    request = ChatRequest("m", (Message("user", "x"),), shape, thinking=False, thinking_budget=100)
    assert b"thinking_budget" not in dialect.encode(request, profile=Profile(name="p"), stream=False)


@each_dialect
def test_a_partial_response_of_the_service_counts_as_cut(dialect: Dialect) -> None:
    body = orjson.dumps(loaded(dialect.name, "schema.json")["reply"])
    headers = {"x-dashscope-partialresponse": "true"}
    result = dialect.decode(200, headers, body, model="m", pricing=PRICE)
    assert isinstance(result, ChatReply)
    assert result.finish_reason == "length"


@each_dialect
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"code": "Throttling", "message": "slow", "request_id": "r"}, ErrorKind.RATE_LIMITED),
        (200, {"error": {"code": "internal_error", "message": "later"}}, ErrorKind.OVERLOADED),
        (200, {}, ErrorKind.GARBLED),
        (200, [1], ErrorKind.GARBLED),
        (401, {"code": "InvalidApiKey", "message": "no", "request_id": "r"}, ErrorKind.KEY),
        (401, {"error": {"code": "invalid_api_key", "message": "no"}}, ErrorKind.KEY),
        (429, {"error": {"code": "insufficient_quota", "message": "wait"}}, ErrorKind.RATE_LIMITED),
        (503, {}, ErrorKind.OVERLOADED),
    ],
)
def test_an_error_is_the_same_error_in_every_dialect_and_spelling(
    dialect: Dialect, status: int, body: Any, kind: ErrorKind
) -> None:
    result = dialect.decode(status, {}, orjson.dumps(body), model="m", pricing=PRICE)
    assert isinstance(result, CallError)
    assert result.kind is kind


@each_dialect
def test_an_error_frame_in_a_stream_is_the_error_of_the_table(dialect: Dialect) -> None:
    for data in (b'{"error":{"code":"limit_requests","message":"slow"}}', b'{"code":"Throttling","message":"slow"}'):
        reader = dialect.reader(model="m", pricing=PRICE)
        reader.feed(Event(data, "error", 429))
        result = reader.result()
        assert isinstance(result, CallError)
        assert (result.kind, result.http_status) == (ErrorKind.RATE_LIMITED, 429)


@each_dialect
def test_a_stream_of_something_else_is_garbled(dialect: Dialect) -> None:
    for events in ([], [Event(b"<html>")], [Event(b"[1]"), Event(b'"a"')]):
        reader = dialect.reader(model="m", pricing=PRICE)
        for event in events:
            reader.feed(event)
        result = reader.result()
        assert isinstance(result, CallError)
        assert result.kind is ErrorKind.GARBLED


@each_dialect
def test_frames_that_came_without_empty_lines_between_them_are_read_one_by_one(dialect: Dialect) -> None:
    stream = (GOLDEN / dialect.name / "schema.sse").read_bytes()
    frames = [event.data for event in SseParser().feed(stream)]
    reader = dialect.reader(model="qwen-plus", pricing=PRICE)
    reader.feed(Event(b"\n".join(frames)))
    matches(reader.result(), loaded("schema.json"))


# Nothing makes them raise -----------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "delta",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "finish_reason",
        "usage",
        "error",
        "code",
        "type",
        "output",
        "text",
        "response",
        "status",
        "item",
        "summary",
        "incomplete_details",
        "refusal",
        "prompt_tokens",
        "input_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "index",
        "model",
        "reasoning_content",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5)
NAMES = st.sampled_from(
    [
        "response.output_text.delta",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "error",
        "message",
        "response.function_call_arguments.delta",
        "reasoning",
        "function_call",
        "output_text",
        "incomplete",
        "null",
    ]
)
TREES = st.recursive(
    LEAVES | NAMES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
BODIES = st.one_of(st.binary(max_size=40), TREES.map(orjson.dumps))


@pytest.mark.parametrize(
    "body", [b'{"message":' + b"[" * 900 + b"]" * 900 + b"}", b'{"a":"\\ud800","message":[' + b"9" * 400 + b"]}"]
)
@each_dialect
def test_depth_and_size_do_not_make_decode_raise(dialect: Dialect, body: bytes) -> None:
    assert isinstance(dialect.decode(400, {}, body, model="m", pricing=PRICE), CallError)


@each_dialect
@given(status=st.sampled_from([200, 301, 400, 403, 429, 500]), body=BODIES)
def test_no_bytes_make_decode_raise(dialect: Dialect, status: int, body: bytes) -> None:
    result = dialect.decode(status, {}, body, model="m", pricing=PRICE)
    assert result.usage.calls >= 0
    if isinstance(result, ChatReply):
        result.text.encode()
        result.thinking.encode()


@each_dialect
@given(bodies=st.lists(BODIES, max_size=6), name=st.sampled_from(["", "error", "result"]))
def test_no_events_make_a_reader_raise(dialect: Dialect, bodies: list[bytes], name: str) -> None:
    reader = dialect.reader(model="m", pricing=PRICE)
    for body in bodies:
        reader.feed(Event(body, name))
    result = reader.result()
    if isinstance(result, ChatReply):
        result.text.encode()


@each_dialect
@given(data=st.data())
def test_a_spoiled_golden_reply_does_not_make_decode_raise(dialect: Dialect, data: st.DataObject) -> None:
    reply = loaded(dialect.name, data.draw(st.sampled_from(["schema.json", "tools.json", "thinking.json"])))["reply"]
    spoiled = _spoil(reply, data)
    result = dialect.decode(200, {}, orjson.dumps(spoiled), model="m", pricing=PRICE)
    if isinstance(result, ChatReply):
        result.text.encode()


def _spoil(value: Any, data: st.DataObject) -> Any:
    """The value with one thing on the way to a leaf replaced by anything."""
    if not value or not isinstance(value, dict | list) or data.draw(st.integers(0, 4)) == 0:
        return data.draw(TREES)
    key = data.draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    spoiled = value.copy()
    spoiled[key] = _spoil(value[key], data)
    return spoiled
