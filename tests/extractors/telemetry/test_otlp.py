"""Spans and metrics of a run, as a collector on loopback gets them over HTTP."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.endpoint import Settings
from extractors.errors import KeyRejected, ServerUnreachable
from extractors.pipeline import run
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.collector import FakeCollector, attributes
from tests.fakes.qwen import FakeQwen, Fault, Reply

KEY = "sk-MARKED0123456789abcdef"
GOOD = '{"name":"thing-0000000","price":0.00}'


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    with FakeCollector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        yield found


def named(collector: FakeCollector, name: str) -> list[Any]:
    return [span for span in collector.spans if span.name.split()[0] == name]


def test_a_run_is_one_trace_of_run_chunks_and_calls(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
    (whole,), chunks, calls = named(collector, "invoke_workflow"), named(collector, "chunk"), named(collector, "chat")
    assert (len(chunks), len(calls)) == (2, 12)
    assert {span.trace_id for span in collector.spans} == {whole.trace_id}
    assert {chunk.parent_span_id for chunk in chunks} == {whole.span_id}
    of_chunk = {chunk.span_id: attributes(chunk)["quarry.chunk.id"] for chunk in chunks}
    assert all(attributes(call)["quarry.chunk.id"] == of_chunk[call.parent_span_id] for call in calls)
    assert sorted(attributes(call)["quarry.record.id"] for call in calls) == [f"r{n:05}" for n in range(12)]
    told = attributes(whole)
    assert (told["quarry.run.id"], told["quarry.rows"], told["gen_ai.workflow.name"]) == (report.run_id, 12, "thing")
    assert sum(attributes(chunk)["quarry.rows"] for chunk in chunks) == 12
    assert collector.resource["service.name"] == "quarry"
    assert collector.schema_urls == {"https://opentelemetry.io/schemas/1.41.0"}


def test_a_call_is_told_in_the_words_of_the_conventions(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen, seed=7)
        port = int(qwen.base_url.split(":")[2].split("/")[0])
    (call,) = named(collector, "chat")
    told = attributes(call)
    assert call.name == "chat qwen-plus"
    assert call.kind == call.SPAN_KIND_CLIENT
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "qwen-plus",
        "gen_ai.response.model": "qwen-plus",
        "gen_ai.request.max_tokens": 2048,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.output.type": "json",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 201,
        "gen_ai.usage.output_tokens": 10,
        "server.address": "127.0.0.1",
        "server.port": port,
        "quarry.call.purpose": "extract",
        "quarry.call.attempt": 1,
        "quarry.call.tries": 1,
    }
    assert {name: told.get(name) for name in wanted} == wanted
    assert 0 < call.end_time_unix_nano - call.start_time_unix_nano < 5e9


def test_a_call_covers_its_tries_and_says_which_failed(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen([Fault.status(429, "limit_requests", "slow down"), GOOD]) as qwen:
        run_things(source, tmp_path / "out", qwen)
    (call,) = named(collector, "chat")
    assert attributes(call)["quarry.call.tries"] == 2
    assert "error.type" not in attributes(call)
    (event,) = call.events
    assert attributes(event) == {"error.type": "rate_limited", "http.response.status_code": 429}
    assert call.start_time_unix_nano < event.time_unix_nano < call.end_time_unix_nano


def test_a_call_that_failed_has_an_error_type_and_no_words_of_the_provider(
    collector: FakeCollector, tmp_path: Path
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen(Fault.status(400, "invalid_parameter_error", "you said MARKED")) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
    assert report.failures == 1
    (call,) = named(collector, "chat")
    assert (attributes(call)["error.type"], attributes(call)["http.response.status_code"]) == ("bad_request", 400)
    assert call.status.code == call.status.STATUS_CODE_ERROR
    assert not any(b"MARKED" in body for _, _, body in collector.posts)


def test_a_correction_is_a_call_of_its_own_with_its_purpose(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen(["not JSON", GOOD]) as qwen:
        run_things(source, tmp_path / "out", qwen)
    told = [attributes(call) for call in named(collector, "chat")]
    assert [(one["quarry.call.purpose"], one["quarry.call.attempt"]) for one in told] == [("extract", 1), ("reask", 2)]


def test_a_run_with_nothing_to_do_and_one_that_cannot_begin_have_spans_too(
    collector: FakeCollector, tmp_path: Path
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(thing_answer) as qwen:
        for _ in range(2):
            run_things(source, tmp_path / "out", qwen)
    with pytest.raises(ServerUnreachable):
        run_things(source, tmp_path / "other", "http://127.0.0.1:9/v1", transport_attempts=1)
    first, second, third = (attributes(span) for span in named(collector, "invoke_workflow"))
    assert (first["quarry.skipped"], second["quarry.skipped"]) == (0, 2)
    assert (third["quarry.run.state"], third["error.type"]) == ("failed", "unreachable")


def test_metrics_have_the_conventions_names_units_and_buckets(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(5))
    with FakeQwen(lambda body: "no" if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        report = run_things(source, tmp_path / "out", qwen, max_attempts=1)
    metrics = collector.metrics
    duration = metrics["gen_ai.client.operation.duration"]
    (point,) = duration.histogram.data_points
    assert (duration.unit, point.count, list(point.explicit_bounds)[:2]) == ("s", 5, [0.01, 0.02])
    tokens = {
        attributes(one)["gen_ai.token.type"]: one.sum
        for one in metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert tokens == {"input": report.input_tokens, "output": report.output_tokens}
    records = {
        attributes(one)["quarry.record.outcome"]: one.as_int for one in metrics["quarry.records"].sum.data_points
    }
    assert records == {"row": 4, "failure": 1}
    assert metrics["quarry.cost"].sum.data_points[0].as_double == pytest.approx(float(report.cost or 0))
    assert not any("id" in name.split(".") for one in duration.histogram.data_points for name in attributes(one))


def test_a_batch_run_has_its_span_and_its_metrics(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen, lane="batch", batch_poll=0.01)
    (whole,) = collector.spans
    assert (attributes(whole)["quarry.lane"], attributes(whole)["quarry.rows"]) == ("batch", 12)
    assert collector.metrics["quarry.records"].sum.data_points[0].as_int == 12
    (path,) = (tmp_path / "out" / "runs").glob("*.prom")
    assert 'quarry_calls_total{result="ok"' in path.read_text()


def test_prompts_and_answers_are_not_sent(collector: FakeCollector, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen)
    assert collector.spans
    assert not any(b"thing-000000" in body or b"messages" in body for _, _, body in collector.posts)


@pytest.mark.parametrize("asked", ["SPAN_ONLY", "true"])
def test_they_are_where_the_standard_variable_asks_for_them(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", asked)
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen)
    told = attributes(named(collector, "chat")[0])
    assert "thing-0000000" in json.loads(told["gen_ai.input.messages"])[-1]["parts"][-1]["content"]
    (answer,) = json.loads(told["gen_ai.output.messages"])
    assert json.loads(answer["parts"][0]["content"])["name"]
    assert answer["finish_reason"] == "stop"


def test_a_key_is_sent_to_no_collector(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    source = tmp_path / "things.jsonl"
    source.write_text(json.dumps({"id": "a", "text": f"a record that quotes {KEY}"}) + "\n")
    settings = Settings(api_key=SecretStr(KEY))
    with FakeQwen(lambda body: json.dumps({"name": KEY, "price": None})) as qwen:
        run(job_for(source, tmp_path / "good", qwen), settings=settings)
        qwen.answer_with(Fault.status(401, "invalid_api_key", f"Incorrect API key provided: {KEY}."))
        with pytest.raises(KeyRejected):
            run(job_for(source, tmp_path / "bad", qwen), settings=settings)
    assert len(named(collector, "chat")) == 2
    assert attributes(named(collector, "invoke_workflow")[1])["error.type"] == "key"
    assert not any(b"MARKED" in body for _, _, body in collector.posts)


def test_headers_and_compression_of_the_environment_are_used(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=quarry")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "invoices")
    with FakeQwen(thing_answer) as qwen:
        run_things(write_things(tmp_path / "things.jsonl", range(1)), tmp_path / "out", qwen)
    assert {headers["x-tenant"] for _, headers, _ in collector.posts} == {"quarry"}
    assert {headers["content-encoding"] for _, headers, _ in collector.posts} == {"gzip"}
    assert collector.resource["service.name"] == "invoices"


def test_the_run_hangs_from_the_trace_that_started_it(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with FakeQwen(thing_answer) as qwen:
        run_things(write_things(tmp_path / "things.jsonl", range(1)), tmp_path / "out", qwen)
    assert {span.trace_id.hex() for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert named(collector, "invoke_workflow")[0].parent_span_id.hex() == "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("variable", "value", "paths"),
    [
        ("OTEL_SDK_DISABLED", "true", set()),
        ("OTEL_TRACES_EXPORTER", "none", {"/v1/metrics"}),
        ("OTEL_METRICS_EXPORTER", "none", {"/v1/traces"}),
        ("OTEL_TRACES_SAMPLER", "always_off", {"/v1/metrics"}),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", set()),
    ],
)
def test_each_signal_can_be_turned_off(
    collector: FakeCollector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    paths: set[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with FakeQwen(thing_answer) as qwen:
        run_things(write_things(tmp_path / "things.jsonl", range(1)), tmp_path / "out", qwen)
    assert {path for path, _, _ in collector.posts} == paths
    assert len(warnings_of(caplog)) == (2 if value == "grpc" else 0), "what was asked for and cannot be is said"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_collector_that_is_down_costs_one_warning_and_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:MARKED@127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    source = write_things(tmp_path / "things.jsonl", range(40))
    clock = time.monotonic()
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.05)) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
    assert report.rows == 40
    assert time.monotonic() - clock < 15
    (warning,) = warnings_of(caplog)
    assert "127.0.0.1:9" in warning
    assert "MARKED" not in caplog.text


def test_a_collector_that_answers_500_costs_one_warning(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 500
    with FakeQwen(thing_answer) as qwen:
        report = run_things(write_things(tmp_path / "things.jsonl", range(12)), tmp_path / "out", qwen)
    assert report.rows == 12
    (warning,) = warnings_of(caplog)
    assert "cannot be sent to 127.0.0.1" in warning


def test_a_collector_that_never_answers_is_waited_for_some_seconds_at_most(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.delay = 60
    with FakeQwen(thing_answer) as qwen:
        clock = time.monotonic()
        report = run_things(write_things(tmp_path / "things.jsonl", range(12)), tmp_path / "out", qwen)
    assert report.rows == 12
    assert time.monotonic() - clock < 15
    (warning,) = warnings_of(caplog)
    assert "could not be sent to 127.0.0.1" in warning
    assert "within 3 s" in warning


def test_spans_that_do_not_fit_are_dropped_and_counted(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    collector.delay = 0.3
    with FakeQwen(thing_answer) as qwen:
        report = run_things(write_things(tmp_path / "things.jsonl", range(40)), tmp_path / "out", qwen)
    assert report.rows == 40
    (warning,) = warnings_of(caplog)
    assert "spans were dropped" in warning


def test_an_error_of_ours_in_telling_reaches_no_record(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from extractors.telemetry.otlp import Otlp

    def broken(self: Otlp, told: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Otlp, "call", broken)
    with FakeQwen(thing_answer) as qwen:
        report = run_things(write_things(tmp_path / "things.jsonl", range(12)), tmp_path / "out", qwen)
    assert report.rows == 12
    assert warnings_of(caplog) == ["telemetry failed (RuntimeError): calls are not told any more"]
