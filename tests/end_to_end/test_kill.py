"""``kill -9`` at random points: the table is that of an undisturbed run, and only calls in flight are repeated."""

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
from tests.fakes.qwen import FakeQwen, Reply

RECORDS = 60
CONCURRENCY = 6
QUARRY = Path(sys.executable).with_name("quarry")


def command(source: Path, out: Path, url: str) -> list[str]:
    return [
        str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--out", str(out), "--id", "id",
        "--model", "qwen-plus", "--base-url", url, "--chunk-size", "10", "--concurrency", str(CONCURRENCY), "--json",
    ]  # fmt: skip


def answer(body: dict[str, Any]) -> Reply:
    """Every fifth record needs a correction, so that kills also fall between two calls of a record."""
    text = record_of(body)
    if (
        "thing-00000" in text
        and int(text[text.index("thing-") + 6 :][:7]) % 5 == 0
        and "Your last answer" not in str(body)
    ):
        return Reply(thing_answer(body).replace('"price":', '"price":"?","was":'), delay=0.02)
    return Reply(thing_answer(body), delay=0.02)


def killed_run(source: Path, out: Path, url: str, after: float) -> bool:
    """Start a run and kill it after ``after`` seconds; True when it had ended by itself before."""
    environment = {**os.environ, "DASHSCOPE_API_KEY": ""}
    process = subprocess.Popen(
        command(source, out, url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=Path.cwd()
    )
    try:
        assert process.wait(after) == 0, "the run failed by itself"
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def kill_until_done(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill runs at random times until ``kills`` kills were made, over as many outputs as that takes."""
    chance = random.Random(seed)
    source = write_things(tmp_path / "things.jsonl", range(RECORDS))
    with FakeQwen(answer) as qwen:
        run_things(source, tmp_path / "calm", qwen, concurrency=CONCURRENCY)
        calm_calls, undisturbed = qwen.count, sorted(current_rows(tmp_path / "calm").column("name").to_pylist())
        calm = table(tmp_path / "calm")
        clock = time.perf_counter()
        killed_run(source, tmp_path / "timing", qwen.base_url, 60)
        whole = time.perf_counter() - clock
        made = number = 0
        while made < kills:
            number += 1
            out = tmp_path / f"out{number}"
            qwen.forget()
            here = 0
            while True:
                # Most of a run's time is Python starting: kills aim at the part after it.
                moment = whole * chance.uniform(0.45, 1.0) if made < kills else 60
                if killed_run(source, out, qwen.base_url, moment):
                    break
                here += 1
                made += 1
            repeated = qwen.count - calm_calls
            assert repeated <= here * CONCURRENCY, f"{repeated} calls repeated after {here} kills (seed {seed})"
            assert table(out) == calm, f"another table after {here} kills (seed {seed})"
            assert sorted(current_rows(out).column("name").to_pylist()) == undisturbed
            assert not list(out.glob("thing/*/journal/*")), "a finished run leaves no journal"


def table(out: Path) -> list[dict[str, Any]]:
    """The current rows without what tells runs apart."""
    rows = current_rows(out).drop_columns(["run_id", "committed_at"])
    return sorted(rows.to_pylist(), key=lambda row: row["record_id"])


@pytest.mark.timeout(420)
def test_thirty_kills(tmp_path: Path) -> None:
    kill_until_done(tmp_path, kills=30, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(2, 7))
def test_two_hundred_kills(tmp_path: Path, seed: int) -> None:
    kill_until_done(tmp_path, kills=40, seed=seed)
