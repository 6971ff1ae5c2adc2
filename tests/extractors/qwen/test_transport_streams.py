"""Streams over real HTTP: how they end well, how they are ended, and what is kept of one that was lost."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.qwen.dialects import CHAT, DIALECTS, Dialect
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import HttpTransport
from tests.extractors.qwen.scripted import CHAT_USAGE, DONE, HEAD, USAGE, Step, chat_frame, playing
from tests.fakes.qwen import FakeQwen, Fault, Reply, Rules

KEY = "plainkeywithoutprefix"
PRICE = Pricing((Tier(Decimal(2), Decimal(6), Decimal(1)),))
ANSWER = '{"items":[{"name":"kettle","price":12.5},{"name":"lamp","price":3}]}'
HALF = '{"items":[{"name":"kettle","price":12.5},{"name":"la'
each_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def transport(url: str, *, dialect: Dialect = CHAT, stream: Any = "always", **more: Any) -> HttpTransport:
    return HttpTransport(
        url,
        api_key=SecretStr(KEY),
        pricing=PRICE,
        dialect=dialect,
        stream=stream,
        **{
            "profile": Profile(name="p", vision=dialect.name.endswith("multimodal")),
            "timeout": 5.0,
            "idle_timeout": 3.0,
            "grace": 0.2,
            **more,
        },
    )


def request(dialect: Dialect = CHAT, **more: Any) -> ChatRequest:
    shape = AnswerShape("a", {}, Mode.JSON_OBJECT, {"response_format": {"type": "json_object"}})
    model = "qwen3-vl-plus" if dialect.name.endswith("multimodal") else "qwen-plus"
    return ChatRequest(model, (Message("user", "some json"),), shape, **{"max_output_tokens": 100, **more})


async def ask(url: str, dialect: Dialect = CHAT, **more: Any) -> ChatReply | CallError:
    async with transport(url, dialect=dialect, **more) as call:
        return await call(request(dialect))


async def play(*script: Step, head: bytes = HEAD, **more: Any) -> ChatReply | CallError:
    async with playing(script, head=head) as server:
        return await ask(server.url, **more)


def reply(result: ChatReply | CallError) -> ChatReply:
    assert isinstance(result, ChatReply), result
    return result


def error(result: ChatReply | CallError) -> CallError:
    assert isinstance(result, CallError), result
    return result


# Ended by itself ------------------------------------------------------------------------------------


@each_dialect
async def test_a_stream_brings_the_same_reply_as_the_whole_one(dialect: Dialect) -> None:
    with FakeQwen(Reply(ANSWER, thinking="Two things.", tokens=(50, 20, 10, 5))) as qwen:
        streamed = reply(await ask(qwen.base_url, dialect))
        whole = reply(await ask(qwen.base_url, dialect, stream="never"))
        assert [seen.headers["accept"] for seen in qwen.requests] == ["text/event-stream", "application/json"]
    assert (streamed.text, streamed.thinking) == (ANSWER, "Two things.")
    assert (streamed.text, streamed.thinking, streamed.usage, streamed.finish_reason, streamed.model) == (
        (whole.text, whole.thinking, whole.usage, whole.finish_reason, whole.model)
    )
    assert not streamed.usage_estimated


@each_dialect
async def test_connections_are_kept_after_a_stream_that_was_read_to_its_end(dialect: Dialect) -> None:
    with FakeQwen("{}") as qwen:
        async with transport(qwen.base_url, dialect=dialect) as call:
            for _ in range(4):
                reply(await call(request(dialect)))
        assert qwen.left_early == 0


async def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = json.dumps({"choices": [{"message": {"content": ANSWER}}], "usage": USAGE}).encode()
    head = HEAD.replace(b"text/event-stream", b"application/json")
    assert reply(await play(whole, head=head)).text == ANSWER


async def test_usage_is_that_of_the_last_event() -> None:
    result = reply(await play(chat_frame(ANSWER, reason="stop"), CHAT_USAGE, DONE))
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage_estimated) == (1000, 500, False)
    assert result.usage.cost == Decimal(1000 * 2 + 500 * 6) / 1_000_000


async def test_a_stream_without_usage_is_charged_at_its_bound() -> None:
    result = reply(await play(chat_frame(ANSWER, reason="stop"), DONE))
    assert result.usage_estimated
    assert result.usage.output_tokens == 116
    assert result.usage.input_tokens > 100
    assert result.usage.cost is not None and result.usage.cost > Decimal("0.0007")


async def test_an_answer_cut_by_the_output_limit_says_length() -> None:
    assert reply(await play(chat_frame(HALF, reason="length"), CHAT_USAGE, DONE)).finish_reason == "length"


# Stopped by us --------------------------------------------------------------------------------------


async def test_the_connection_is_closed_once_the_value_is_whole_and_nothing_more_comes() -> None:
    async with playing([chat_frame(ANSWER), "hang"]) as server:
        start = time.perf_counter()
        result = reply(await ask(server.url, grace=0.2))
        assert 0.15 < time.perf_counter() - start < 2
        await asyncio.wait_for(server.left.wait(), 2)
    assert (result.text, result.finish_reason, result.usage_estimated) == (ANSWER, "stop", True)


async def test_the_usage_that_comes_within_the_grace_is_taken() -> None:
    result = reply(await play(chat_frame(ANSWER), 0.05, chat_frame(reason="stop"), CHAT_USAGE, DONE, grace=1.0))
    assert (result.usage.input_tokens, result.usage_estimated) == (1000, False)


async def test_a_model_that_goes_on_talking_after_its_answer_is_not_listened_to() -> None:
    async with playing(
        [chat_frame(ANSWER), *[chat_frame("And another thing. ") for _ in range(100)], "hang"]
    ) as server:
        result = reply(await ask(server.url, grace=3.0))
        await asyncio.wait_for(server.left.wait(), 2)
    assert (result.text, result.finish_reason) == (ANSWER, "stop")


@pytest.mark.parametrize("piece", [" \n\t ", '{"name": "kettle", "price": 1.5}, '])
async def test_a_loop_is_left_at_once(piece: str) -> None:
    slowly: list[Step] = [step for _ in range(1000) for step in (chat_frame(piece), 0.002)]
    async with playing([chat_frame('{"items":['), *slowly, "hang"]) as server:
        result = reply(await ask(server.url))
        await asyncio.wait_for(server.left.wait(), 2)
        assert server.sent < 900
    assert (result.finish_reason, result.usage_estimated) == ("loop", True)
    assert result.text.startswith('{"items":[')


@each_dialect
@pytest.mark.parametrize("fault", [Fault.whitespace(), Fault.repetition()], ids=["whitespace", "repetition"])
async def test_a_loop_is_seen_in_every_dialect(dialect: Dialect, fault: Fault) -> None:
    with FakeQwen(fault) as qwen:
        assert reply(await ask(qwen.base_url, dialect)).finish_reason == "loop"


def counted(piece: str, made: int) -> bytes:
    return chat_frame(piece, timings={"cache_n": 40, "prompt_n": 12, "predicted_n": made})


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_list_that_goes_round_is_left_and_the_embedded_server_has_counted(embedded: bool) -> None:
    pieces: list[Step] = [step for n in range(400) for step in (counted('"PC", ', n + 1), 0.002)]
    profile = Profile(name="p", embedded=embedded)
    async with playing([counted('{"items":[', 0), *pieces, "hang"]) as server:
        async with transport(server.url, profile=profile) as call:
            result = reply(await call(request(record="PC " * 20)))
        await asyncio.wait_for(server.left.wait(), 2)
    assert result.finish_reason == "loop"
    assert 20 < result.text.count("PC") < 60, "soon after there were more of them than the record has words"
    assert server.body.get("timings_per_token", False) is embedded
    assert result.usage_estimated is not embedded
    if embedded:
        assert (result.usage.input_tokens, result.usage.cached_tokens) == (52, 40)
        assert result.usage.output_tokens == result.text.count("PC")
    else:
        assert result.usage.input_tokens == 52 and result.usage.output_tokens >= 116, "a bound: it may write on"


async def test_a_list_is_not_looked_at_where_nothing_is_known_of_the_record() -> None:
    pieces = [chat_frame('"PC", ') for _ in range(60)]
    result = reply(await play(chat_frame('{"items":['), *pieces, chat_frame("1]}", reason="stop"), CHAT_USAGE, DONE))
    assert (result.finish_reason, result.text.count("PC")) == ("stop", 60)


async def test_thinking_in_circles_is_a_loop_too() -> None:
    frames = [chat_frame(reasoning_content="Wait, let me think again. ") for _ in range(300)]
    assert reply(await play(*frames, "hang")).finish_reason == "loop"


async def test_a_cancelled_call_closes_the_connection_at_once() -> None:
    async with playing([chat_frame(HALF), "hang"]) as server, transport(server.url) as call:
        task = asyncio.create_task(call(request()))
        await asyncio.wait_for(server.begun.wait(), 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.left.wait(), 1)


# Lost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_what_is_whole_of_a_list_is_kept_when_the_stream_is_lost(end: Step) -> None:
    result = reply(await play(chat_frame(HALF), 0.05, end))
    assert (result.text, result.finish_reason, result.usage_estimated) == (HALF, "cut", True)
    assert result.usage.output_tokens == 116


async def test_a_list_of_plain_values_is_kept_too() -> None:
    result = reply(await play(chat_frame('```json\n{"tags": ["a", "b", "c'), 0.05, "cut"))
    assert result.finish_reason == "cut"


@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_a_stream_lost_before_anything_was_whole_is_a_connection_error(end: Step) -> None:
    result = error(await play(chat_frame('{"name": "ket'), 0.05, end))
    assert (result.kind, result.retryable, result.body) == (ErrorKind.CONNECTION, True, '{"name": "ket')


async def test_a_stream_that_stops_without_a_reason_is_cut_though_http_ended_well() -> None:
    assert reply(await play(chat_frame(HALF))).finish_reason == "cut"
    result = error(await play(chat_frame('{"name": "ket')))
    assert (result.kind, "cut off" in result.message) == (ErrorKind.CONNECTION, True)


async def test_an_answer_that_was_whole_when_its_stream_was_lost_is_an_answer() -> None:
    result = reply(await play(chat_frame(ANSWER), 0.05, "reset"))
    assert (result.text, result.finish_reason) == (ANSWER, "stop")


async def test_silence_is_a_time_out() -> None:
    start = time.perf_counter()
    result = error(await play(chat_frame('{"name'), "hang", idle_timeout=0.3))
    assert time.perf_counter() - start < 2
    assert (result.kind, "for 0.3 seconds" in result.message) == (ErrorKind.TIMED_OUT, True)


async def test_the_embedded_model_may_read_a_long_prompt_in_silence() -> None:
    script: list[Step] = [0.5, chat_frame(ANSWER, reason="stop"), CHAT_USAGE, DONE]
    assert error(await play(*script, idle_timeout=0.2)).kind is ErrorKind.TIMED_OUT
    heard = await play(*script, idle_timeout=0.2, profile=Profile(name="p", embedded=True))
    assert reply(heard).text == ANSWER


async def test_silence_before_the_first_byte_is_a_time_out() -> None:
    with FakeQwen(Fault.hang()) as qwen:
        assert error(await ask(qwen.base_url, idle_timeout=0.2)).kind is ErrorKind.TIMED_OUT


async def test_the_hard_time_out_bounds_a_stream_that_never_falls_silent() -> None:
    drip: list[Step] = [step for _ in range(200) for step in (chat_frame("{ x"), 0.02)]
    start = time.perf_counter()
    result = error(await play(*drip, timeout=0.4, idle_timeout=0.3))
    assert 0.3 < time.perf_counter() - start < 2
    assert (result.kind, "within 0.4 seconds" in result.message) == (ErrorKind.TIMED_OUT, True)


async def test_what_is_whole_of_a_list_is_kept_when_the_time_is_up() -> None:
    assert reply(await play(chat_frame(HALF), "hang", idle_timeout=0.2)).finish_reason == "cut"


@each_dialect
async def test_a_list_cut_in_the_middle_is_kept_in_every_dialect(dialect: Dialect) -> None:
    items = [{"name": f"thing {number}"} for number in range(40)]
    with FakeQwen(Fault.cut(json.dumps({"items": items}))) as qwen:
        result = reply(await ask(qwen.base_url, dialect))
    assert result.finish_reason == "cut"
    assert '"thing 10"' in result.text


# Errors -------------------------------------------------------------------------------------------------


@each_dialect
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(429), ErrorKind.RATE_LIMITED),
        (Fault.framed(429), ErrorKind.RATE_LIMITED),
        (Fault.framed(400, "data_inspection_failed", "Input data may contain"), ErrorKind.REFUSED),
        (Fault.status(503), ErrorKind.OVERLOADED),
        (Fault.moderation(), ErrorKind.REFUSED),
        (Fault.error_in_200(), ErrorKind.OVERLOADED),
        (Fault.error_in_stream(), ErrorKind.OVERLOADED),
        (Fault.error_in_stream("data_inspection_failed", "Output data may contain"), ErrorKind.REFUSED),
        (Fault.html(), ErrorKind.GARBLED),
        (Fault.reset(), ErrorKind.CONNECTION),
        (Fault.closed(), ErrorKind.CONNECTION),
    ],
    ids=str,
)
async def test_an_error_is_the_same_error_when_a_stream_was_asked_for(
    dialect: Dialect, fault: Fault, kind: ErrorKind
) -> None:
    with FakeQwen(fault) as qwen:
        result = error(await ask(qwen.base_url, dialect))
    assert result.kind is kind, result


async def test_a_frame_that_quotes_the_key_does_not_get_it_into_the_error() -> None:
    frame = json.dumps({"error": {"code": "invalid_api_key", "message": f"Bad key {KEY}!"}}).encode()
    result = error(await play(b"data: " + frame[:60], frame[60:] + b"\n\n"))
    assert (result.kind, KEY in repr(result), "[key]" in result.message) == (ErrorKind.KEY, False, True)


async def test_a_refused_key_is_fatal_in_a_stream_too() -> None:
    with FakeQwen(rules=Rules(api_key="another")) as qwen:
        assert error(await ask(qwen.base_url)).fatal


async def test_an_event_without_an_end_is_given_up() -> None:
    result = error(await play(*[b"data: " + b"x" * 3000] * 4, "hang", max_body=8000))
    assert (result.kind, "longer" in result.message) == (ErrorKind.GARBLED, True)


async def test_a_stream_that_is_packed_is_not_read() -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    assert error(await play(b"\x1f\x8b", head=head)).kind is ErrorKind.GARBLED
