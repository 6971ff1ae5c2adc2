from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.errors import KeyRejected
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import NOT_SENT, HttpTransport
from tests.fakes.qwen import FakeQwen, Fault, Reply, Rules

KEY = "sk-verysecret0123456789"


@pytest.fixture
def service() -> Iterator[FakeQwen]:
    with FakeQwen('{"a":1}') as qwen:
        yield qwen


def transport(url: str, *, key: str = KEY, **more: Any) -> HttpTransport:
    return HttpTransport(
        url,
        api_key=SecretStr(key),
        pricing=Pricing.free(),
        profile=load_profiles().find("qwen-plus"),
        **{"timeout": 5, "connections": 8, **more},
    )


def request(content: str = "some json") -> ChatRequest:
    shape = AnswerShape("a", {}, Mode.JSON_OBJECT, {"response_format": {"type": "json_object"}})
    return ChatRequest("qwen-plus", (Message("user", content),), shape, thinking=False)


async def ask(service: FakeQwen, **more: Any) -> ChatReply | CallError:
    async with transport(service.base_url, **more) as call:
        return await call(request())


async def failure(service: FakeQwen, fault: Fault, **more: Any) -> CallError:
    service.answer_with(fault)
    result = await ask(service, **more)
    assert isinstance(result, CallError), result
    return result


async def test_a_call_brings_the_answer_its_usage_and_its_times(service: FakeQwen) -> None:
    before = time.time()
    result = await ask(service)
    assert isinstance(result, ChatReply)
    assert (result.text, result.usage.calls, result.finish_reason) == ('{"a":1}', 1, "stop")
    assert 0 < result.latency < 5
    assert before <= result.started_at <= time.time()


async def test_the_request_on_the_wire_has_the_key_and_the_profile_s_keys(service: FakeQwen) -> None:
    await ask(service)
    (seen,) = service.requests
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert (seen.path, seen.body["presence_penalty"], seen.body["enable_thinking"]) == (
        "/v1/chat/completions",
        0,
        False,
    )


async def test_an_empty_key_sends_no_authorization(service: FakeQwen) -> None:
    await ask(service, key="")
    assert "authorization" not in service.requests[0].headers


async def test_connections_are_kept_and_reused(service: FakeQwen) -> None:
    async with transport(service.base_url) as call:
        for _ in range(5):
            await call(request())
        assert len(service._state.connections) == 1


async def test_many_calls_travel_at_once(service: FakeQwen) -> None:
    service.answer_with(Reply("{}", delay=0.1))
    async with transport(service.base_url, connections=16) as call:
        results = await asyncio.gather(*(call(request(f"json {i}")) for i in range(16)))
    assert all(isinstance(result, ChatReply) for result in results)
    assert service.most_in_flight == 16


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        (Fault.reset(), ErrorKind.CONNECTION, "reset"),
        (Fault.closed(), ErrorKind.CONNECTION, "closed"),
        (Fault.cut(), ErrorKind.CONNECTION, "cut off"),
        (Fault.html(), ErrorKind.GARBLED, "HTML"),
        (Fault.html(502), ErrorKind.OVERLOADED, "HTML"),
        (Fault.invalid_utf8(), ErrorKind.GARBLED, "UTF-8"),
        (Fault.empty_choices(), ErrorKind.GARBLED, "choices"),
        (Fault.error_in_200(), ErrorKind.OVERLOADED, "Try again"),
        (Fault.error_in_200("Throttling", native=True), ErrorKind.RATE_LIMITED, "Try again"),
        (Fault.moderation(), ErrorKind.REFUSED, "inappropriate"),
        (Fault.status(429, retry_after=7), ErrorKind.RATE_LIMITED, "limit_requests"),
        (Fault.status(503), ErrorKind.OVERLOADED, "busy"),
        (Fault.raw(200, b""), ErrorKind.GARBLED, "empty"),
        (Fault.raw(200, b"[1]"), ErrorKind.GARBLED, "not an object"),
        (Fault.raw(200, b"{'a'"), ErrorKind.GARBLED, "not JSON"),
        (Fault.raw(302, b"", Location="http://127.0.0.1:1/"), ErrorKind.MODEL, "--base-url"),
    ],
)
async def test_each_fault_of_the_other_side_is_an_error_of_its_kind(
    service: FakeQwen, fault: Fault, kind: ErrorKind, word: str
) -> None:
    error = await failure(service, fault)
    assert error.kind is kind, error
    assert word in error.message
    assert (error.model, error.started_at > 0, error.latency > 0) == ("qwen-plus", True, True)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("truncated", '{"name": "ket', "length"),
        ("fenced", "Here is the JSON:\n```json\n{}\n```\n", "stop"),
        ("thinking-leaked", '<think>\nMaybe {"a": "draft"}? No.\n</think>\n\n{}', "stop"),
        ("whitespace", '{"' + " \n" * 500, "length"),
        ("refusal", "I'm sorry, but I can't help with that request.", "stop"),
        ("null-content", "", "stop"),
        ("wrong-types", "{}", "stop"),
    ],
)
async def test_odd_answers_pass_for_the_core_to_judge(service: FakeQwen, name: str, text: str, reason: str) -> None:
    service.answer_with(Fault.named(name))
    result = await ask(service)
    assert isinstance(result, ChatReply)
    assert (result.text, result.finish_reason) == (text, reason)


async def test_retry_after_reaches_the_error(service: FakeQwen) -> None:
    assert (await failure(service, Fault.status(429, retry_after=7))).retry_after == 7


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(0.02)], ids=["hang", "drip"])
async def test_the_timeout_bounds_a_call_however_its_bytes_come(service: FakeQwen, fault: Fault) -> None:
    start = time.perf_counter()
    error = await failure(service, fault, timeout=0.3)
    assert error.kind is ErrorKind.TIMED_OUT
    assert 0.25 < time.perf_counter() - start < 2
    assert 0.25 < error.latency < 2


async def test_nobody_listening_is_a_connection_error_that_cost_nothing() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with transport(url) as call:
            error = await call(request())
    assert isinstance(error, CallError)
    assert (error.kind, error.code) == (ErrorKind.CONNECTION, NOT_SENT)


async def test_a_server_that_does_not_speak_http_is_garbled() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, transport(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as call:
        error = await call(request())
    assert isinstance(error, CallError)
    assert error.kind is ErrorKind.GARBLED


async def test_a_reply_that_is_too_long_is_given_up(service: FakeQwen) -> None:
    error = await failure(service, Fault.raw(200, b" " * 5000), max_body=4000)
    assert (error.kind, "longer" in error.message) == (ErrorKind.GARBLED, True)


async def test_a_compressed_reply_is_read_but_a_bomb_is_not(service: FakeQwen) -> None:
    packed = gzip.compress(b'{"error":{"code":"arrearage","message":"pay"}}')
    error = await failure(service, Fault.raw(400, packed, Content_Encoding="gzip"))
    assert error.kind is ErrorKind.KEY
    bomb = gzip.compress(b" " * 1_000_000)
    error = await failure(service, Fault.raw(200, bomb, Content_Encoding="gzip"), max_body=100_000)
    assert (error.kind, "longer" in error.message) == (ErrorKind.GARBLED, True)
    error = await failure(service, Fault.raw(200, b"x", Content_Encoding="br"))
    assert (error.kind, "br" in error.message) == (ErrorKind.GARBLED, True)


async def test_a_refused_key_is_fatal_and_is_nowhere_in_the_error() -> None:
    with FakeQwen(rules=Rules(api_key="another")) as service:
        result = await ask(service)
    assert isinstance(result, CallError)
    assert (result.kind, result.fatal) == (ErrorKind.KEY, True)
    assert KEY not in repr(result)


async def test_a_service_that_quotes_the_key_does_not_get_it_into_the_error(service: FakeQwen) -> None:
    key = "plainkeywithoutprefix"
    error = await failure(service, Fault.status(401, message=f"Bad key {key}!"), key=key)
    assert key not in repr(error)
    assert "[key]" in error.message


def test_the_key_is_in_no_repr_and_in_no_refusal() -> None:
    assert KEY not in repr(transport("localhost"))
    with pytest.raises(KeyRejected) as refused:
        transport("localhost", key=KEY + "\nX-Evil: 1")
    assert KEY not in str(refused.value)


async def test_the_environment_s_proxy_is_not_used_for_loopback(
    service: FakeQwen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert isinstance(await ask(service), ChatReply)


async def test_the_environment_s_proxy_is_used_for_other_hosts(
    service: FakeQwen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{service.port}")
    monkeypatch.setenv("no_proxy", "")
    async with transport("http://model.example.invalid/v1") as call:
        result = await call(request())
    assert isinstance(result, ChatReply), result
    assert service.requests[0].path == "http://model.example.invalid/v1/chat/completions"


async def test_a_cancelled_call_is_cancelled(service: FakeQwen) -> None:
    service.answer_with(Fault.hang())
    async with transport(service.base_url) as call:
        task = asyncio.create_task(call(request()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
