"""``kill -9`` between any two file operations: what was committed counts, what was not does not, the next run ends
with the table of an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from extractors.store.catalog import build_catalog, current_rows, open_failures, query
from extractors.store.journal import entry_result, result_entry
from tests.extractors.store.builders import answer_of, call, failure, open_store, put, row

CHILD = """
import os, signal, sys
from pathlib import Path
from extractors.store import files
from tests.extractors.store.test_crashes import work

left = int(sys.argv[2])

def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    def wrapped(*args, **kwargs):
        tick()
        found = function(*args, **kwargs)
        tick()
        return found
    return wrapped

for name in ("write_whole", "rename", "remove", "remove_stale", "make_folder", "remove_folder", "sync_folder", "set_aside"):
    setattr(files, name, counted(getattr(files, name)))
for name in ("append", "close", "_cut"):
    setattr(files.Log, name, counted(getattr(files.Log, name)))
open_ = Path.open
def halfway(self, *args, **kwargs):
    file = open_(self, *args, **kwargs)
    if ".tmp-" in self.name:
        write = file.write
        class Slow:
            def __enter__(self): return self
            def __exit__(self, *exc): file.close()
            def write(self, data):
                write(data[: len(data) // 2]); file.flush(); tick()
                write(data[len(data) // 2 :]); file.flush(); tick()
            def flush(self): file.flush()
            def fileno(self): return file.fileno()
        return Slow()
    return file
Path.open = halfway
work(Path(sys.argv[1]))
print(-left)
"""
CHUNKS = {"one": [row(1), failure(2)], "two": [row(3), row(4, merged=True)]}


def work(out: Path) -> int:
    """A run in small: replays, asks what is not known, journals, commits. Gives how many it asked."""
    asked = 0
    with open_store(out) as store:
        done = {commit.chunk for commit in store.commits()}
        replay = store.replay()
        for chunk, items in CHUNKS.items():
            if chunk in done:
                continue
            journal = store.journal(chunk)
            calls = []
            for item in items:
                one = call(int(item.record.record_id[1:]))
                if replay.get(one.request) is None:
                    asked += 1
                    journal.append(one.request, result_entry(answer_of(one)))
                else:
                    assert entry_result(replay.get(one.request) or {}) == answer_of(one)
                calls.append(one)
            put(store, chunk, items, calls)
            journal.close()
            journal.discard()
        replay.discard()
        store.write_run("run-1", {"run_id": "run-1", "rows": 3})
        build_catalog(out)
    return asked


def table(out: Path) -> tuple[list[dict[str, Any]], ...]:
    drop = ["run_id", "committed_at"]
    found: list[pa.Table] = [current_rows(out), open_failures(out), query(out, "from thing_calls order by record_id")]
    return tuple(one.drop_columns(drop).to_pylist() for one in found)


def run(out: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(out), str(kill_at)], capture_output=True, text=True, cwd=Path.cwd()
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[list[dict[str, Any]], ...], int]:
    """The table of a run that nobody killed, and the number of steps at which it could have been."""
    out = tmp_path_factory.mktemp("calm") / "out"
    done = run(out, 0)
    assert done.returncode == 0, done.stderr
    return table(out), int(done.stdout)


STEPS = 12
"""Kills of a test; each test takes the steps of its number and every ``STRIDE``-th after."""


@pytest.mark.parametrize("part", range(4))
def test_a_kill_at_any_step_costs_at_most_the_call_in_flight(
    tmp_path: Path, undisturbed: tuple[tuple[list[dict[str, Any]], ...], int], part: int
) -> None:
    expected, steps = undisturbed
    assert steps > 100, "the steps are counted"
    stride = max(1, steps // STEPS)
    for kill_at in range(1 + part * stride // 4, steps + 1, stride):
        out = tmp_path / str(kill_at)
        assert run(out, kill_at).returncode == -signal.SIGKILL
        before = {commit.name for commit in out.glob("thing/*/commits/[!.]*")}
        kept = sum(
            len(path.read_bytes().split(b"\n")) - 2 for path in out.glob("thing/*/journal/*") if path.stat().st_size
        )
        asked = work(out)
        committed = sum(len(CHUNKS[name.removesuffix(".json")]) for name in before)
        known = max(kept, 0) + committed
        assert asked <= 4 - min(4, known) or asked == 4 - committed, f"killed at {kill_at}"
        assert table(out) == expected, f"killed at {kill_at}"
        left = [path for path in out.rglob("*") if ".tmp-" in path.name or path.suffix == ".jsonl"]
        assert not left, f"killed at {kill_at}"


def test_a_run_killed_twice_ends_with_the_same_table(
    tmp_path: Path, undisturbed: tuple[tuple[list[dict[str, Any]], ...], int]
) -> None:
    expected, steps = undisturbed
    for first, second in ((steps // 3, steps // 4), (steps // 2, steps // 2), (steps - 40, 60)):
        out = tmp_path / f"{first}"
        assert run(out, first).returncode == -signal.SIGKILL
        assert run(out, second).returncode == -signal.SIGKILL
        work(out)
        assert table(out) == expected
