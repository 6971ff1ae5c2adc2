"""A million short records: peak memory, and the time to plan again when all of them are done.

The run is a process of its own against a loopback server. Its resident memory is read from /proc twice a
second, together with the records done so far; the peaks up to 100,000 records and after are compared.
Bars: peak <= 400 MB and not growing from 100,000 records on (<= 10 % more); planning again <= 10 s.
Run: ``python -m benchmarks.memory`` (20 to 40 minutes on two cores; ``--records 200000`` for a short one)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.loopback import record_text, running


def main() -> int:
    """Measure, print, and fail when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running() as url:
        source = Path(folder) / "records.jsonl"
        with source.open("w") as file:
            for number in range(arguments.records):
                file.write(json.dumps({"id": number, "text": record_text(number, length=120)}) + "\n")
        command = [
            str(Path(sys.executable).with_name("quarry")),
            "run",
            str(source),
            "--schema",
            "benchmarks.overhead:Article",
            "--out",
            f"{folder}/out",
            "--id",
            "id",
            "--base-url",
            url,
            "--model",
            "fake",
            "--concurrency",
            "64",
            "--json",
        ]
        first, curve = watched(command, Path(folder) / "out")
        early = max(memory for done, memory in curve if done <= 100_000)
        late = max(memory for _, memory in curve)
        clock = time.perf_counter()
        second, again = watched(command, Path(folder) / "out")
        planned = time.perf_counter() - clock
    assert first["rows"] == arguments.records, first
    assert (second["skipped"], second["calls"]) == (arguments.records, 0), second
    print(
        f"{arguments.records:,} records in {first['seconds']:,.0f} s ({first['seconds'] / arguments.records * 1e3:.2f} ms each)"
    )
    print(f"peak RSS {early:.0f} MB up to 100,000 records, {late:.0f} MB in all (bar: <= 400 MB, <= 1.1x)")
    print(
        f"again, all done: {planned:.1f} s from command to exit, {second['seconds']:.1f} s inside (bar: <= 10 s), "
        f"peak RSS {max(memory for _, memory in again):.0f} MB"
    )
    print(json.dumps({"peak_mb": round(late), "growth": round(late / early, 3), "plan_again_s": second["seconds"]}))
    return 0 if late <= 400 and late <= 1.1 * early and second["seconds"] <= 10 else 1


def watched(command: list[str], out: Path) -> tuple[dict[str, int], list[tuple[int, float]]]:
    """Run a command; its JSON, and its resident memory in MB beside the records committed at the time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    curve = []
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            break
        commits = next(out.glob("article/recipe=*/commits"), None)
        done = 200 * sum(1 for _ in commits.iterdir()) if commits else 0
        curve.append((done, pages * 4096 / 1e6))
        time.sleep(0.5)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return json.loads(output.strip().splitlines()[-1]), curve


if __name__ == "__main__":
    sys.exit(main())
