"""Records a second and CPU of one process, and of one and two workers of a Dask cluster, over the same records.

The model is a loopback server that answers at once, so that what is measured is Quarry's own work: with a real
model's latency one process spends most of its time waiting. The cluster's workers are processes of this machine and share
its cores with the server, so two of them show what the way through Dask costs more than what two machines would give.
CPU is user + system of the run's own processes (the flow's and the workers'), without the model's and Prefect's
servers. Medians of interleaved rounds; the first round warms up and is not counted.
Run: ``python -m benchmarks.scale``
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import distributed
import psutil
from pydantic import BaseModel

from benchmarks.loopback import record_text, running
from extractors.endpoint import Settings
from extractors.pipeline import run
from flows import environment
from schemas.job import ExtractionJob

IN_FLIGHT = 64


class Article(BaseModel):
    """What is extracted."""

    name: str
    code: str
    price: Decimal | None
    city: str
    since: date


def cpu(pids: list[int]) -> float:
    """CPU seconds of these processes so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def write_source(path: Path, first: int, count: int) -> Path:
    """Records of 300 characters, different for each ``first``."""
    path.write_text("".join(json.dumps({"text": record_text(first + i)}) + "\n" for i in range(count)))
    return path


def on_dask(job: ExtractionJob) -> int:
    """The job through the flow; gives its rows."""
    from flows.extract import extract

    told = extract(job, return_state=True).result()
    return int(told["rows"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    environment.prepare()
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    logging.disable(logging.WARNING)
    from prefect.testing.utilities import prefect_test_harness

    seen: dict[str, list[tuple[float, float]]] = {}
    with (
        prefect_test_harness(server_startup_timeout=180),
        running() as url,
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as one,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=3, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as two,
        tempfile.TemporaryDirectory() as folder,
    ):
        me = os.getpid()
        ways: dict[str, tuple[Callable[[ExtractionJob], int], str | None, list[int]]] = {
            "direct": (lambda job: run(job, settings=Settings()).rows, None, [me])
        }
        for name, cluster in (("dask, 1 worker", one), ("dask, 2 workers", two)):
            with distributed.Client(cluster, set_as_default=False) as client:
                ways[name] = (on_dask, cluster.scheduler_address, [me, *client.run(os.getpid).values()])
        for number in range(arguments.rounds + 1):
            for place, (name, (way, address, pids)) in enumerate(ways.items()):
                source = write_source(Path(folder) / "in.jsonl", (3 * number + place) * 1_000_000, arguments.records)
                job = ExtractionJob.model_validate(
                    {
                        "source": str(source),
                        "schema": "benchmarks.scale:Article",
                        "out": str(Path(folder) / f"{number}-{place}"),
                        "model": "fake",
                        "base_url": url,
                        "concurrency": IN_FLIGHT,
                        "stream": "never",
                        "dialect": "chat",
                        **({} if address is None else {"runner": "dask", "dask_address": address, "engine": "prefect"}),
                    }
                )
                used, clock = cpu(pids), time.perf_counter()
                rows = way(job)
                assert rows == arguments.records, (name, rows)
                if number:
                    seen.setdefault(name, []).append((time.perf_counter() - clock, cpu(pids) - used))
    print(
        f"{arguments.records} records of 300 characters, {IN_FLIGHT} calls in flight in each process, chunks of 200, "
        f"{os.cpu_count()} cores, median of {arguments.rounds} rounds"
    )
    figures = {}
    for name, rounds in seen.items():
        wall, used = (statistics.median(one[place] for one in rounds) for place in (0, 1))
        figures[name] = round(arguments.records / wall)
        print(
            f"{name:>16}: {arguments.records / wall:6.0f} records/s, {wall:6.2f} s from start to report, "
            f"{used / arguments.records * 1e3:6.3f} ms CPU a record"
        )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
