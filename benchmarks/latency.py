"""Does the lane stay full? 10,000 records, 256 in flight, replies after 0.5 s: wall time against the ideal.

The ideal is ``ceil(records / in flight) * latency``. The clock runs from before the source is opened until
the report is there; starting Python and importing are not in it. Bar: <= 1.03x.
Run: ``python -m benchmarks.latency``
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from benchmarks.loopback import record_text, running
from benchmarks.overhead import Article, cpu
from extractors import extract
from extractors.endpoint import Settings


def main() -> int:
    """Measure, print, and fail when the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.5)
    arguments = parser.parse_args()
    with running() as url, tempfile.TemporaryDirectory() as warm:  # imports and first use are not measured
        extract(
            pa.table({"text": ["Article Kettle 1 (AB-1) costs 1.10 EUR in Lyon, sold since 2020-01-01."]}),
            Article,
            Path(warm) / "o",
            base_url=url,
            model="fake",
            settings=Settings(),
        )
    texts = pa.table({"text": [record_text(i) for i in range(arguments.records)]})
    with running(latency=arguments.latency) as url, tempfile.TemporaryDirectory() as out:
        before, clock = cpu(), time.perf_counter()
        found = extract(
            texts,
            Article,
            Path(out) / "o",
            base_url=url,
            model="fake",
            concurrency=arguments.in_flight,
            settings=Settings(),
        )
        wall, used = time.perf_counter() - clock, cpu() - before
    assert found.report.rows == arguments.records, found.report
    ideal = math.ceil(arguments.records / arguments.in_flight) * arguments.latency
    print(f"{arguments.records} records, {arguments.in_flight} in flight, {arguments.latency} s a reply")
    print(f"wall {wall:.2f} s, ideal {ideal:.2f} s: {wall / ideal:.3f}x (bar: <= 1.03); CPU {used:.2f} s")
    print(json.dumps({"wall_over_ideal": round(wall / ideal, 4)}))
    return 0 if wall / ideal <= 1.03 else 1


if __name__ == "__main__":
    sys.exit(main())
