"""How fast documents become text, on one reading process and on two; and 200 hostile ones. Prints documents and
megabytes of text a second.

    python -m benchmarks.documents [--count N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from extractors.documents import Converted, DocumentLimits, DocumentWorkers
from tests.fakes import hostile

_SENTENCE = "The party of the first part delivers kettles for 12.50 EUR each, on the fourth day of each month. "


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="documents of each kind")
    given = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "pdf of 10 pages": (".pdf", hostile.pdf(_SENTENCE * 20, pages=10)),
            "docx of 20,000 characters": (".docx", hostile.docx(_SENTENCE * 200)),
            "html of 20,000 characters": (".html", f"<p>{_SENTENCE * 20}</p>".encode() * 10),
        }
        for name, (suffix, content) in kinds.items():
            paths = []
            for number in range(given.count):
                path = Path(folder) / f"{number}{suffix}"
                path.write_bytes(content)
                paths.append(str(path))
            for processes in (1, 2):
                with DocumentWorkers(processes) as workers:
                    list(workers.converted(paths[:4], DocumentLimits()))
                    begun = time.perf_counter()
                    made = [one for _, one in workers.converted(paths, DocumentLimits()) if isinstance(one, Converted)]
                    seconds = time.perf_counter() - begun
                size = sum(len(one.text) for one in made) / 1e6
                print(
                    f"{name:26} {processes} process: {len(made) / seconds:7.0f} a second, {size / seconds:6.1f} MB of text"
                )
                result[f"{name}, {processes}"] = round(len(made) / seconds, 1)
    with tempfile.TemporaryDirectory() as folder:
        files = list(hostile.write(Path(folder), 200, seed=2))
        slowest, ends = 0.0, Counter[str]()
        with DocumentWorkers(1) as workers:
            for _, path in files:
                begun = time.perf_counter()
                told = workers.convert(str(path), DocumentLimits())
                slowest = max(slowest, time.perf_counter() - begun)
                ends["read" if isinstance(told, Converted) else "refused with a reason"] += 1
    print(f"200 hostile documents: {dict(ends)}; the slowest took {slowest:.1f} s")
    print(json.dumps(result | {"hostile_slowest_s": round(slowest, 2)}))


if __name__ == "__main__":
    main()
