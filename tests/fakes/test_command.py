"""The simulator as a process: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "The kettle costs 12.50 euros. Give JSON."}]
SCHEMA = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}


@contextmanager
def simulator(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and what it said before it waits."""
    command = [sys.executable, "-m", "tests.fakes.qwen", "--answer", "from-schema", *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield process, said
        finally:
            process.kill()


def compat(said: str) -> str:
    found = re.search(r"^compat +(\S+)$", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def test_it_says_where_it_is_and_how_to_point_quarry_at_it(tmp_path: Path) -> None:
    with simulator("--rules", "documented", "--cache") as (process, said):
        told = re.search(r"^quarry (run .*) \\\n +(.*) --out \S+$", said, re.MULTILINE)
        assert told is not None, said
        words = f"{told[1]} {told[2]}".split()
        quarry = Path(sys.executable).parent / "quarry"
        got = subprocess.run(
            [quarry, *words, "--out", str(tmp_path), "--max-failure-rate", "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "DASHSCOPE_API_KEY": ""},
        )
        assert got.returncode == 0, got.stderr
        assert re.search(r"13 records = 1\d rows", got.stderr + got.stdout), got.stderr
        process.send_signal(signal.SIGINT)
        summary = process.communicate(timeout=20)[0]
    assert re.search(r"^\d+ requests, .* busiest second$", summary, re.MULTILINE), summary
    assert process.returncode == 0


def test_flags_set_faults_limits_and_a_key() -> None:
    body = {"model": "qwen3.7-plus", "messages": MESSAGES, "enable_thinking": False}
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    with (
        simulator("--api-key", "k", "--rpm", "60", "--seed", "3") as (_, said),
        httpx.Client(headers={"Authorization": "Bearer k"}) as client,
    ):
        url = f"{compat(said)}/chat/completions"
        got = [client.post(url, json=body) for _ in range(2)]
        locked = client.post(url, json=body, headers={"Authorization": "Bearer x"})
    assert "DASHSCOPE_API_KEY=k quarry run" in said
    assert [one.status_code for one in got] == [200, 429]
    assert got[0].json()["choices"][0]["message"]["content"] == '{"price":12.5}'
    assert locked.status_code == 401


def test_the_fault_mix_is_drawn_from_the_seed() -> None:
    def draw() -> list[int]:
        with simulator("--faults", "500=0.5", "--seed", "9") as (_, said), httpx.Client() as client:
            url = f"{compat(said)}/chat/completions"
            bodies = [{"model": "m", "messages": [{"role": "user", "content": str(n)}]} for n in range(12)]
            return [client.post(url, json=body).status_code for body in bodies]

    first = draw()
    assert set(first) == {200, 500}
    assert draw() == first


def test_help_tells_the_flags_and_the_faults() -> None:
    got = subprocess.run(
        [sys.executable, "-m", "tests.fakes.qwen", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for word in ("--latency", "--faults", "--rpm", "429-retry-after", "error-in-stream"):
        assert word in got.stdout


@pytest.mark.parametrize("mix", ["earthquake=1", "429=lots"])
def test_a_wrong_mix_is_told_at_once(mix: str) -> None:
    command = [sys.executable, "-m", "tests.fakes.qwen", "--answer", "from-schema", "--faults", mix]
    got = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 2
    assert mix.split("=")[0 if "earth" in mix else 1] in got.stderr
