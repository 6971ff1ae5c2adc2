"""What the embedded server's settings are worth: tokens a second and records a minute, on this machine.

    python benchmarks/local_server.py RECORDS.jsonl --text COLUMN > benchmarks/results/local_server.txt

``RECORDS.jsonl`` holds texts of some hundreds of tokens, such as receipts. The servers of a group all stand ready and
take turns, the same records each, so that whatever else the machine does falls on all of them alike; "ratio" is
records a minute over those of the group's first line, as the median of the rounds. "busy": with one process for each
core that does nothing but use it. Token rates are medians over the records, by the server's own clock.
Compare lines within a group, not between groups or machines.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
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


PROMPTER = Prompter(load_texts(), SCHEMA)
SHAPE = {"grammar": compact_grammar(SCHEMA), "cache_prompt": True}


@dataclass(frozen=True, slots=True)
class Line:
    """One server, and what its rounds gave: (records a minute, [(seconds, timings of a record)])."""

    tuning: Tuning
    slots: int = 1
    rounds: list[tuple[float, list[tuple[float, dict[str, Any]]]]] = field(default_factory=list)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--text", default="text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="only this one")
    options = parser.parse_args()
    with options.records.open(encoding="utf-8") as file:
        texts = [text for text in (json.loads(line)[options.text] for line in file) if 400 < len(text) < 1200]
    print(f"{platform.machine()}, {available_cores()} cores; texts from {options.records.name}, column {options.text}")
    base = Tuning(threads=available_cores(), speculate=True)
    waiting = [
        base,
        replace(base, spin=None),
        replace(base, spin=None, poll=50),
        replace(base, spin=0),
        replace(base, threads=1),
    ]
    slots = [(1, base), (2, base), (4, base), (1, replace(base, speculate=False)), (2, replace(base, speculate=False))]
    groups = (
        ("local-0.5b", [Line(tuning) for tuning in waiting], 2, False),
        ("local-0.5b", [Line(tuning) for tuning in waiting], 1, True),
        ("local-0.5b", [Line(tuning, n) for n, tuning in slots], 4, False),
        ("local-1.5b", [Line(tuning, n) for n, tuning in slots if n < 4], 2, False),
        ("local-1.5b", [Line(base), Line(replace(base, quantized_cache=True))], 2, False),
        ("local-1.5b", [Line(tuning) for tuning in waiting[:2]], 1, True),
    )
    for model, lines, each, busy in groups:
        if options.model in (None, model):
            group(model, lines, texts, rounds=options.rounds, each=each, busy=busy)


def group(model: str, lines: list[Line], texts: list[str], *, rounds: int, each: int, busy: bool = False) -> None:
    """Let the servers of some lines take turns, ``each`` records a turn, and print what came of it."""
    print(f"\n{model}, {'busy' if busy else 'idle'}: {rounds} rounds of {each} records")
    print(f"{'slots':>5}{'threads':>8}{'spin':>8}{'poll':>5}{'spec':>5}{'kv':>5}", end="")
    print(f"{'prompt':>8}{'decode':>8}{'s/rec':>8}{'rec/min':>8}{'ratio':>7}", flush=True)
    path = ensure(model)
    with ExitStack() as stack:
        turns: list[tuple[Line, str, ThreadPoolExecutor]] = []
        for line in lines:
            server = LocalServer(path, slots=line.slots, context_per_slot=4096, tuning=line.tuning)
            url = stack.enter_context(server).base_url
            pool = stack.enter_context(ThreadPoolExecutor(line.slots))
            list(pool.map(partial(ask, url, "A short receipt"), [f"warm{n}" for n in range(line.slots)]))
            turns.append((line, url, pool))
        stack.enter_context(hogs(available_cores() if busy else 0))
        for turn in range(rounds):
            picked = texts[turn * each : (turn + 1) * each]
            for line, url, pool in turns:
                started = time.perf_counter()
                replies = list(pool.map(partial(ask, url), picked, [f"{turn}-{n}" for n in range(each)]))
                line.rounds.append((60 * each / (time.perf_counter() - started), replies))
    for line in lines:
        show(line, lines[0])


def ask(url: str, text: str, code: str) -> tuple[float, dict[str, Any]]:
    """One record: its seconds, and the server's timings."""
    messages = [{"role": message.role, "content": message.content} for message in PROMPTER.extract(text, code=code)]
    body = {"messages": messages, "temperature": 0, "max_tokens": 400, **SHAPE}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as reply:
        return time.perf_counter() - started, json.load(reply)["timings"]


def show(line: Line, first: Line) -> None:
    """Print one line of the table."""
    replies = [reply for _, many in line.rounds for reply in many]
    prompt = statistics.median(timings["prompt_per_second"] for _, timings in replies)
    decode = statistics.median(timings["predicted_per_second"] for _, timings in replies)
    seconds = statistics.median(seconds for seconds, _ in replies)
    rate = statistics.median(rate for rate, _ in line.rounds)
    ratio = statistics.median(mine / its for (mine, _), (its, _) in zip(line.rounds, first.rounds, strict=True))
    spin = "default" if line.tuning.spin is None else line.tuning.spin
    print(
        f"{line.slots:>5}{line.tuning.threads or 0:>8}{spin:>8}{line.tuning.poll:>5}"
        f"{'on' if line.tuning.speculate else 'off':>5}{'q8' if line.tuning.quantized_cache else 'f16':>5}"
        f"{prompt:>8.0f}{decode:>8.1f}{seconds:>8.1f}{rate:>8.1f}{ratio:>7.2f}",
        flush=True,
    )


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
