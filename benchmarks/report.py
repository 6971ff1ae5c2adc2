"""The HTML report: time and memory to write it, and whether 10,000 records can be searched without a stall.

Records of about 600 characters of random words are extracted against a loopback server (one in 40 fails validation, one in 97 has no
text, one in three has a character outside the BMP), then ``quarry report`` runs as a process of its own, and the page
is opened from disk in Chromium. A *stall* is the longest time for which the page answered nothing (a long task).
Bars for 10,000 records: ready <= 2 s, a search <= 0.5 s once unpacked, stall <= 0.25 s; for 100,000 rows: <= 450 MB.
Run: ``python -m benchmarks.report`` (3 minutes on two cores)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.loopback import record_text, running

CHROMIUM = "/usr/bin/chromium"
QUARRY = str(Path(sys.executable).with_name("quarry"))
_STALLS = """
window.stalls = [];
new PerformanceObserver((told) => told.getEntries().forEach((one) => window.stalls.push(one.duration)))
  .observe({ type: 'longtask', buffered: true });
"""


def main() -> int:
    """Measure, print, and fail when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running() as url:
        small = extracted(Path(folder) / "small", arguments.records, url)
        page = Path(folder) / "page.html"
        seconds, memory, told = reported(small, page)
        print(
            f"{arguments.records:,} records ({told['rows']:,} rows, {told['failures']:,} failures): written in {seconds:.1f} s, "
            f"peak RSS {memory:.0f} MB, file {told['bytes'] / 1e6:.1f} MB"
        )
        measured = in_browser(page)
        for name, value in measured.items():
            print(f"  {name}: {value:.0f} ms")
        large = extracted(Path(folder) / "large", arguments.many, url)
        sample_s, sample_mb, told = reported(large, page)
        print(
            f"{arguments.many:,} records: written in {sample_s:.1f} s with {told['shown']:,} of them in the page, peak RSS "
            f"{sample_mb:.0f} MB, file {told['bytes'] / 1e6:.1f} MB"
        )
        whole_s, whole_mb, told = reported(large, page, "--limit", str(arguments.many))
        print(
            f"{arguments.many:,} records, all in the page: written in {whole_s:.1f} s, peak RSS {whole_mb:.0f} MB, "
            f"file {told['bytes'] / 1e6:.1f} MB"
        )
        for name, value in in_browser(page).items():
            print(f"  {name}: {value:.0f} ms")
    searches = [value for name, value in measured.items() if name.startswith("search")]
    print(
        json.dumps(
            {
                "ready_ms": round(measured["load to ready"]),
                "search_ms": round(max(searches)),
                "peak_mb": round(whole_mb),
            }
        )
    )
    return 0 if measured["load to ready"] <= 2000 and max(searches) <= 500 and measured["longest stall"] <= 250 and whole_mb <= 450 else 1  # fmt: skip


def extracted(folder: Path, records: int, url: str) -> Path:
    """An output folder of ``records`` made-up articles."""
    folder.mkdir()
    source, out = folder / "records.jsonl", folder / "out"
    draw = random.Random(7)
    words = ["".join(draw.choices("aeiourstlnmd", k=draw.randint(3, 9))) for _ in range(3_000)]
    with source.open("w") as file:
        for number in range(records):
            # Words at random: the same filler in every record would compress to nothing.
            text = f"{record_text(number, length=150)} {' '.join(draw.choices(words, k=65))}."
            if number % 3 == 0:
                text = f"🛒 {text}"
            if number % 40 == 7:
                text = f"Nothing is sold here ({number})."
            file.write(json.dumps({"id": f"a{number:06}", "text": "" if number % 97 == 13 else text}) + "\n")
    command = [QUARRY, "run", str(source), "--schema", "benchmarks.overhead:Article", "--out", str(out), "--id", "id",
               "--base-url", url, "--model", "fake", "--concurrency", "64", "--json"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    return out


def reported(out: Path, page: Path, *options: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds, peak resident memory in MB and the JSON of one ``quarry report``."""
    clock = time.perf_counter()
    command = [QUARRY, "report", str(out), "-o", str(page), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    return time.perf_counter() - clock, used.ru_maxrss * 1024 / 1e6, json.loads(output.strip().splitlines()[-1])


def in_browser(file: Path) -> dict[str, float]:
    """Milliseconds from the start of each step to what it shows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.add_init_script(_STALLS)
        page.goto(file.as_uri(), wait_until="commit")
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        measured = {"load to ready": page.evaluate("Number(document.body.dataset.ready)")}
        measured["first search, with unpacking what was not yet"] = typed(page, "AB-0000731")
        for words in ("kettle turku", '"made by hand from good wood"', "no such words anywhere", "🛒 porto"):
            measured[f"search {words}"] = typed(page, words)
        measured["search cleared"] = typed(page, "")
        measured["only failures"] = chosen(page, "show", "failures")
        measured["by cost"] = chosen(page, "order", "tokens")
        measured["next page"] = timed(page, "document.getElementById('later').click()")
        measured["open a record"] = page.evaluate(
            """async () => {
                const began = performance.now();
                const link = document.querySelectorAll('#list a')[20];
                link.click();
                while (document.body.dataset.open !== link.dataset.at) await new Promise(requestAnimationFrame);
                return performance.now() - began;
            }"""
        )
        measured["longest stall"] = max(page.evaluate("window.stalls"), default=0.0)
        browser.close()
    return measured


def typed(page: Page, words: str) -> float:
    """From the last key to the list, the wait for further keys (120 ms) left out."""
    return changed(page, "by-q", words) - 120


def chosen(page: Page, name: str, value: str) -> float:
    """From a choice to the list."""
    return changed(page, f"by-{name}", value)


def changed(page: Page, control: str, value: str) -> float:
    """From a control's new value to the list that answers it."""
    elapsed: float = page.evaluate(
        """async ([id, value]) => {
            const control = document.getElementById(id), before = document.body.dataset.applied;
            const began = performance.now();
            control.value = value;
            control.dispatchEvent(new Event('input', { bubbles: true }));
            while (document.body.dataset.applied === before) await new Promise(requestAnimationFrame);
            return performance.now() - began;
        }""",
        [control, value],
    )
    return elapsed


def timed(page: Page, script: str) -> float:
    """A synchronous step and the frame that shows it."""
    elapsed: float = page.evaluate(
        f"async () => {{ const began = performance.now(); {script}; await new Promise(requestAnimationFrame); return performance.now() - began; }}"
    )
    return elapsed


if __name__ == "__main__":
    sys.exit(main())
