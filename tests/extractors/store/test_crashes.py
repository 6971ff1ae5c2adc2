"""``kill -9`` between any two file operations: what was committed counts, what was not does not, the next run ends
with the table of an undisturbed one."""

from __future__ import annotations

import shutil
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

folder, moments = Path(sys.argv[1]), [int(one) for one in sys.argv[2:]]
left = 0

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

names = ("write_whole", "rename", "remove", "remove_stale", "make_folder", "remove_folder", "sync_folder", "set_aside")
for name in names:
    setattr(files, name, counted(getattr(files, name)))
for name in ("append", "close"):
    setattr(files.Log, name, counted(getattr(files.Log, name)))
plain = Path.open

class Slow:
    # A file that is written in two halves, with time for a kill after each.
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *exc): self.file.close()
    def flush(self): self.file.flush()
    def fileno(self): return self.file.fileno()
    def write(self, data):
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.file.write(half)
            self.file.flush()
            tick()

def slow(self, *args, **kwargs):
    file = plain(self, *args, **kwargs)
    return Slow(file) if ".tmp-" in self.name else file

Path.open = slow
# Each run is a process of its own, to be killed; forking spares it a second of imports.
for moment in moments:
    child = os.fork()
    if not child:
        left = moment
        work(folder / str(moment))
        print(-left, flush=True)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if moment else 0), ended
"""
Undisturbed = tuple[tuple[list[dict[str, Any]], ...], int]
CHUNKS = {"one": [row(1), failure(2)], "two": [row(3), row(4, merged=True)]}


def work(out: Path) -> None:
    """A run in small: replays, asks what is not known, journals, commits, writes the report and the views."""
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
                known = replay.get(one.request)
                if known is None:
                    with out.with_suffix(".asked").open("a") as asked:
                        asked.write(f"{one.record_id}\n")
                    journal.append(one.request, result_entry(answer_of(one)))
                else:
                    assert entry_result(known) == answer_of(one)
                calls.append(one)
            put(store, chunk, items, calls)
            journal.close()
            journal.discard()
        replay.discard()
        store.write_run("run-1", {"run_id": "run-1", "rows": 3})
        build_catalog(out)


def asked(out: Path) -> list[str]:
    """Every question that was put, in any run."""
    return out.with_suffix(".asked").read_text().split()


def table(out: Path) -> tuple[list[dict[str, Any]], ...]:
    drop = ["run_id", "committed_at"]
    found: list[pa.Table] = [current_rows(out), open_failures(out), query(out, "from thing_calls order by record_id")]
    return tuple(one.drop_columns(drop).to_pylist() for one in found)


def killed_runs(folder: Path, moments: list[int]) -> str:
    """Runs into ``folder/<moment>``, each killed at its moment (0: never)."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *map(str, moments)], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The tables of a run that nobody killed, and the number of moments at which it could have been."""
    folder = tmp_path_factory.mktemp("calm")
    moments = int(killed_runs(folder, [0]))
    assert len(asked(folder / "0")) == 4
    return table(folder / "0"), moments


def kill_and_go_on(folder: Path, undisturbed: Undisturbed, *, stride: int) -> None:
    """One killed run for every ``stride``-th moment, and one after it that is left in peace."""
    expected, last = undisturbed
    assert last > 100, "every step of a run has its moment"
    moments = list(range(1, last + 1, stride))
    killed_runs(folder, moments)
    for moment in moments:
        out = folder / str(moment)
        work(out)
        assert len(asked(out)) <= 5, f"killed at {moment}"
        assert table(out) == expected, f"killed at {moment}"
        left = [path for path in out.rglob("*") if ".tmp-" in path.name or path.suffix == ".jsonl"]
        assert not left, f"killed at {moment}"


def test_a_kill_at_any_moment_costs_at_most_the_call_in_flight(tmp_path: Path, undisturbed: Undisturbed) -> None:
    kill_and_go_on(tmp_path, undisturbed, stride=11)


@pytest.mark.slow
def test_a_kill_at_every_single_moment(tmp_path: Path, undisturbed: Undisturbed) -> None:
    kill_and_go_on(tmp_path, undisturbed, stride=1)


def test_runs_killed_twice_end_with_the_same_tables(tmp_path: Path, undisturbed: Undisturbed) -> None:
    expected, last = undisturbed
    moments = [last // 3, last // 2, last - 40]
    killed_runs(tmp_path, moments)
    for first, second in zip(moments, (60, 20, 40), strict=True):
        again = tmp_path / f"{first}-{second}"
        again.mkdir()
        shutil.copytree(tmp_path / str(first), again / str(second))
        killed_runs(again, [second])
        work(again / str(second))
        assert table(again / str(second)) == expected, f"killed at {first} and {second}"
