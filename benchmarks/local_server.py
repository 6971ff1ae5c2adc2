"""What the embedded server's settings are worth: tokens a second and records a minute, on this machine.

    python benchmarks/local_server.py RECORDS.jsonl --text COLUMN > benchmarks/results/local_server.txt

``RECORDS.jsonl`` holds texts of some hundreds of tokens, such as receipts. Each line of the table is one server:
a model and its settings, first on an idle machine, then with one busy process for each core ("busy"). Rates are
medians over the records, as the server's own clock gives them; records a minute are by the wall clock.
Compare lines within a table, not between machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extractors.prompting import Prompter, load_texts
from extractors.qwen.grammar import compact_grammar
from extractors.qwen.local_server import LocalServer, Tuning, available_cores
from extractors.qwen.weights import ensure

SCHEMA = {
    "type": "object",
    "properties": {
        "company": {"type": ["string", "null"], "description": "The business that issued the receipt, as written"},
        "date": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "description": "Day of purchase"},
        "address": {"type": ["string", "null"], "description": "The business's full address, on one line"},
        "total": {"type": ["number", "null"], "description": "The amount to pay, with tax, after rounding"},
    },
    "required": ["company", "date", "address", "total"],
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    model: str
    tuning: Tuning
    slots: int = 1
    busy: bool = False


def lines(models: list[str]) -> Iterator[Line]:
    """Not the whole product: one thing varied at a time."""
    base = Tuning(threads=available_cores())
    for tuning in (
        replace(base, spin=None, poll=50),
        replace(base, spin=None),
        replace(base, spin=0),
        base,
        replace(base, spin=None, threads=1),
        replace(base, threads=1),
    ):
        for busy in (False, True):
            yield Line(models[0], tuning, busy=busy)
    for model in models:
        for slots in (1, 2, 4):
            yield Line(model, base, slots=slots)
        for slots in (1, 2):
            yield Line(model, replace(base, speculate=False), slots=slots)
        yield Line(model, replace(base, quantized_cache=True), slots=2)
        yield Line(model, base, slots=2, busy=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--text", default="text")
    parser.add_argument("--count", type=int, default=6, help="records a line; half of it on the busy machine")
    parser.add_argument("--model", action="append", help="default: local-0.5b and local-1.5b")
    options = parser.parse_args()
    with options.records.open(encoding="utf-8") as file:
        texts = [text for text in (json.loads(line)[options.text] for line in file) if 400 < len(text) < 1200]
    print(f"{platform.machine()}, {available_cores()} cores; texts from {options.records.name}, column {options.text}")
    print("prompt, decode: tokens/s (median); s/rec: seconds of one record (median); rec/min by the wall clock\n")
    header = f"{'model':<11}{'slots':>5}{'threads':>8}{'spin':>8}{'poll':>5}{'spec':>5}{'kv':>5}{'load':>6}"
    print(f"{header}{'prompt':>8}{'decode':>8}{'s/rec':>8}{'rec/min':>8}", flush=True)
    for line in lines(options.model or ["local-0.5b", "local-1.5b"]):
        result = measure(line, texts, count=options.count // 2 if line.busy else options.count)
        t = line.tuning
        print(
            f"{line.model:<11}{line.slots:>5}{t.threads or 0:>8}{'default' if t.spin is None else t.spin:>8}{t.poll:>5}"
            f"{'on' if t.speculate else 'off':>5}{'q8' if t.quantized_cache else 'f16':>5}"
            f"{'busy' if line.busy else 'idle':>6}{result}",
            flush=True,
        )


def measure(line: Line, texts: list[str], *, count: int) -> str:
    """Start a server, warm every slot's prefix up, and time ``count`` records."""
    prompter = Prompter(load_texts(), SCHEMA)
    shape = {"grammar": compact_grammar(SCHEMA), "cache_prompt": True}

    def ask(url: str, text: str, code: str) -> tuple[float, dict[str, Any]]:
        messages = [{"role": m.role, "content": m.content} for m in prompter.extract(text, code=code)]
        body = {"messages": messages, "temperature": 0, "max_tokens": 400, **shape}
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        started = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as reply:
            return time.perf_counter() - started, json.load(reply)["timings"]

    server = LocalServer(ensure(line.model), slots=line.slots, context_per_slot=4096, tuning=line.tuning)
    with server, ThreadPoolExecutor(line.slots) as pool:
        url = server.base_url
        list(pool.map(lambda n: ask(url, "A short receipt", f"warm{n}"), range(line.slots)))
        with hogs(available_cores() if line.busy else 0):
            started = time.perf_counter()
            replies = list(pool.map(lambda n: ask(url, texts[n], f"record{n}"), range(count)))
            wall = time.perf_counter() - started
    prompt = statistics.median(timings["prompt_per_second"] for _, timings in replies)
    decode = statistics.median(timings["predicted_per_second"] for _, timings in replies)
    seconds = statistics.median(seconds for seconds, _ in replies)
    return f"{prompt:>8.0f}{decode:>8.1f}{seconds:>8.1f}{60 * count / wall:>8.1f}"


@contextmanager
def hogs(number: int) -> Iterator[None]:
    """``number`` processes that do nothing but use a core."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
