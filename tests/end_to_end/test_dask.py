"""``runner: dask``: real worker processes, a real Prefect server, one output."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest

from extractors.store import catalog, files
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen
from tests.fakes.s3 import running_s3

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
COLUMNS = ["record_id", "fingerprint", "name", "price"]


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    """A Prefect server with a database of its own."""
    from flows import environment

    environment.prepare()
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@contextmanager
def cluster(workers: int = 2) -> Iterator[distributed.LocalCluster]:
    """A scheduler and workers in processes of their own, with the environment as it is now."""
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=3, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def s3(api: None) -> Iterator[str]:
    with running_s3("quarry") as address:
        yield address


@pytest.fixture(scope="module")
def dask(s3: str) -> Iterator[distributed.LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3)
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        with cluster() as found:
            yield found


def run_on(dask: distributed.LocalCluster | None, source: Path, out: Path | str, qwen: FakeQwen, **options: Any) -> Any:
    """Run the flow; gives its state and its report's values."""
    from flows.extract import extract

    address = {} if dask is None else {"dask_address": dask.scheduler_address}
    job = job_for(source, out, qwen, runner="dask", engine="prefect", **address, **options)  # type: ignore[arg-type]
    state = extract(job, return_state=True)
    return state, state.result(raise_on_failure=False)


def processes_of(dask: distributed.LocalCluster) -> list[int]:
    with distributed.Client(dask, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def test_the_workers_leave_the_same_table_as_a_direct_run(dask: distributed.LocalCluster, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "direct", qwen)
        state, told = run_on(dask, source, tmp_path / "dask", qwen)
        assert state.is_completed(), told
        assert qwen.count == 120
        _, again = run_on(dask, source, tmp_path / "dask", qwen)
        assert qwen.count == 120
    assert (told["rows"], told["chunks"], told["undone"]) == (60, 6, 0)
    assert (again["rows"], again["skipped"]) == (0, 60)
    found = catalog.current_rows(tmp_path / "dask").select(COLUMNS)
    assert found == catalog.current_rows(tmp_path / "direct").select(COLUMNS)
    assert list((tmp_path / "dask").glob("*/recipe=*/journal/*")) == []


def test_a_worker_that_is_killed_loses_nothing_that_was_answered(
    dask: distributed.LocalCluster, tmp_path: Path
) -> None:
    records, slots = 120, 8
    source = write_things(tmp_path / "things.jsonl", range(records))
    with FakeQwen(thing_answer, latency=0.25) as qwen:
        victim = processes_of(dask)[0]

        def kill() -> None:
            while qwen.count < 30:
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        state, told = run_on(dask, source, tmp_path / "out", qwen, concurrency=slots, chunk_size=20)
        killer.join()
        asked = qwen.count
    assert state.is_completed(), told
    assert (told["rows"], told["undone"]) == (records, 0)
    assert told["replayed"] > 0, "the journal was not found"
    assert asked <= records + slots, "more was asked again than was in flight"
    assert catalog.current_rows(tmp_path / "out").num_rows == records
    assert not psutil.pid_exists(victim)


def test_two_workers_keep_one_rate(dask: distributed.LocalCluster, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        state, told = run_on(dask, source, tmp_path / "out", qwen, rpm=600)
        assert state.is_completed(), told
        assert (qwen.count, qwen.highest_rate() <= 11) == (60, True), qwen.rates()


@pytest.mark.slow
def test_two_workers_keep_one_prefect_limit(dask: distributed.LocalCluster, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("cluster", 20, slot_decay_per_second=20)
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        state, told = run_on(dask, source, tmp_path / "out", qwen, rate_limit_name="cluster")
        assert state.is_completed(), told
        assert (qwen.count, qwen.highest_rate() <= 20) == (60, True), qwen.rates()


def test_two_workers_keep_one_ceiling(dask: distributed.LocalCluster, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(200))
    with FakeQwen(thing_answer) as qwen:
        free = run_things(source, tmp_path / "free", qwen)
        whole = free.input_tokens + free.output_tokens
        before = qwen.count
        state, told = run_on(dask, source, tmp_path / "out", qwen, max_tokens=whole // 2, max_output_tokens=64)
        asked = qwen.count - before
    used = told["input_tokens"] + told["output_tokens"]
    assert state.name == "Stopped", told
    assert "--max-tokens" in told["stopped"]
    assert used <= whole // 2
    assert used >= 0.8 * (whole // 2), "the ceiling was reached with much of it unused"
    assert asked == told["rows"] == 200 - told["undone"]


@pytest.mark.slow
def test_money_is_a_ceiling_too(dask: distributed.LocalCluster, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(200))
    with FakeQwen(thing_answer) as qwen:
        free = run_things(source, tmp_path / "free", qwen)
        assert free.cost is not None
        most = (free.cost / 2).quantize(Decimal("0.000001"))
        _, told = run_on(dask, source, tmp_path / "out", qwen, max_cost=str(most), max_output_tokens=64)
    assert 0 < told["rows"] < 200
    assert Decimal(told["cost"]) <= most


def test_the_output_may_be_on_an_object_store(dask: distributed.LocalCluster, s3: str, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(30))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "direct", qwen)
        state, told = run_on(dask, source, "s3://quarry/dask", qwen, s3_endpoint=s3)
        assert state.is_completed(), told
    found = catalog.current_rows("s3://quarry/dask").select(COLUMNS)
    assert found == catalog.current_rows(tmp_path / "direct").select(COLUMNS)
    folder = files.place("s3://quarry/dask/Thing") / f"recipe={told['recipe']}" / "journal"
    assert files.listed(folder, "*") == []


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_here(api: None, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(10))
    with FakeQwen(thing_answer) as qwen:
        state, told = run_on(None, source, tmp_path / "out", qwen, dask_workers=1)
    assert state.is_completed(), told
    assert told["rows"] == 10


def test_what_a_cluster_cannot_do_is_said_first(tmp_path: Path) -> None:
    from extractors.errors import JobError
    from flows.on_dask import check_dask_job

    source = write_things(tmp_path / "things.jsonl", range(1))
    for options, said in (
        ({"tpm": 1000}, "--tpm"),
        ({"lane": "batch"}, "--lane batch"),
        ({"base_url": None, "model": "local-0.5b"}, "embedded"),
    ):
        with pytest.raises(JobError, match=said):
            check_dask_job(job_for(source, tmp_path, "http://127.0.0.1:9/v1", runner="dask", **options))
    with pytest.raises(JobError, match="--engine prefect"):
        run_things(source, tmp_path / "out", "http://127.0.0.1:9/v1", runner="dask")
