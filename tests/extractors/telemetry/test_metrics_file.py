"""``runs/<run-id>.prom``, read back with Prometheus' own parser."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extractors.errors import OutputError
from extractors.telemetry.metrics_file import Counts, MetricsFile
from schemas.usage import Usage
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Fault, Reply

Sample = tuple[str, frozenset[tuple[str, str]]]


def parsed(text: str) -> dict[Sample, float]:
    """Each sample's value by its name and its labels but the run's."""
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if k != "run_id")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: dict[Sample, float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def the_file(out: Path) -> str:
    (path,) = (out / "runs").glob("*.prom")
    return path.read_text()


def test_a_run_leaves_its_sums_for_prometheus(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(25))
    refused: list[int] = []

    def answer(body: dict[str, Any]) -> str | Fault:
        if "thing-0000004" in str(body) and not refused:
            refused.append(1)
            return Fault.status(429, "limit_requests", "slow down")
        return "no" if "thing-0000003" in str(body) else thing_answer(body)

    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, max_cost="1", max_tokens=10**6, max_attempts=1)
    found = parsed(the_file(tmp_path / "out"))
    assert of(found, "quarry_records_total", outcome="row") == report.rows == 24
    assert of(found, "quarry_records_total", outcome="failure") == 1
    assert of(found, "quarry_failures_total", reason="not_json") == 1
    assert of(found, "quarry_records_undone") == 0
    assert of(found, "quarry_calls_total", result="ok") == 25
    assert of(found, "quarry_calls_total", result="rate_limited") == 1
    assert of(found, "quarry_call_retries_total") == 1
    assert of(found, "quarry_rate_limited_total") == 1
    assert of(found, "quarry_tokens_total", type="input") == report.input_tokens
    assert of(found, "quarry_tokens_total", type="output") == report.output_tokens
    assert of(found, "quarry_cost_total", currency="USD") == pytest.approx(float(report.cost or 0))
    assert of(found, "quarry_budget_cost_left", currency="USD") == pytest.approx(1 - float(report.cost or 0))
    assert of(found, "quarry_budget_tokens_left") == 10**6 - report.input_tokens - report.output_tokens
    assert of(found, "quarry_call_duration_seconds_count") == 25
    assert of(found, "quarry_call_duration_seconds_bucket", le="+Inf") == 25
    assert of(found, "quarry_chunks_total") == 3
    assert of(found, "quarry_run_state", state="completed") == 1


def test_every_series_names_its_run_and_has_no_timestamp(tmp_path: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        report = run_things(write_things(tmp_path / "things.jsonl", range(1)), tmp_path / "out", qwen)
    for family in text_string_to_metric_families(the_file(tmp_path / "out")):
        for sample in family.samples:
            assert sample.labels["run_id"] == report.run_id
            assert sample.timestamp is None, "the textfile collector refuses timestamps"
    assert the_file(tmp_path / "out").endswith("\n")


def test_a_reader_sees_whole_files_that_only_grow_while_the_run_goes(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(80))
    seen: list[dict[Sample, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for path in (tmp_path / "out" / "runs").glob("*.prom"):
                seen.append(parsed(path.read_text()))

    looking = threading.Thread(target=look)
    looking.start()
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.2)) as qwen:
        run_things(source, tmp_path / "out", qwen, concurrency=8, chunk_size=8)
    ended.set()
    looking.join()
    rows = [of(one, "quarry_records_total", outcome="row") for one in seen]
    assert rows == sorted(rows)
    assert len({*rows}) > 2, "refreshed at commits, not only at the end"
    assert of(seen[0], "quarry_run_state", state="running") == 1


def test_a_run_that_stops_says_so(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(20))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen, max_cost="0.002", concurrency=1)
    found = parsed(the_file(tmp_path / "out"))
    assert of(found, "quarry_run_state", state="stopped") == 1
    assert of(found, "quarry_records_undone") > 0
    assert of(found, "quarry_budget_cost_left", currency="USD") >= 0


def file_with(write: Any, **options: Any) -> MetricsFile:
    return MetricsFile(Counts(), write, labels={"run_id": "r"}, info={"schema": "x"}, currency="USD", **options)


def test_it_is_not_written_more_often_than_once_a_second() -> None:
    now, written = [0.0], []
    told = file_with(written.append, clock=lambda: now[0])
    for moment in (0.0, 0.5, 0.99, 1.0, 1.5):
        now[0] = moment
        told.refresh()
    assert len(written) == 2
    told.refresh(now=True)
    assert len(written) == 3, "the end is always written"


def test_a_file_that_cannot_be_written_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def full(data: bytes) -> None:
        raise OutputError("no space to write it")

    told = file_with(full, every=0.0)
    told.refresh()
    told.refresh()
    assert [one.getMessage() for one in caplog.records] == [
        "the run goes on without its metrics file: no space to write it"
    ]


def test_an_unknown_price_has_no_series_and_odd_labels_are_escaped() -> None:
    counts = Counts()
    counts.usage = Usage(1, 10, 1, cost=None)
    odd = 'a "quoted"\nname \\'
    told = MetricsFile(counts, lambda data: None, labels={"run_id": "r"}, info={"schema": odd}, currency="USD")
    found = parsed(told.text().decode())
    assert not any(name.startswith("quarry_cost") for name, _ in found)
    assert of(found, "quarry_run_info", schema=odd) == 1
    counts.usage += Usage(cost=Decimal(1))
    assert told.text()
