"""The flow on a real Prefect server: the same output as the direct engine, states and artifacts that say what happened."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer, thing_text
from tests.fakes.qwen import FakeQwen

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
QUARRY = Path(sys.executable).with_name("quarry")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server with a database of its own for all tests here."""
    from flows import environment

    environment.prepare()
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


def parts(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.glob("thing/*/*/*.parquet"))
        if "calls" not in p.parts
    }


def test_the_flow_gives_the_same_bytes_as_the_direct_engine(server: None, tmp_path: Path) -> None:
    from flows.extract import extract

    source = write_things(tmp_path / "things.jsonl", range(45))
    with FakeQwen(lambda body: "no" if "thing-0000007" in str(body) else thing_answer(body)) as qwen:
        direct = run_things(source, tmp_path / "direct", qwen)
        state = extract(job_for(source, tmp_path / "flow", qwen), return_state=True)
    told = state.result(raise_on_failure=False)
    assert state.name == "CompletedWithFailures"
    assert (
        (told["rows"], told["failures"], told["engine"])
        == (direct.rows, direct.failures, "prefect")
        == (44, 1, "prefect")
    )
    assert parts(tmp_path / "direct") == parts(tmp_path / "flow")


def test_the_state_says_failed_above_the_limit_and_completed_when_all_is_well(server: None, tmp_path: Path) -> None:
    from flows.extract import extract

    source = write_things(tmp_path / "things.jsonl", range(4))
    with FakeQwen("no") as qwen:
        bad = extract(job_for(source, tmp_path / "bad", qwen, max_failure_rate=0.2), return_state=True)
        qwen.answer_with(thing_answer)
        good = extract(job_for(source, tmp_path / "good", qwen), return_state=True)
        again = extract(job_for(source, tmp_path / "good", qwen), return_state=True)
    assert bad.is_failed()
    assert "failure rate 100.0% above the limit 20.0%" in str(bad.message)
    assert (good.name, again.name) == ("Completed", "Completed")
    assert again.result()["skipped"] == 4


def test_progress_failures_and_summary_are_artifacts(server: None, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    from flows.extract import extract

    source = write_things(tmp_path / "things.jsonl", range(25))
    with FakeQwen(lambda body: "no" if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        extract(job_for(source, tmp_path / "out", qwen), return_state=True)
    with get_client(sync_client=True) as client:
        found = {}
        for artifact in sorted(client.read_artifacts(), key=lambda one: one.created):
            found[artifact.key] = artifact.data
    assert float(found["quarry-progress"]) == 100.0
    assert "25 = 24 + 1 + 0 + 0" in found["quarry-summary"]
    assert "| r00003 |" in found["quarry-failures"]
    assert "| name | 24 | 100.0% |" in found["quarry-fields"]


def test_a_wrong_job_is_refused_naming_the_field(server: None) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.extract import extract

    with pytest.raises(ParameterTypeError, match="concurrency"):
        extract({"source": "x.csv", "schema": "name", "out": "o", "concurrency": 0})


def test_the_command_line_runs_the_flow_and_exits_by_its_outcome(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QWEN_", "DASHSCOPE_", "PREFECT_"))}
    with FakeQwen(thing_answer) as qwen:
        done = subprocess.run(
            [str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--out", str(tmp_path / "o"),
             "--id", "id", "--model", "qwen-plus", "--base-url", qwen.base_url, "--engine", "prefect", "--json"],
            capture_output=True, text=True, timeout=300, check=False,
            env={**clean, "PREFECT_HOME": str(tmp_path / "prefect")},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["rows"] == 12


def test_the_evaluation_flow_scores_a_golden_set_and_fails_below_what_is_asked(server: None, tmp_path: Path) -> None:
    from flows.evaluate import evaluate_golden

    labels = [
        {
            "id": f"r{n}",
            "text": thing_text(n),
            "expected": {"name": f"thing-{n:07}", "price": f"{n % 1000}.{n % 100:02}"},
        }
        for n in range(8)
    ]
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps(one) + "\n" for one in labels))
    with FakeQwen(lambda body: '{"name":"none"}' if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        job = job_for(golden, tmp_path / "out", qwen)
        good = evaluate_golden(str(golden), job, fail_under={"f1": 0.8}, return_state=True)
        asked = len(qwen.requests)
        bad = evaluate_golden(str(golden), job, fail_under={"f1": 0.95, "valid": 1.0}, return_state=True)
        assert len(qwen.requests) == asked
    assert good.is_completed() and bad.is_failed()
    assert "f1 is 0.90" in str(bad.message) and "valid is" not in str(bad.message)
    assert (Path(job.out) / "evaluations" / f"golden-{good.result()['recipe']}" / "index.html").is_file()


def test_the_flow_run_s_log_has_the_engine_s_lines_with_run_chunk_and_record(server: None, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort
    from prefect.logging.handlers import APILogWorker

    from flows.extract import extract

    # One that an earlier test began sends to the server of that test, which is gone.
    APILogWorker.drain_all(timeout=10)

    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(lambda body: "no" if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        state = extract(job_for(source, tmp_path / "out", qwen, max_attempts=1), return_state=True)
    for handler in logging.getLogger("extractors").handlers:
        handler.flush()
    run_id = state.result(raise_on_failure=False)["run_id"]
    only_this_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        lines = [one.message for one in client.read_logs(only_this_run, sort=LogSort.TIMESTAMP_ASC)]
    (failed,) = [line for line in lines if line.startswith("a record failed: not_json")]
    assert f"run_id={run_id}" in failed
    assert "chunk_id=" in failed
    assert "record_id=r00003" in failed
    assert [line.partition(" [")[0] for line in lines if line.startswith("run ")] == [
        "run begins: thing",
        "run ends: completed",
    ]
