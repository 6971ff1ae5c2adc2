"""The same question and the same faults in all dialects, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.fakes.qwen import Asked, FakeQwen, Fault, Faults, Reply, Rules

TEXT = '{"name":"kettle","price":12.5}'
DIALECTS = ("chat", "responses", "text", "multimodal")
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
_DELTAS = ("response.output_text.delta", "response.function_call_arguments.delta")
TOOL = {"name": "give", "parameters": SCHEMA}


def ask(service: FakeQwen, dialect: str, *, stream: bool = False, timeout: float = 5, **more: Any) -> httpx.Response:
    """Ask "Which product?" after a system message, with a tool where ``tool=True``."""
    tool = more.pop("tool", False)
    words = [("system", "Give JSON."), ("user", more.pop("text", "Which product?"))]
    if dialect == "responses":
        body: dict[str, Any] = {"model": "qwen-plus", "instructions": words[0][1], "input": words[1][1], **more}
        body["stream"] = stream
        if tool:
            body |= {"tools": [{"type": "function", **TOOL}], "tool_choice": {"type": "function", "name": "give"}}
        return httpx.post(f"{service.compat_url}/responses", json=body, timeout=timeout, verify=False)
    if tool:
        more["tools"] = [{"type": "function", "function": TOOL}]
        more["tool_choice"] = {"type": "function", "function": {"name": "give"}}
    if dialect == "chat":
        messages = [{"role": role, "content": text} for role, text in words]
        body = {"model": "qwen-plus", "messages": messages, "stream": stream, **more}
        if stream:
            body["stream_options"] = {"include_usage": True}
        return httpx.post(f"{service.compat_url}/chat/completions", json=body, timeout=timeout, verify=False)
    many = dialect == "multimodal"
    messages = [{"role": role, "content": [{"text": text}] if many else text} for role, text in words]
    parameters = {"result_format": "message", "incremental_output": True, **more}
    body = {"model": "qwen3-vl-plus" if many else "qwen-plus", "input": {"messages": messages}}
    return httpx.post(
        f"{service.native_url}/services/aigc/{dialect}-generation/generation",
        json={**body, "parameters": parameters},
        headers={"X-DashScope-SSE": "enable"} if stream else {},
        timeout=timeout,
        verify=False,
    )


def events(got: httpx.Response) -> list[Any]:
    """The JSON of every event of a stream."""
    lines = [line.removeprefix("data:").strip() for line in got.text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(dialect: str, got: httpx.Response, *, stream: bool) -> str:
    """The answer's text, or the arguments of the tool that it calls."""
    found: list[str | None] = []
    for body in events(got) if stream else [got.json()]:
        if dialect == "responses":
            found += [body.get("delta", "")] if body.get("type") in _DELTAS else []
            items = [] if stream else body["output"]
            found += [item["content"][0]["text"] for item in items if item["type"] == "message"]
            found += [item["arguments"] for item in items if item["type"] == "function_call"]
            continue
        choices = body["choices"] if dialect == "chat" else body["output"]["choices"]
        for choice in choices:
            message = choice["delta"] if dialect == "chat" and stream else choice["message"]
            content = message.get("content")
            found += [part["text"] for part in content] if isinstance(content, list) else [content]
            found += [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return "".join(one or "" for one in found)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
class TestEveryDialect:
    def test_an_answer_function_is_asked_in_chat_s_words(self, dialect: str, stream: bool) -> None:
        seen: list[Asked] = []

        def answer(asked: Asked) -> str:
            seen.append(asked)
            return TEXT

        with FakeQwen(answer) as service:
            got = ask(service, dialect, stream=stream, enable_thinking=False, temperature=0)
            assert text_of(dialect, got, stream=stream) == TEXT
        asked = seen[0]
        assert [(one["role"], one["content"]) for one in asked["messages"]] == [
            ("system", "Give JSON."),
            ("user", "Which product?"),
        ]
        assert (asked.dialect, asked.stream, asked.thinking, asked["temperature"]) == (dialect, stream, False, 0)
        assert service.requests[0].body is asked.raw

    def test_a_named_tool_gets_the_answer_as_its_arguments(self, dialect: str, stream: bool) -> None:
        with FakeQwen(TEXT) as service:
            got = ask(service, dialect, stream=stream, tool=True)
            assert text_of(dialect, got, stream=stream) == TEXT
            asked = service.requests[0].asked
        assert asked is not None
        assert (asked.mode, asked.schema, asked.forced_tool) == ("tools", SCHEMA, True)

    def test_thinking_comes_apart_from_the_answer(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Reply(TEXT, thinking="It says so."), piece=11) as service:
            got = ask(service, dialect, stream=stream)
        assert text_of(dialect, got, stream=stream) == TEXT
        assert "It says so." in got.text

    def test_an_error_has_the_dialect_s_spelling(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Fault.named("quota")) as service:
            got = ask(service, dialect, stream=stream)
        body = got.json()
        found = body["code"] if dialect in ("text", "multimodal") else body["error"]["code"]
        native = "Throttling.AllocationQuota"
        assert (got.status_code, found) == (429, native if "error" not in body else "insufficient_quota")
        assert ("error" in body) == (dialect in ("chat", "responses"))

    def test_an_error_may_come_under_status_200(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Fault.error_in_200("data_inspection_failed", "No.")) as service:
            got = ask(service, dialect, stream=stream)
        assert (got.status_code, "spection" in got.text) == (200, True)
        assert got.headers["content-type"].startswith("text/event-stream") == stream

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (Fault.truncated('{"name":"ket'), '{"name":"ket'),
            (Fault.fenced(TEXT), "```json"),
            (Fault.thinking_leaked(TEXT), "<think>"),
            (Fault.whitespace(), " \n" * 400),
            (Fault.repetition(), "the kettle and " * 300),
            (Fault.wrong_types(TEXT), '["12.5"]'),
            (Fault.refusal(), "I'm sorry"),
            (Fault.null_content(), ""),
            (Fault.empty_choices(), ""),
        ],
        ids=lambda given: given.kind if isinstance(given, Fault) else "",
    )
    def test_spoiled_answers(self, dialect: str, stream: bool, fault: Fault, words: str) -> None:
        with FakeQwen(fault) as service:
            text = text_of(dialect, ask(service, dialect, stream=stream), stream=stream)
        assert words in text
        assert bool(text) == bool(words)

    def test_half_a_reply_and_then_the_end_of_the_connection(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Fault.cut(TEXT)) as service, pytest.raises(httpx.RemoteProtocolError):
            ask(service, dialect, stream=stream)
        assert service.left_early == 0

    @pytest.mark.parametrize("fault", [Fault.reset(), Fault.closed()], ids=["reset", "closed"])
    def test_no_reply_at_all(self, dialect: str, stream: bool, fault: Fault) -> None:
        with FakeQwen(fault) as service, pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            ask(service, dialect, stream=stream)

    @pytest.mark.parametrize("fault", [Fault.hang(), Fault.stall(TEXT)], ids=["hang", "stall"])
    def test_a_reply_that_does_not_go_on(self, dialect: str, stream: bool, fault: Fault) -> None:
        with FakeQwen(fault) as service, pytest.raises(httpx.ReadTimeout):
            ask(service, dialect, stream=stream, timeout=0.1)

    def test_a_slow_drip_is_whole_in_the_end(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Fault.drip(0.0001, TEXT)) as service:
            assert text_of(dialect, ask(service, dialect, stream=stream), stream=stream) == TEXT

    def test_bytes_that_are_not_utf8(self, dialect: str, stream: bool) -> None:
        with FakeQwen(Fault.invalid_utf8()) as service:
            got = ask(service, dialect, stream=stream)
        with pytest.raises(UnicodeDecodeError):
            got.content.decode("utf-8")

    def test_a_broken_rule_is_refused(self, dialect: str, stream: bool) -> None:
        with FakeQwen(TEXT) as service:
            got = ask(service, dialect, stream=stream, temperature=2)
        assert (got.status_code, "'temperature' must be in" in got.text) == (400, True)


def test_a_seed_gives_the_same_faults_in_every_dialect() -> None:
    drawn = []
    for dialect in DIALECTS:
        with FakeQwen(Faults(3, mix={"429": 0.5}, then=lambda asked: TEXT)) as service:
            drawn.append([ask(service, dialect, text=f"record {n}").status_code for n in range(12)])
    assert drawn == [drawn[0]] * 4
    assert set(drawn[0]) == {200, 429}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_partial_reply_is_marked_where_it_is_whole_and_cut_where_it_is_streamed(dialect: str) -> None:
    with FakeQwen(Fault.partial('{"name":"ket')) as service:
        got = ask(service, dialect)
        assert (got.headers["x-dashscope-partialresponse"], text_of(dialect, got, stream=False)) == (
            "true",
            '{"name":"ket',
        )
        with pytest.raises(httpx.RemoteProtocolError):
            ask(service, dialect, stream=True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_inside_of_a_stream_comes_after_half_of_the_answer(dialect: str) -> None:
    with FakeQwen(Fault.error_in_stream("data_inspection_failed", "Output data may contain"), piece=4) as service:
        service.answer_with(Fault.error_in_stream("data_inspection_failed", "Output data may contain", TEXT * 4))
        got = ask(service, dialect, stream=True)
    *before, last = events(got)
    assert got.status_code == 200
    assert "Output data may contain" in str(last)
    assert len(before) > 5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_keeps_its_pace_and_a_client_that_leaves_is_counted(dialect: str) -> None:
    with FakeQwen(Reply(TEXT * 50, pace=0.01)) as service, pytest.raises(httpx.ReadTimeout):
        client_timeout = httpx.Timeout(5, read=0.004)
        ask(service, dialect, stream=True, timeout=client_timeout)  # type: ignore[arg-type]
    assert service.left_early == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_canned_bytes_are_the_same_reply(dialect: str, canned: Callable[[], FakeQwen]) -> None:
    service = canned()
    for stream in (False, True):
        assert text_of(dialect, ask(service, dialect, stream=stream), stream=stream) == TEXT


@pytest.fixture
def canned() -> Any:
    from tests.fakes.canned import Canned

    with FakeQwen(Canned.of(TEXT), rules=Rules()) as service:
        yield lambda: service
