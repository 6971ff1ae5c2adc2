"""Approval, artifacts, events and automations on a real Prefect server."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Reply

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for all tests here; its address."""
    from flows import environment

    environment.prepare()
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="module")
def automations(server: str) -> None:
    """The example automations, in the server."""
    made = subprocess.run(
        [sys.executable, "-m", "prefect", "automation", "create", "--from-file", "examples/automations.yaml"],
        cwd=ROOT, env={**os.environ, "PREFECT_API_URL": server}, capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr


def soon(look: Callable[[], _T | None], seconds: float = 90.0) -> _T:
    """What ``look`` finds, within some seconds."""
    end = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
    return found


class Started:
    """A flow run in a thread of its own, and what became of it."""

    def __init__(self, job: Any) -> None:
        from flows.extract import extract

        self.state: Any = None
        self.mark = f"extract-{job.out}"

        def work() -> None:
            self.state = extract(job, return_state=True)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def paused(self, times: int = 1) -> UUID:
        """Wait until the run has paused for the ``times``-th time."""
        return soon(lambda: paused_run(self.mark, times))

    def end(self) -> Any:
        self.thread.join(timeout=120)
        assert self.state is not None
        return self.state


def paused_run(name: str, times: int = 1) -> UUID | None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for one in client.read_flow_runs():
            if one.name == name and one.state is not None and one.state.is_paused():
                key = one.state.state_details.pause_key or ""
                return one.id if key.endswith(f"-{times}") else None
    return None


def question(run_id: UUID) -> str:
    """What the form in the UI says."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        keyset = client.read_flow_run(run_id).state.state_details.run_input_keyset  # type: ignore[union-attr]
        response = client.request("GET", f"/flow_runs/{run_id}/input/{keyset['description']}")
    return str(response.json())


def artifacts(run_id: UUID | None = None) -> dict[str, list[Any]]:
    from prefect.client.orchestration import get_client

    found: dict[str, list[Any]] = {}
    with get_client(sync_client=True) as client:
        for one in client.read_artifacts():
            if run_id is None or one.flow_run_id == run_id:
                found.setdefault(one.key or "", []).append(one.data)
    return found


def events(name: str) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        response = client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}, "limit": 50})
    return list(response.json()["events"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.approval._LOOK", 0.3)


def test_a_paused_run_shows_its_estimate_and_goes_on_under_a_lower_ceiling(
    server: str, tmp_path: Path, impatient: None
) -> None:
    from prefect import resume_flow_run

    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(lambda body: Reply(thing_answer(body), tokens=(1_000, 100, 0, 0))) as qwen:
        run = Started(job_for(source, tmp_path / "out", qwen, approve_above=0, concurrency=2, max_output_tokens=64))
        run_id = run.paused()
        assert qwen.count == 20
        asked = question(run_id)
        assert "40 more texts" in asked
        assert "90% interval" in asked
        assert artifacts(run_id)["quarry-estimate"] == [asked]
        resume_flow_run(run_id, {"choice": "lower the ceiling"})
        again = run.paused(times=2)
        assert "give an amount" in question(again)
        resume_flow_run(again, {"choice": "lower the ceiling", "ceiling": 0.02})
        state = run.end()
        told = state.result()
        assert qwen.count == told["calls"] < 60
    assert state.name == "Stopped"
    assert "--max-cost" in told["stopped"]
    assert 0.0 < float(told["cost"]) <= 0.02
    assert told["rows"] > 20
    assert told["undone"] > 0
    assert soon(lambda: events("quarry.run.approval-needed") or None)
    budget = soon(lambda: events("quarry.run.budget-reached") or None)[0]
    assert budget["payload"]["undone"] == told["undone"]
    assert budget["resource"]["quarry.schema"] == "thing"
    roles = {one["prefect.resource.role"] for one in budget["related"]}
    assert {"flow-run", "flow", "output"} <= roles


def test_a_run_that_is_told_to_stop_keeps_its_sample_and_asks_nothing_more(
    server: str, tmp_path: Path, impatient: None
) -> None:
    from prefect import resume_flow_run

    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_answer) as qwen:
        run = Started(job_for(source, tmp_path / "out", qwen, approve_above=0))
        resume_flow_run(run.paused(), {"choice": "stop"})
        state = run.end()
        assert qwen.count == 20
        assert state.name == "NotApproved"
        # The same again, and approved this time: the sample is not paid twice.
        run = Started(job_for(source, tmp_path / "out", qwen, approve_above=0))
        resume_flow_run(run.paused(), {"choice": "go on"})
        state = run.end()
        assert qwen.count == 40
    assert state.name == "Completed"
    assert (state.result()["rows"], state.result()["skipped"]) == (20, 20)


def test_a_run_leaves_one_artifact_of_each_kind_however_many_chunks_it_has(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.extract import extract

    monkeypatch.setattr("flows.artifacts._APART", 0.0)
    source = write_things(tmp_path / "things.jsonl", range(50))
    with FakeQwen(lambda body: "<b>no</b>" if "thing-000000" in str(body) else thing_answer(body)) as qwen:
        state = extract(job_for(source, tmp_path / "out", qwen, chunk_size=5), return_state=True)
    assert state.state_details.flow_run_id is not None
    mine = artifacts(state.state_details.flow_run_id)
    assert {key: len(found) for key, found in mine.items()} == dict.fromkeys(
        ("quarry-progress", "quarry-summary", "quarry-failures", "quarry-fields"), 1
    )
    assert float(mine["quarry-progress"][0]) == 100.0
    assert "50 = 40 + 10 + 0 + 0" in mine["quarry-summary"][0]
    assert "3 of 10" in mine["quarry-failures"][0]
    assert "| price | 40 | 100.0% |" in mine["quarry-fields"][0]
    assert "<b>" not in str(mine)


def test_a_suspended_deployment_goes_on_when_resumed_and_its_failures_pause_it(
    server: str, automations: None, tmp_path: Path, impatient: None
) -> None:
    """The run gives its worker back at the question, starts anew with the answer, fails too often, and the example
    automation pauses the deployment that it belongs to."""
    from prefect import resume_flow_run
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow

    from flows.extract import extract

    source = write_things(tmp_path / "things.jsonl", range(60))
    deployment_id = UUID(str(extract.to_deployment("nightly", cron="0 3 * * *").apply()))
    seen: set[str] = set()

    def answer(body: dict[str, Any]) -> str:
        seen.add(str(body["messages"][1]))
        return thing_answer(body) if len(seen) <= 20 else "no"

    with FakeQwen(answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, approve_above=0, max_failure_rate=0.2, max_attempts=1)
        parameters = {"job": job.model_dump(mode="json", by_alias=True)}
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
            with pytest.raises(Pause):  # what a worker's process ends with
                run_flow(extract, flow_run=run, parameters={"job": job}, return_type="state")
            assert client.read_flow_run(run.id).state.name == "Suspended"  # type: ignore[union-attr]
            assert qwen.count == 20
            resume_flow_run(run.id, {"choice": "go on"})
            run = client.read_flow_run(run.id)
            second = run_flow(extract, flow_run=run, parameters={"job": job}, return_type="state")
            assert second.is_failed()  # type: ignore[union-attr]
            assert qwen.count == 60
            [alert] = soon(
                lambda: (
                    [
                        one
                        for one in events("quarry.run.failure-rate-exceeded")
                        if f"prefect.deployment.{deployment_id}" in str(one["related"])
                    ]
                    or None
                )
            )
            assert alert["payload"]["failures_by_reason"] == {"not_json": 40}
            soon(lambda: True if client.read_deployment(deployment_id).paused else None)


@pytest.mark.slow
def test_a_reached_ceiling_and_an_unusual_cost_pause_their_deployments(
    server: str, automations: None, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    from flows.extract import extract

    source = tmp_path / "things.jsonl"

    def paused_by(name: str, job: Any) -> None:
        deployment_id = UUID(str(extract.to_deployment(name, cron="0 3 * * *").apply()))
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                deployment_id, parameters={"job": job.model_dump(mode="json", by_alias=True)}
            )
            run_flow(extract, flow_run=run, parameters={"job": job}, return_type="state")
            soon(lambda: True if client.read_deployment(deployment_id).paused else None)

    with FakeQwen(thing_answer) as qwen:
        for count in range(20, 120, 20):
            run_things(write_things(source, range(count)), tmp_path / "out", qwen)
        write_things(source, range(120))
        paused_by("thrifty", job_for(source, tmp_path / "other", qwen, max_tokens=5_000))
        qwen.answer_with(lambda body: thing_answer(body)[:-1] + " " * 8_000 + "}")
        paused_by("steady", job_for(source, tmp_path / "out", qwen))
    assert {one["payload"]["max_tokens"] for one in events("quarry.run.budget-reached")} >= {5_000}
    [odd] = events("quarry.run.cost-anomaly")
    assert (odd["payload"]["measure"], odd["payload"]["direction"]) == ("cost", "higher")


@pytest.mark.slow
def test_a_run_started_on_the_command_line_is_asked_about_there(server: str, tmp_path: Path) -> None:
    from rich.console import Console

    from extractors.errors import ApprovalNeeded
    from flows.cli.approving import Asker
    from flows.cli.terminal import Bar
    from flows.cli.through_prefect import run_flow

    console = Console(file=io.StringIO())
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, approve_above=0)
        with pytest.raises(ApprovalNeeded, match="was not approved"):
            run_flow(job, asker=Asker(console, Bar(console), approved=False, read=lambda _: "n"))
        assert qwen.count == 20
        report = run_flow(job, asker=Asker(console, Bar(console), approved=True))
    assert (report.rows, report.skipped, report.engine) == (20, 20, "prefect")
