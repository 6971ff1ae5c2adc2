"""What telemetry costs: CPU of a record with nothing on, with JSON logs, and with OTLP to a collector on loopback.

The server, the records and the schema are those of ``benchmarks.overhead``: no latency, 64 calls in flight, distinct
records of 300 characters, everything on. The ways:

- bare: the same engine without an observer: no ids, no metrics file, no lines of log;
- off: what everybody gets: ids, the metrics file, a log at WARNING;
- json: the log at INFO as JSON lines, into a file;
- otlp: a span a call and all metrics, to a collector in another process that reads them and answers 200;
- otlp refused: the same, and nothing listens there.

CPU is the process's own (user + system, all threads). Rounds are interleaved in an order that turns, and what is
compared with bare is the median of the differences within a round, so that what the machine does meanwhile falls on
all of them. On a busy machine a difference of 1 % drowns in that, so the parts of "off" are timed by themselves too:
what a record costs (a context variable), a chunk of 200 (its scope and its sums), and the file, once a second.
The bar: those parts together are less than 1 % of bare.
Run: ``python -m benchmarks.telemetry``
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from unittest import mock

from benchmarks.loopback import record_text, running
from benchmarks.overhead import cpu, quarry
from extractors.engine import ChunkDone
from extractors.store.commits import Commit
from extractors.store.files import write_whole
from extractors.telemetry.ids import RECORD
from extractors.telemetry.logs import JsonLines, WithIds
from extractors.telemetry.metrics_file import EVERY_SECONDS
from extractors.telemetry.observer import Observer
from schemas.usage import Usage

COLLECTOR = """
import socketserver, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *said): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
WAYS = ("bare", "off", "json", "otlp", "otlp refused")


@contextlib.contextmanager
def collecting() -> Iterator[str]:
    """The address of a collector in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def the_way(way: str, collector: str, scratch: Path) -> Iterator[None]:
    """Telemetry as the way has it."""
    with contextlib.ExitStack() as stack:
        if way == "bare":
            stack.enter_context(mock.patch("extractors.pipeline.Observer", Blind))
        if way == "json":
            handler = logging.FileHandler(scratch / "log.jsonl", mode="w")
            handler.addFilter(WithIds())
            handler.setFormatter(JsonLines())
            ours = logging.getLogger("extractors")
            ours.addHandler(handler)
            ours.setLevel(logging.INFO)
            stack.callback(ours.setLevel, logging.WARNING)
            stack.callback(handler.close)
            stack.callback(ours.removeHandler, handler)
        if way.startswith("otlp"):
            address = collector if way == "otlp" else "http://127.0.0.1:9"
            stack.enter_context(mock.patch.dict(os.environ, {"OTEL_EXPORTER_OTLP_ENDPOINT": address}))
        yield


class Blind:
    """An observer that sees nothing, as before there was one."""

    def __init__(self, *given: object, **named: object) -> None:
        """Nothing is kept."""

    def __enter__(self) -> Blind:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to end."""

    def layer(self, address: str, *, embedded: bool) -> None:
        """No layer."""

    def chunk(self, chunk_id: str, size: int) -> contextlib.AbstractContextManager[dict[str, object]]:
        return contextlib.nullcontext({})

    def planned(self, counts: object) -> None:
        """Not counted."""

    chunk_done = limited_by = bounded_by = planned

    def ended(self, report: object, fatal: object = None) -> None:
        """Not told."""


def parts() -> tuple[float, float]:
    """CPU seconds of "off": for a record, its part of a chunk included; and for writing the file once."""
    done = ChunkDone("c" * 16, None, 0, {}, tuple(i / 1000 for i in range(200)), 200, 0, {"ok": 200})
    usage = Usage(200, 60_000, 8_000, cost=Decimal("0.1"))
    commit = Commit("c" * 16, 1, "r", "", 200, 200, 0, 0, usage, ())
    done = replace(done, commit=commit)
    info = {"schema": "article", "recipe": "12345678", "model": "fake", "engine": "direct", "lane": "live"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.prom"
        observer = Observer("run", info=info, currency="USD", write=partial(write_whole, path))
        observer._file.refresh(now=True)
        observer._file._every = observer._file._next = float("inf")

        def chunk() -> None:
            with observer.chunk("c" * 16, 200):
                copy_context().run(int)
            observer.chunk_done(done)

        record = timed(lambda: RECORD.set("r00001"), 20_000) + timed(chunk, 300) / 200
        return record, timed(lambda: observer._file.refresh(now=True), 200)


def timed(what: Callable[[], object], times: int) -> float:
    """CPU seconds of this thread for one."""
    before = time.thread_time()
    for _ in range(times):
        what()
    return (time.thread_time() - before) / times


def main() -> int:
    """Measure, print, and fail when the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    logging.getLogger("extractors").setLevel(logging.WARNING)
    logging.getLogger("extractors.telemetry.otlp").setLevel(logging.ERROR)
    seen: dict[str, list[float]] = {way: [] for way in WAYS}
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    lines = 0
    with running() as url, collecting() as collector, tempfile.TemporaryDirectory() as scratch:
        for number in range(arguments.rounds + 1):
            if number == 1:
                gc.freeze()
            turned = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
            for way in turned:
                texts = [record_text(number * 1_000_000 + i) for i in range(arguments.records)]
                with the_way(way, collector, Path(scratch)):
                    before, clock = cpu(), time.perf_counter()
                    quarry(url, texts)
                    used, wall = cpu() - before, time.perf_counter() - clock
                if number:  # the first round warms up imports and connections
                    seen[way].append(used / arguments.records * 1e3)
                    walls[way].append(wall / arguments.records * 1e3)
                if way == "json":
                    lines = len((Path(scratch) / "log.jsonl").read_text().splitlines())
    print(f"{arguments.records} records of 300 characters, 64 in flight, {arguments.rounds} rounds")
    more: dict[str, float] = {}
    for way in WAYS:
        differences = [one - base for one, base in zip(seen[way], seen["bare"], strict=True)]
        more[way] = statistics.median(differences)
        spread = statistics.quantiles(differences, n=4) if way != "bare" else [0.0, 0.0, 0.0]
        base = statistics.median(seen["bare"])
        print(
            f"{way:>13}: {statistics.median(seen[way]):6.3f} ms CPU a record, {statistics.median(walls[way]):6.3f} ms wall; "
            f"over bare {more[way] * 1e3:+6.1f} us ({more[way] / base:+6.1%}; quartiles {spread[0] * 1e3:+.1f} to "
            f"{spread[2] * 1e3:+.1f})"
        )
    record, file = parts()
    share = record * 1e3 / statistics.median(seen["bare"]) + file / EVERY_SECONDS
    print(f"json wrote {lines} lines a run; wall of the otlp ways holds the flush at the end (up to 3 s where refused)")
    print(
        f"the parts of off: {record * 1e6:.2f} us a record, {file * 1e3:.2f} ms for the file, at most every "
        f"{EVERY_SECONDS:g} s: {share:.2%} of bare (bar: < 1 %)"
    )
    print(
        json.dumps(
            {
                "off_share": round(share, 5),
                **{f"{way.replace(' ', '_')}_us": round(value * 1e3, 2) for way, value in more.items()},
            }
        )
    )
    return 0 if share < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
