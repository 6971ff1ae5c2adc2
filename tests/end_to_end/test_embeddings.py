"""Long records whose chunks are found by vectors: the bill, the ledger, the vectors that are kept, kills and failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings
from extractors.errors import ModelMissing
from extractors.pipeline import run
from extractors.planning import estimate
from extractors.retrying import retry_jobs
from extractors.store.catalog import query
from tests.end_to_end.test_long_texts import FILLER, HERE, answer, contract, table
from tests.end_to_end.things import job_for, run_things
from tests.fakes.qwen import FakeQwen, Fault

RECORDS = 4
HELPED = {
    "schema": HERE,
    "context_tokens": 400,
    "embedding_model": "text-embedding-v4",
    "embedding_dimensions": 64,
}
QUARRY = Path(sys.executable).with_name("quarry")


@pytest.fixture
def qwen() -> Iterator[FakeQwen]:
    with FakeQwen(answer) as service:
        yield service


@pytest.fixture
def source(tmp_path: Path) -> Path:
    import json

    path = tmp_path / "contracts.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{n}", "text": distinct(n)}) + "\n" for n in range(RECORDS)))
    return path


def distinct(number: int) -> str:
    """A contract of which no chunk is another's."""
    first, *parts = contract(number).split(FILLER)
    return first + "".join(f"{number}.{at} {FILLER}{part}" for at, part in enumerate(parts))


def purposes(out: Path) -> Counter[str]:
    rows = query(out, "select purpose, count(*) as n from contract_calls group by purpose").to_pylist()
    return Counter({row["purpose"]: row["n"] for row in rows})


def synonyms(text: str) -> str:
    return text.replace("Mail goes to drawer", "keeper Who is to be rung up")


def test_vectors_find_what_has_no_word_in_common_with_its_field(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    by_words = run_things(source, tmp_path / "words", qwen, schema=HERE, context_tokens=400)
    qwen.embeddings.means = synonyms
    by_vectors = run_things(source, tmp_path / "vectors", qwen, **HELPED)
    assert by_words.rows == by_vectors.rows == RECORDS
    assert purposes(tmp_path / "vectors")["look"] < purposes(tmp_path / "words")["look"]
    assert [row["keeper"] for row in table(tmp_path / "vectors")] == [f"Zebra-{n}" for n in range(RECORDS)]


def test_every_text_is_embedded_once_and_on_the_bill_of_its_record(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = run_things(source, out, qwen, **HELPED)

    assert set(qwen.embeddings.texts.values()) == {1}
    [calls] = query(
        out,
        "select count(*) as n, sum(input_tokens) as tokens, sum(cost) as cost from contract_calls where status = 'ok'",
    ).to_pylist()
    assert purposes(out)["embed"] == qwen.embeddings.count
    assert (report.calls, report.input_tokens, report.cost) == (calls["n"], calls["tokens"], calls["cost"])
    [meta] = query(out, "select sum(_meta.input_tokens) as tokens, sum(_meta.cost) as cost from contract").to_pylist()
    assert (meta["tokens"], meta["cost"]) == (calls["tokens"], calls["cost"])
    [embed] = query(
        out, "select sum(input_tokens) as tokens, sum(cost) as cost from contract_calls where purpose = 'embed'"
    ).to_pylist()
    assert embed["cost"] == (embed["tokens"] * Decimal("0.07") / 1_000_000)
    assert {row["raw"] for row in query(out, "select raw from contract_calls where purpose = 'embed'").to_pylist()} <= {
        "",
        None,
    }


def test_another_recipe_over_the_same_texts_embeds_no_chunk_again(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    run_things(source, tmp_path / "out", qwen, **HELPED)
    before = sum(qwen.embeddings.texts.values())
    run_things(source, tmp_path / "out", qwen, instructions="Be exact.", **HELPED)
    assert purposes(tmp_path / "out")["extract"] == 2 * RECORDS
    assert sum(qwen.embeddings.texts.values()) - before <= 3
    assert set(qwen.embeddings.texts.values()) == {1}


def test_records_that_are_asked_whole_cause_no_call(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    report = run_things(source, tmp_path / "out", qwen, **{**HELPED, "context_tokens": None})
    assert (report.rows, qwen.embeddings.count) == (RECORDS, 0)


def test_reranked_chunks_are_asked_once_for_each_field(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run_things(source, out, qwen, rerank_model="qwen3-rerank", **HELPED)
    assert report.rows == RECORDS
    assert qwen.embeddings.reranked == purposes(out)["rerank"] == 3 * RECORDS


def test_a_ceiling_stops_and_the_same_command_goes_on_without_embedding_again(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    first = run_things(source, tmp_path / "out", qwen, max_tokens=14_000, concurrency=1, **HELPED)
    assert first.stopped is not None and first.stopped.startswith("budget")
    assert sum(qwen.embeddings.texts.values()) > 0
    second = run_things(source, tmp_path / "out", qwen, **HELPED)
    assert first.rows + second.rows == RECORDS
    assert set(qwen.embeddings.texts.values()) == {1}
    assert purposes(tmp_path / "out")["embed"] == qwen.embeddings.count


def test_what_cannot_be_embedded_is_in_the_ledger_and_a_retry_asks_it_again(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    qwen.embeddings.trouble = lambda body: Fault.status(500, "InternalError", "broken")
    report = run_things(source, out, qwen, transport_attempts=1, **HELPED)
    assert report.failures_by_reason == {"unavailable": RECORDS}
    assert qwen.count == 0
    qwen.embeddings.trouble = None
    [again] = retry_jobs(out)
    assert run(again.job, settings=Settings(), source=again.source, retry=again.selection).rows == RECORDS


def test_vectors_of_another_length_end_the_run_before_more_of_them_are_paid(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    def shorter(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "data": [{**row, "embedding": row["embedding"][:-1]} for row in body["data"]]}

    qwen.embeddings.spoil = shorter
    with pytest.raises(ModelMissing, match="give --embedding-dimensions"):
        run_things(source, tmp_path / "out", qwen, **HELPED, concurrency=1)
    assert (qwen.embeddings.count, qwen.count) == (1, 0)


def test_the_plan_says_about_what_the_vectors_cost_and_asks_nothing(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    found = estimate(job_for(source, tmp_path / "plan", qwen, **HELPED), settings=Settings())
    assert found.embedding is not None and found.embedding.cost is not None
    assert qwen.embeddings.count == 0
    run_things(source, tmp_path / "out", qwen, **HELPED)
    [embed] = query(
        tmp_path / "out",
        "select sum(input_tokens) as tokens, sum(cost) as cost from contract_calls where purpose = 'embed'",
    ).to_pylist()
    assert found.embedding.tokens == pytest.approx(embed["tokens"], rel=0.25)
    assert float(found.embedding.cost) == pytest.approx(float(embed["cost"]), rel=0.25)


def test_kills_lose_the_calls_in_flight_and_no_more(source: Path, tmp_path: Path) -> None:
    in_flight = 2
    out = tmp_path / "out"
    with FakeQwen(answer, latency=0.05) as qwen:
        command = [
            str(QUARRY), "run", str(source), "--schema", HERE, "--out", str(out), "--id", "id", "--model", "qwen-plus",
            "--base-url", qwen.base_url, "--chunk-size", "10", "--concurrency", str(in_flight), "--context-tokens", "400",
            "--embedding-model", "text-embedding-v4", "--embedding-dimensions", "64",
        ]  # fmt: skip
        environment = {**os.environ, "DASHSCOPE_API_KEY": ""}
        for wanted in (1, 5):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
            until = time.monotonic() + 60
            while qwen.embeddings.count < wanted and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        asked = qwen.embeddings.count
        assert asked
        report = run_things(source, out, qwen, concurrency=in_flight, **HELPED)
        assert report.rows + report.skipped == RECORDS
        kills = 2
        repeated = sum(count - 1 for count in qwen.embeddings.texts.values())
        assert repeated <= kills * in_flight * 10
        # What was kept before a kill is in the ledger, although it is not asked again.
        lost = qwen.embeddings.count - purposes(out)["embed"]
        assert 0 <= lost <= kills * in_flight
        run_things(source, tmp_path / "calm", qwen, concurrency=in_flight, **HELPED)
    assert table(out) == table(tmp_path / "calm")


@pytest.mark.parametrize(
    "options", [{"lane": "batch"}, {"runner": "dask"}, {"long_text": "whole"}, {"embedding_model": None}]
)
def test_what_does_not_go_together_is_said(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="embedding"):
        job_for(source, tmp_path / "out", "http://127.0.0.1:1/v1", **{**HELPED, **options})
