"""A call in the conventions' words, without a collector."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from extractors.qwen.requests import (
    AnswerShape,
    CallError,
    ChatReply,
    ChatRequest,
    ErrorKind,
    Image,
    Message,
    Mode,
    Purpose,
)
from extractors.telemetry.conventions import Server, told
from extractors.telemetry.settings import TelemetrySettings
from schemas.usage import Usage

HERE = Server("openai", "127.0.0.1", 80)
REQUEST = ChatRequest(
    "qwen-plus",
    (Message("system", "instructions"), Message("user", "the \ud800 record", (Image("image/png", b"bytes"),))),
    AnswerShape("thing", {}, Mode.JSON_SCHEMA),
    Purpose.CORRECT,
    attempt=2,
)
REPLY = ChatReply("{}", "stop", Usage(1, 30, 5, 20, 2, Decimal("0.01")), "qwen-plus-2025", latency=2.0, started_at=10.0)
BUSY = CallError(ErrorKind.OVERLOADED, "quotes the prompt", "qwen-plus", 503, latency=1.0, started_at=5.0)


def test_a_call_begins_with_its_first_try_and_ends_with_its_last() -> None:
    found = told(REQUEST, replace(REPLY, earlier=(BUSY,)), HERE)
    assert found is not None
    assert (found.start, found.end, found.error) == (5.0, 12.0, None)
    assert found.failed_tries == ((6.0, {"error.type": "overloaded", "http.response.status_code": 503}),)


def test_cached_and_reasoning_tokens_and_money_are_told_where_there_are_any() -> None:
    found = told(REQUEST, REPLY, HERE)
    assert found is not None
    assert found.attributes["gen_ai.usage.cache_read.input_tokens"] == 20
    assert found.attributes["gen_ai.usage.reasoning.output_tokens"] == 2
    assert found.attributes["quarry.call.cost"] == 0.01
    assert (found.attributes["quarry.call.purpose"], found.attributes["quarry.call.attempt"]) == ("correct", 2)


def test_what_was_never_sent_is_not_told() -> None:
    assert told(REQUEST, CallError(ErrorKind.CANCELLED, "stopped", "qwen-plus"), HERE) is None


def test_captured_content_leaves_out_pictures_and_the_key_and_takes_any_text() -> None:
    found = told(REQUEST, replace(REPLY, text="my sk-1 is"), HERE, content=True, secret="sk-1")
    assert found is not None
    assert "bytes" not in str(found.attributes["gen_ai.input.messages"])
    assert '"mime_type":"image/png"' in str(found.attributes["gen_ai.input.messages"])
    assert "my [key] is" in str(found.attributes["gen_ai.output.messages"])
    str(found.attributes["gen_ai.input.messages"]).encode()


@pytest.mark.parametrize(
    ("url", "embedded", "server"),
    [
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", False, Server("dashscope", "dashscope-intl.aliyuncs.com", 443)),
        ("http://user:secret@vllm.example:8000/v1", False, Server("openai", "vllm.example", 8000)),
        ("http://127.0.0.1:4711/v1", True, Server("llama_cpp", "127.0.0.1", 4711)),
    ],
)  # fmt: skip
def test_the_provider_is_told_by_the_address(url: str, embedded: bool, server: Server) -> None:
    assert Server.at(url, embedded=embedded) == server


def test_without_an_endpoint_nothing_is_wanted_whatever_else_is_set() -> None:
    assert not TelemetrySettings.from_environment({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "x"}).wanted


def test_an_endpoint_of_one_signal_turns_on_that_one() -> None:
    found = TelemetrySettings.from_environment({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"})
    assert (found.traces, found.metrics, found.content) == (False, True, False)


def test_an_endpoint_that_is_no_address_is_a_warning_that_does_not_repeat_it(caplog: pytest.LogCaptureFixture) -> None:
    assert not TelemetrySettings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "user:secret@collector"}).wanted
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is no http(s) address" in caplog.text
    assert "secret" not in caplog.text
