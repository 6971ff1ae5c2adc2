"""Evaluations that end early or could not be written: what was paid for is kept, and what is wrong is said in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from extractors.errors import Interrupted, JobError, OutputError
from extractors.evaluate.evaluation import evaluate
from extractors.pipeline import Control
from flows.cli.app import app
from schemas.job import ExtractionJob
from tests.extractors.evaluate.test_evaluation import SCHEMA, label, write_golden
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Reply

QUARRY = Path(sys.executable).with_name("quarry")


def options(golden: Path, qwen: FakeQwen) -> list[str]:
    return [str(golden), "--schema", SCHEMA, "--out", str(golden.parent / "out"), "--base-url", qwen.base_url]


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", [["eval"], ["calibrate", "--save", "c.json"]])
def test_ctrl_c_finishes_what_is_in_flight_and_the_same_command_goes_on(command: list[str], tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(60)])
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("QWEN_", "DASHSCOPE_"))}
    clean["PYTHONPATH"] = str(Path(__file__).parents[2])
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.3)) as qwen:
        given = [str(QUARRY), command[0], *options(golden, qwen), *command[1:], "--model", "qwen-plus"]
        process = subprocess.Popen(
            [*given, "--concurrency", "4"], stderr=subprocess.PIPE, text=True, env=clean, cwd=tmp_path
        )
        while qwen.count < 8 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
        asked = qwen.count
        assert asked < 60 and f"stopped: {asked} of 60" in " ".join(said.split())
        assert not (tmp_path / "c.json").exists(), "nothing is fitted on the part that was asked"
        again = subprocess.run(
            [*given, "--concurrency", "50"], capture_output=True, text=True, env=clean, cwd=tmp_path, check=False
        )
        assert (again.returncode, qwen.count) == (0, 60), again.stderr


def test_an_evaluation_that_was_stopped_before_any_answer_is_no_error_of_the_user(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(0)])
    control = Control()
    control.stop()
    with FakeQwen(thing_answer) as qwen:
        job = ExtractionJob.model_validate(
            {"source": str(golden), "schema": SCHEMA, "out": str(tmp_path / "out"), "base_url": qwen.base_url,
             "model": "qwen-plus"}
        )  # fmt: skip
        with pytest.raises(Interrupted, match="The same command goes on"):
            evaluate(golden, job, control=control)
    assert Interrupted.exit_code == 130


@pytest.mark.parametrize("ceiling", [["--max-tokens", "5"], ["--max-cost", "0.0000001"]])
@pytest.mark.parametrize("command", [["eval"], ["calibrate"], ["compare", "--a", "seed=1", "--b", "seed=2"]])
def test_a_ceiling_that_lets_nothing_through_is_named(command: list[str], ceiling: list[str], tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(3)])
    with FakeQwen(thing_answer) as qwen:
        found = invoked(command[0], *options(golden, qwen), *command[1:], *ceiling, "--model", "qwen-plus")
        assert qwen.count == 0
    assert isinstance(found.exception, JobError)
    assert f"{ceiling[0]} {ceiling[1] if ceiling[0] == '--max-tokens' else '1E-7'} is reached" in str(found.exception)
    assert "Raise it" in str(found.exception)


def test_a_calibration_is_saved_into_a_folder_that_was_not_there(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(20)])
    with FakeQwen(thing_answer) as qwen:
        found = invoked(
            "calibrate", *options(golden, qwen), "--model", "qwen-plus", "--save", str(tmp_path / "no/such/c.json")
        )
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "no/such/c.json").read_bytes())["pairs"] > 0


def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(3)])
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    with FakeQwen(thing_answer) as qwen:
        given = [*options(golden, qwen), "--model", "qwen-plus"]
        for save in ("file/c.json", "out"):
            found = invoked("calibrate", *given, "--save", str(tmp_path / save))
            assert isinstance(found.exception, OutputError) and "folder" in str(found.exception)
        (tmp_path / "out" / "evaluations").touch()
        for command in (["eval"], ["compare", "--a", "seed=1", "--b", "seed=2"], ["route", "--final", "qwen-max"]):
            found = invoked(command[0], *given, *command[1:])
            assert isinstance(found.exception, OutputError) and "evaluations is a file" in str(found.exception)
        assert qwen.count == 0
