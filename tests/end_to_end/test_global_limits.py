"""A Prefect global limit as the pace of all machines: strict, a batch at a time, on a real Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

# One machine: its records, under the limit that all share.
MACHINE = """
import sys
from flows import environment
environment.prepare()
from extractors.endpoint import Settings
from extractors.pipeline import run
from flows.limits import global_rate
from tests.end_to_end.things import job_for
source, out, url = sys.argv[1:]
job = job_for(source, out, url, rate_limit_name="calls")
with global_rate(job.rate_limit_name) as permit:
    print(run(job, settings=Settings(), permit=permit).rows)
"""


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The address of a Prefect server with a database of its own."""
    from flows import environment

    environment.prepare()
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


def limit(name: str, slots: int, decay: float) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, slots, slot_decay_per_second=decay)


def test_two_processes_together_never_pass_the_limit(api: str, tmp_path: Path) -> None:
    a_second, each = 20, 60
    limit("calls", a_second, a_second)
    env = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "prefect")}
    with FakeQwen(thing_answer, keep=False) as qwen:
        machines = [
            subprocess.Popen(
                [sys.executable, "-c", MACHINE, str(write_things(tmp_path / f"{n}.jsonl", range(n * each, (n + 1) * each))),
                 str(tmp_path / f"out{n}"), qwen.base_url],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
            )
            for n in range(2)
        ]  # fmt: skip
        done = [machine.communicate(timeout=300) for machine in machines]
        asked, busiest, seconds = qwen.count, qwen.highest_rate(), len(qwen.rates())
    assert [out.strip().splitlines()[-1:] for out, _ in done] == [[str(each)]] * 2, done
    assert asked == 2 * each
    assert busiest <= a_second
    sys.stdout.write(
        f"\n{asked} calls of two processes in {seconds} s, {busiest} of {a_second} in the busiest second\n"
    )


def test_a_flow_with_a_limit_that_does_not_exist_asks_nothing(api: str, tmp_path: Path) -> None:
    from flows.extract import extract

    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer) as qwen:
        state = extract(job_for(source, tmp_path / "out", qwen, rate_limit_name="nowhere"), return_state=True)
        assert qwen.count == 0
    assert state.is_failed()
    assert "there is no Prefect limit 'nowhere'" in str(state.message)


def test_a_flow_keeps_a_limit(api: str, tmp_path: Path) -> None:
    from flows.extract import extract

    limit("slow", 5, 5)
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        state = extract(job_for(source, tmp_path / "out", qwen, rate_limit_name="slow"), return_state=True)
        assert (qwen.count, qwen.highest_rate() <= 5) == (12, True)
    assert state.is_completed()


@pytest.mark.parametrize(
    ("slots", "decay", "said"), [(5, 0.0, "no slot decay"), (3, 5.0, "fewer slots than decay"), (2, 1.5, None)]
)
def test_a_limit_that_is_no_rate_is_refused(api: str, slots: int, decay: float, said: str | None) -> None:
    from extractors.errors import JobError
    from flows.limits import global_rate

    name = f"rate-{slots}"
    limit(name, slots, decay)
    if said is None:
        with global_rate(name) as permit:
            assert permit is not None
        return
    with pytest.raises(JobError, match=said), global_rate(name):
        pass
