"""Ctrl-C, and errors of who hands over the chunks, while calls are in flight."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings
from extractors.engine import ChunkDone, Engine
from extractors.errors import OutputError
from extractors.pipeline import run
from extractors.store import catalog
from extractors.store.journal import Journal
from extractors.store.plan import Chunk
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Reply

QUARRY = Path(sys.executable).with_name("quarry")


def test_who_waits_for_a_chunk_is_not_left_waiting_when_the_run_is_broken_off(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(20))
    waiting: list[concurrent.futures.Future[ChunkDone]] = []

    def broken_off(engine: Engine, chunks: Iterator[Chunk], window: int) -> Iterator[ChunkDone]:
        waiting.extend(engine.submit(chunk) for chunk in chunks)
        while qwen.count < 12:
            time.sleep(0.01)
        raise KeyboardInterrupt
        yield

    def slow_after_ten(body: dict[str, object]) -> Reply:
        return Reply(thing_answer(body), delay=0.0 if qwen.count <= 10 else 60.0)

    with FakeQwen(slow_after_ten) as qwen:
        with pytest.raises(KeyboardInterrupt):
            run(job_for(source, tmp_path / "out", qwen, concurrency=4), settings=Settings(), conduct=broken_off)
        done = concurrent.futures.wait(waiting, timeout=10).done
        assert len(done) == 2
        kept = sum(one.result().commit.rows for one in done if one.result().commit)  # type: ignore[union-attr]
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
        assert qwen.count == 20 - kept - report.replayed
    assert kept > 0
    assert catalog.current_rows(tmp_path / "out").num_rows == 20


def test_a_journal_that_cannot_be_written_ends_the_run_and_fails_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(20))
    kept, append = 0, Journal.append

    def full_after_seven(self: Journal, request: str, entry: Mapping[str, Any]) -> None:
        nonlocal kept
        if kept == 7:
            raise OutputError("no space left on device")
        kept += 1
        append(self, request, entry)

    with FakeQwen(thing_answer) as qwen:
        monkeypatch.setattr(Journal, "append", full_after_seven)
        with pytest.raises(OutputError, match="no space left"):
            run_things(source, tmp_path / "out", qwen, concurrency=2)
        lost = qwen.count - kept
        monkeypatch.setattr(Journal, "append", append)
        report = run_things(source, tmp_path / "out", qwen, concurrency=2)
        assert lost <= 3, "the one, and those in flight"
        assert qwen.count == 20 + lost
    assert (report.failures, catalog.current_rows(tmp_path / "out").num_rows) == (0, 20)


@pytest.mark.slow
def test_ctrl_c_in_a_flow_run_finishes_what_is_in_flight_and_ends_with_130(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(300))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "QWEN_"))}
    told = tmp_path / "told"
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.3)) as qwen, told.open("w") as stdout:
        process = subprocess.Popen(
            [str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--id", "id", "--out",
             str(tmp_path / "out"), "--model", "qwen-plus", "--base-url", qwen.base_url, "--concurrency", "4",
             "--chunk-size", "20", "--engine", "prefect", "--json"],
            stdout=stdout, stderr=subprocess.DEVNULL,
            env={**clean, "QUARRY_HOME": str(tmp_path / "home")}, start_new_session=True,
        )  # fmt: skip
        try:
            began = time.monotonic()
            while qwen.count < 8 and time.monotonic() - began < 60:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        asked = qwen.count
    assert asked < 40
    assert '"stopped":"interrupted"' in told.read_text()
    assert catalog.current_rows(tmp_path / "out").num_rows == asked
