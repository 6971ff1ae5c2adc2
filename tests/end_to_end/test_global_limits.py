"""A Prefect global limit as the pace of all machines: strict, a batch at a time, on a real Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
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


class Prefect:
    """What ``GlobalRate`` asks of Prefect's API, with a clock of its own and a limit that decays as Prefect's does."""

    def __init__(self, slots: int, decay: float) -> None:
        self.slots, self.decay, self.taken, self.since = slots, decay, 0.0, 0.0
        self.now, self.away, self.refusals, self.asked = 1000.0, False, 0, 0

    def read_global_concurrency_limit_by_name(self, name: str) -> SimpleNamespace:
        self._arrive()
        updated = datetime.fromtimestamp(self.since, UTC)
        return SimpleNamespace(
            limit=self.slots, active_slots=self.taken, updated=updated, slot_decay_per_second=self.decay, active=True
        )

    def increment_concurrency_slots(self, *, names: list[str], slots: int, mode: str) -> None:
        self._arrive()
        left = max(0.0, self.taken - int(self.decay * (self.now - self.since)))
        if left + slots > self.slots:
            self.refusals += 1
            self.since = self.now
            request = httpx.Request("POST", "http://prefect/increment")
            raise httpx.HTTPStatusError("locked", request=request, response=httpx.Response(423, request=request))
        self.taken, self.since = left + slots, self.now

    def _arrive(self) -> None:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("nobody there")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    made = Prefect(10, 10)
    monkeypatch.setattr("flows.limits.time.time", lambda: made.now)
    return made


def rate(prefect: Prefect, draw: float = 0.0) -> Any:
    from flows.limits import GlobalRate

    return GlobalRate("calls", prefect, clock=lambda: prefect.now, draw=lambda: draw)  # type: ignore[arg-type]


async def begun(prefect: Prefect, permits: list[Any], seconds: float) -> list[float]:
    """When calls began while all permits were asked as often as they allow."""
    times, due = [], [prefect.now] * len(permits)
    end = prefect.now + seconds
    while True:
        first = min(range(len(permits)), key=lambda one: due[one])
        if due[first] >= end:
            break
        prefect.now = max(prefect.now, due[first])
        wait = await permits[first]()
        if wait == 0:
            times.append(prefect.now)
        due[first] = prefect.now + wait
    return times


@pytest.mark.parametrize("machines", [1, 2, 5])
async def test_machines_that_share_a_limit_never_pass_it_in_any_second(prefect: Prefect, machines: int) -> None:
    chance = Random(machines)
    permits = [rate(prefect) for _ in range(machines)]
    for permit in permits:
        permit._draw = chance.random
    times = await begun(prefect, permits, 30)
    assert max(sum(at <= other < at + 1 for other in times) for at in times) <= 10
    assert len(times) > 30 * 10 * 0.75  # and little of it is wasted


async def test_a_batch_costs_two_requests_of_the_api(prefect: Prefect) -> None:
    permit = rate(prefect)
    prefect.asked = 0
    times = await begun(prefect, [permit], 0.89)
    assert (len(times), prefect.asked) == (9, 2)


async def test_without_the_api_nothing_begins_and_after_a_minute_the_run_ends(prefect: Prefect) -> None:
    from extractors.errors import ServerUnreachable

    permit = rate(prefect)
    prefect.away = True
    assert await permit() == 1.0
    prefect.now += 61
    with pytest.raises(ServerUnreachable, match="Prefect's API has not answered for 60 s"):
        await permit()


def test_a_limit_that_is_lost_on_the_way_ends_the_run_and_costs_no_record(prefect: Prefect, tmp_path: Path) -> None:
    from extractors.endpoint import Settings
    from extractors.errors import JobError
    from extractors.pipeline import run

    left = 3

    async def permit() -> float:
        nonlocal left
        left -= 1
        if left < 0:
            raise JobError("the limit is gone")
        return 0.0

    source = write_things(tmp_path / "things.jsonl", range(8))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen)
        with pytest.raises(JobError, match="the limit is gone"):
            run(job, settings=Settings(), permit=permit)
        assert qwen.count == 3
        again = run(job, settings=Settings())
    assert (again.rows, again.skipped, again.failures, qwen.count) == (5, 3, 0, 8)
