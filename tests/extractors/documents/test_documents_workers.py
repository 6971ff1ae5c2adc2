"""The processes that read documents: order, time-outs, crashes."""

from __future__ import annotations

import base64
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import orjson
import psutil
import pytest

from extractors.documents import Converted, DocumentLimits, DocumentWorkers
from tests.fakes import hostile

LIMITS = DocumentLimits()


def texts(folder: Path, count: int) -> list[str]:
    paths = []
    for number in range(count):
        path = folder / f"{number:02}.md"
        path.write_text(f"document {number}")
        paths.append(str(path))
    return paths


def readers() -> set[psutil.Process]:
    """The reading processes of this one."""
    return {one for one in psutil.Process().children() if "extractors.documents.worker" in one.cmdline()}


def test_documents_come_back_in_their_order(tmp_path: Path) -> None:
    paths = texts(tmp_path, 20)
    (tmp_path / "07.md").write_bytes(b"\x00")
    with DocumentWorkers(2) as workers:
        found = list(workers.converted(paths, LIMITS))
    assert [path for path, _ in found] == paths
    assert [made.text if isinstance(made, Converted) else "?" for _, made in found] == [
        "?" if number == 7 else f"document {number}" for number in range(20)
    ]


def test_a_document_that_takes_too_long_is_given_up_and_the_next_is_read(tmp_path: Path) -> None:
    slow = tmp_path / "slow.html"
    slow.write_bytes(b"<html><body>" + b"<div>" * 300_000 + b"end")
    [quick] = texts(tmp_path, 1)
    with DocumentWorkers(1) as workers:
        workers.convert(quick, LIMITS)
        begun = time.monotonic()
        assert (
            workers.convert(str(slow), DocumentLimits(seconds=0.3))
            == "took longer than 0.3 s to read (document_timeout)"
        )
        assert time.monotonic() - begun < 3
        assert isinstance(workers.convert(quick, LIMITS), Converted)


def test_a_reader_that_is_killed_costs_one_document(tmp_path: Path) -> None:
    paths = texts(tmp_path, 2)
    slow = tmp_path / "slow.html"
    slow.write_bytes(b"<html><body>" + b"<div>" * 300_000 + b"end")
    before = readers()
    with DocumentWorkers(1) as workers:
        workers.convert(paths[0], LIMITS)
        [reader] = readers() - before
        waiting = workers._threads.submit(workers.convert, str(slow), LIMITS)
        time.sleep(0.2)
        os.kill(reader.pid, signal.SIGKILL)
        told = waiting.result()
        assert isinstance(told, str)
        assert told.startswith("made its reader end (signal 9)")
        assert isinstance(workers.convert(paths[1], LIMITS), Converted)


def test_a_document_that_needs_too_much_memory_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "big.md"
    path.write_bytes(b"kettle " * 12_000_000)
    with DocumentWorkers(1) as workers:
        told = workers.convert(str(path), DocumentLimits(characters=10**9, memory_bytes=200_000_000))
    assert isinstance(told, str)
    assert "memory" in told


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timer there")
def test_a_reader_whose_asker_was_killed_ends_by_itself(tmp_path: Path) -> None:
    slow = tmp_path / "slow.html"
    slow.write_bytes(b"<html><body>" + b"<div>" * 1_000_000 + b"end")
    question = orjson.dumps(
        {
            "do": "convert",
            "path": base64.b64encode(os.fsencode(slow)).decode(),
            "limits": DocumentLimits(seconds=-1.5).as_dict(),
        }
    )
    with subprocess.Popen([sys.executable, "-m", "extractors.documents.worker"], stdin=-1, stdout=-1) as reader:
        _, _ = reader.communicate(struct.pack(">I", len(question)) + question, timeout=60)
    assert reader.returncode == -signal.SIGALRM


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    before = readers()
    with DocumentWorkers(2) as workers:
        list(workers.converted(texts(tmp_path, 4), LIMITS))
        assert len(readers() - before) == 2
    assert readers() == before


@pytest.mark.parametrize("name", ["page.md", "s\udcff\udcfeite.md"])
def test_a_file_s_name_need_not_be_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("A kettle.")
    with DocumentWorkers(1) as workers:
        made = workers.convert(str(path), LIMITS)
    assert isinstance(made, Converted)
    assert made.text == "A kettle."


def test_hostile_documents_leave_the_reader_as_it_was(tmp_path: Path) -> None:
    good = tmp_path / "good.pdf"
    good.write_bytes(hostile.pdf("A kettle."))
    with DocumentWorkers(1) as workers:
        for _, path in hostile.write(tmp_path, 12, seed=3):
            workers.convert(str(path), LIMITS)
        made = workers.convert(str(good), LIMITS)
    assert isinstance(made, Converted)
    assert made.text == "A kettle.\f"
