"""Long lists through the whole pipeline, over real HTTP, with kills in the middle of a record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.planning import estimate
from extractors.report import RunReport
from extractors.store.catalog import current_rows, query
from schemas.job import ExtractionJob
from tests.fakes.listing import ListingModel, catalogue, name_of, price_of
from tests.fakes.qwen import FakeQwen, Reply

QUARRY = Path(sys.executable).with_name("quarry")
SCHEMA = "tests.end_to_end.test_long_list_runs:Catalogue"


class Item(BaseModel):
    name: str
    price: float


class Catalogue(BaseModel):
    items: list[Item]


def write(tmp_path: Path, *counts: int) -> Path:
    source = tmp_path / "catalogues.jsonl"
    lines = [json.dumps({"id": f"c{count}", "text": catalogue(count)}) for count in counts]
    source.write_text("\n".join(lines) + "\n")
    return source


def run_lists(source: Path, out: Path, qwen: FakeQwen, **options: Any) -> RunReport:
    given = {"source": str(source), "schema": SCHEMA, "out": str(out), "id": "id", "model": "qwen-plus"}
    job = {**given, "base_url": qwen.base_url, "context_tokens": 800, **options}
    return run(ExtractionJob.model_validate(job), settings=Settings())


def test_a_long_list_becomes_one_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeQwen(ListingModel(forgets=0.1)) as qwen:
        report = run_lists(write(tmp_path, 200, 5), out, qwen)
        assert (report.rows, report.failures, report.calls) == (2, 0, qwen.count)
        assert run_lists(write(tmp_path, 200, 5), out, qwen).calls == 0
    rows = {row["record_id"]: row for row in current_rows(out).to_pylist()}
    assert rows["c200"]["items"] == [{"name": name_of(n), "price": float(price_of(n))} for n in range(1, 201)]
    assert not rows["c200"]["_meta"]["incomplete"]
    [sums] = query(out, "select count(*) n, sum(output_tokens) o from catalogue_calls").to_pylist()
    assert (sums["n"], sums["o"]) == (report.calls, report.output_tokens)


def test_windows_are_read_whole_so_that_nothing_is_embedded_or_reranked_for_them(tmp_path: Path) -> None:
    helped = {"embedding_model": "text-embedding-v4", "rerank_model": "qwen3-rerank"}
    with FakeQwen(ListingModel()) as qwen:
        report = run_lists(write(tmp_path, 60), tmp_path / "out", qwen, **helped)
        assert qwen.embeddings.count == 0
        job = {
            "source": str(write(tmp_path, 60)),
            "schema": SCHEMA,
            "out": str(tmp_path / "new"),
            "context_tokens": 800,
        }
        told = ExtractionJob.model_validate({**job, "model": "qwen-plus", "base_url": qwen.base_url, **helped})
        planned = estimate(told, settings=Settings()).embedding
    assert planned is not None and planned.tokens == 0
    purposes = query(tmp_path / "out", "select distinct purpose from catalogue_calls").to_pylist()
    assert report.rows == 1 and {row["purpose"] for row in purposes} <= {"extract", "window", "count", "gap"}


class Priced(Catalogue):
    title: str | None = None


@pytest.mark.parametrize("schema", ["Catalogue", "Priced"])
def test_the_plan_counts_the_windows(tmp_path: Path, schema: str) -> None:
    """The list alone, and with a field beside it, which is asked first."""
    source, spec = write(tmp_path, 200, 120, 5), f"tests.end_to_end.test_long_list_runs:{schema}"
    options = {"context_tokens": 800, "model": "qwen-plus"}
    with FakeQwen(ListingModel()) as qwen:
        job = {"source": str(source), "schema": spec, "out": str(tmp_path / "o"), "id": "id", "base_url": qwen.base_url}
        told = ExtractionJob.model_validate({**job, **options})
        planned = estimate(told, settings=Settings())
        assert qwen.count == 0
        report = run(told, settings=Settings())
        again = estimate(told.model_copy(update={"source": str(write(tmp_path, 201, 121, 6))}), settings=Settings())
    assert planned.context.windows > 6
    assert planned.context.only_windows == (2 if schema == "Catalogue" else 0)
    [asked] = query(
        tmp_path / "o", f"select count(*) n from {schema.lower()}_calls where purpose = 'extract'"
    ).to_pylist()
    assert asked["n"] == planned.context.windows + 3 - planned.context.only_windows
    assert planned.input_tokens > planned.context.window_tokens > planned.context.record_tokens * 0.9
    assert any(f"about {planned.context.windows:,} windows" in line for line in planned.lines())
    assert again.output_tokens_from == "earlier calls of this recipe"
    assert again.output_tokens == pytest.approx(report.output_tokens, rel=0.1), (
        "the windows' answers are in what was seen"
    )


def test_a_gap_that_stays_open_is_told_in_the_row(tmp_path: Path) -> None:
    with FakeQwen(ListingModel(forgets=0.1, forgets_again=1.0)) as qwen:
        run_lists(write(tmp_path, 200), tmp_path / "out", qwen)
    [row] = current_rows(tmp_path / "out").to_pylist()
    assert row["_meta"]["incomplete"] == ["items"]


def test_windows_travel_in_batches_too(tmp_path: Path) -> None:
    with FakeQwen(ListingModel()) as qwen:
        report = run_lists(write(tmp_path, 60, 70), tmp_path / "out", qwen, lane="batch", batch_poll=0.01)
    rows = {row["record_id"]: len(row["items"]) for row in current_rows(tmp_path / "out").to_pylist()}
    assert report.rows == 2 and rows == {"c60": 60, "c70": 70}


def killed_run(source: Path, out: Path, qwen: FakeQwen, after: int) -> bool:
    """Start a run and kill it once ``after`` calls arrived; True when it had ended before."""
    command = [
        str(QUARRY), "run", str(source), "--schema", SCHEMA, "--out", str(out), "--id", "id", "--model", "qwen-plus",
        "--base-url", qwen.base_url, "--context-tokens", "800", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "DASHSCOPE_API_KEY": ""}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while process.poll() is None:
        if qwen.count >= after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.005)
    assert process.returncode == 0
    return True


@pytest.mark.timeout(120)
def test_after_a_kill_only_the_windows_that_are_missing_are_asked(tmp_path: Path) -> None:
    model = ListingModel(forgets=0.1)
    source = write(tmp_path, 200)

    def slowly(body: Any) -> Reply:
        said = model(body)
        return Reply(said.text, said.finish_reason, delay=0.05)

    with FakeQwen(slowly) as qwen:
        run_lists(source, tmp_path / "calm", qwen)
        calm = qwen.count
        qwen.forget()
        out = tmp_path / "out"
        kills = sum(not killed_run(source, out, qwen, after) for after in (6,))
        assert killed_run(source, out, qwen, 10_000)
        assert kills == 1 and qwen.count <= calm + kills
    assert current_rows(out).column("items").to_pylist() == current_rows(tmp_path / "calm").column("items").to_pylist()
