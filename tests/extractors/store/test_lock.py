"""One writer at a time, and never a lock without an owner."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extractors.errors import OutputBusy
from extractors.store.lock import Lock
from tests.extractors.store.builders import open_store

HOLDER = """
import sys
from pathlib import Path
from extractors.store.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_told_who_holds_the_output_and_what_to_do(tmp_path: Path) -> None:
    with (
        holder(tmp_path) as process,
        pytest.raises(OutputBusy, match=rf"pid {process.pid} on .+ since .+ UTC.*wait for it, stop it, or"),
    ):
        open_store(tmp_path)


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open_store(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith("pid ")


def test_a_refused_writer_leaves_the_holder_named(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        for _ in range(2):
            with pytest.raises(OutputBusy, match=f"pid {process.pid} "):
                Lock(tmp_path).take()


def test_a_lock_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    for _ in range(2):
        lock = Lock(tmp_path)
        lock.take()
        lock.release()
        lock.release()


def test_one_process_does_not_write_twice_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path), pytest.raises(OutputBusy):
        open_store(tmp_path)
