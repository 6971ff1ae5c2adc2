"""The batch flows on a real Prefect server: they give the worker back while batches are under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """One Prefect server with a database of its own for all tests here."""
    from flows import environment

    environment.prepare()
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


def test_a_flow_run_schedules_itself_anew_until_its_batches_have_ended(server: None, tmp_path: Path) -> None:
    from flows.batch import extract_in_batches

    source = write_things(tmp_path / "things.jsonl", range(20))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, batch_poll=0.01)
        first = extract_in_batches(job, again_after=3600, return_state=True)
        assert first.name == "AwaitingRetry"
        assert first.is_scheduled()
        assert "1 batch is under way" in (first.message or "")
        last = extract_in_batches(job, again_after=3600, return_state=True)
        while last.is_scheduled():
            last = extract_in_batches(job, again_after=3600, return_state=True)
        assert last.is_completed()
        assert last.result()["rows"] == 20
        assert max(qwen.batches.asked.values()) == 1


def test_the_collecting_flow_finishes_what_another_run_submitted(server: None, tmp_path: Path) -> None:
    from flows.batch import collect_batches, extract_in_batches

    source = write_things(tmp_path / "things.jsonl", range(20))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, batch_poll=0.01)
        extract_in_batches(job, return_state=True)
        rows = 0
        while runs := collect_batches(str(tmp_path / "out"), return_state=True).result()["runs"]:
            rows += sum(run["rows"] for run in runs)
    assert rows == 20
