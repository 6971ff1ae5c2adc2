"""``kill -9`` anywhere in the batch lane: the same table, and no request submitted twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from extractors.store.catalog import current_rows
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import record_of, thing_answer
from tests.fakes.qwen import FakeQwen

QUARRY = """
import sys
from flows.cli import main
main()
"""


def answer(body: dict[str, Any]) -> str:
    """Every fifth record needs a correction, so that kills fall into more than one round."""
    if int(record_of(body)[10:17]) % 5 == 0 and "Your last answer" not in str(body):
        return thing_answer(body).replace('"price":', '"price":"?","was":')
    return thing_answer(body)


def killed_run(source: Path, out: Path, url: str, after: float) -> bool:
    """Start a run and kill it after ``after`` seconds; True when it had ended by itself before."""
    command = [
        sys.executable, "-c", QUARRY, "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--out", str(out),
        "--id", "id", "--model", "qwen-plus", "--base-url", url, "--chunk-size", "10", "--lane", "batch",
        "--batch-poll", "0.1", "--batch-requests", "40", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "DASHSCOPE_API_KEY": "", "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        assert process.wait(after) == 0, "the run failed by itself"
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def kill_until_done(tmp_path: Path, *, records: int, kills: int, seed: int) -> None:
    """Kill runs at random times until ``kills`` kills were made, over as many outputs as that takes."""
    chance = random.Random(seed)
    source = write_things(tmp_path / "things.jsonl", range(records))
    with FakeQwen(answer, keep=False) as qwen:
        run_things(source, tmp_path / "calm", qwen)
        calm = table(tmp_path / "calm")
        clock = time.perf_counter()
        assert killed_run(source, tmp_path / "timing", qwen.base_url, 300)
        whole = time.perf_counter() - clock
        made = number = 0
        while made < kills:
            number += 1
            out = tmp_path / f"out{number}"
            qwen.batches.run.clear()
            qwen.batches.asked.clear()
            while True:
                # Much of a run's time is Python starting: kills aim at the part after it.
                moment = whole * chance.uniform(0.3, 1.0) if made < kills else 300
                if killed_run(source, out, qwen.base_url, moment):
                    break
                made += 1
            assert max(qwen.batches.asked.values()) == 1, f"a request was submitted twice (seed {seed}, kill {made})"
            assert len(qwen.batches.asked) == records + len(range(0, records, 5))
            assert table(out) == calm, f"another table after {made} kills (seed {seed})"


def table(out: Path) -> list[dict[str, Any]]:
    """The current rows without what tells runs and lanes apart."""
    rows = current_rows(out).drop_columns(["run_id", "committed_at", "_meta"])
    return sorted(rows.to_pylist(), key=lambda row: row["record_id"])


@pytest.mark.timeout(300)
def test_eight_kills(tmp_path: Path) -> None:
    kill_until_done(tmp_path, records=100, kills=8, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_kills_of_two_thousand_records(tmp_path: Path) -> None:
    kill_until_done(tmp_path, records=2_000, kills=100, seed=2)
