"""Tuning from a golden set to a file that the embedded server answers with, and killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings as Environment
from extractors.errors import JobError, ModelMissing
from extractors.qwen.adapters import adapter_at, instructions_digest
from extractors.qwen.local import EmbeddedModel
from extractors.qwen.vocabulary import read_head
from extractors.qwen.weights import sha256_of
from extractors.tuning.settings import Settings, Step, Watcher
from extractors.tuning.tune import tune
from schemas.job import ExtractionJob
from tests.fakes.tiny_qwen2 import write_tiny_qwen2

SCHEMA = "colour: str | None, size: int | None"
COLOURS = ("red", "blue", "green", "black", "white", "grey")
SHORT = Settings(epochs=4, rank=4, learning_rate=3e-2)
NO_NETWORK = Environment()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_tiny_qwen2(tmp_path / "tiny.gguf")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.jsonl"
    rows = [
        {
            "text": f"item {number}, {COLOURS[number % 6]}, size {number}",
            "expected": {"colour": COLOURS[number % 6], "size": number},
        }
        for number in range(30)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def job(golden: Path, weights: Path, **more: Any) -> ExtractionJob:
    options: Mapping[str, Any] = {
        "source": str(golden),
        "schema": SCHEMA,
        "out": str(golden.parent / "out"),
        "model": str(weights),
        **more,
    }
    return ExtractionJob.model_validate(options)


class Told(Watcher):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def stepped(self, step: Step) -> None:
        self.steps.append(step)


def test_it_learns_and_says_what_it_is(golden: Path, weights: Path, tmp_path: Path) -> None:
    to, told = tmp_path / "tuned.gguf", Told()
    found = tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK, watch=told)
    assert found.loss_after < 0.5 * found.loss_before
    assert (found.learned_from + found.held_back, found.records, found.too_long) == (30, 30, 0)
    assert [step.number for step in told.steps] == list(range(1, found.steps + 1))
    assert told.steps[-1].best == pytest.approx(found.loss_after)
    adapter = adapter_at(str(to))
    assert adapter is not None
    assert (adapter.base, adapter.base_sha256) == (str(weights), sha256_of(weights))
    assert adapter.omit_nulls and adapter.text_order
    head = read_head(to, ("quarry.epochs", "quarry.loss_after", "quarry.records", "adapter.lora.alpha"))
    assert head["quarry.epochs"] == 4 and head["quarry.records"] == 30 and head["adapter.lora.alpha"] == 8
    assert head["quarry.loss_after"] == pytest.approx(found.loss_after)
    left = [path.name for path in tmp_path.iterdir() if "tuned" in path.name and path != to]
    assert left == [".tuned.gguf.lock"]


def test_what_is_tuned_is_served_under_its_own_name(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK)
    model = EmbeddedModel(str(to), slots=1)
    assert (model.name, model.weights) == (str(to), str(weights))
    assert model.sha256 not in (sha256_of(to), sha256_of(weights))
    with model.serve() as address:
        assert address.endswith("/v1")
    write_tiny_qwen2(weights, seed=7)
    with pytest.raises(ModelMissing, match=r"was tuned from .* with SHA-256"), EmbeddedModel(str(to)).serve():
        pass


def test_a_killed_run_goes_on_and_ends_the_same(golden: Path, weights: Path, tmp_path: Path) -> None:
    """The child is killed after its first steps; what it does not ask again shows in where the next one begins."""
    whole, to = tmp_path / "whole.gguf", tmp_path / "killed.gguf"
    settings = Settings(epochs=60, rank=4, learning_rate=1e-3)
    tune(golden, job(golden, weights), whole, settings=settings, environment=NO_NETWORK)
    code = "\n".join(
        (
            "import sys",
            "from extractors.tuning import training",
            "training._SAVE_SECONDS = 0.0",
            "from flows.cli import main",
            "main()",
        )
    )
    command = [sys.executable, "-c", code, "tune", str(golden), "--schema", SCHEMA, "--model", str(weights)]
    command += ["--to", str(to), "--epochs", "60", "--rank", "4", "--learning-rate", "1e-3", "--json"]
    part = to.with_name(f"{to.name}.part")
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    ends = time.monotonic() + 120
    while not part.exists():
        assert killed.poll() is None and time.monotonic() < ends, killed.communicate()[1]
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert part.exists() and not to.exists()
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    found = json.loads(done.stdout)
    assert 0 < found["resumed_at"] < found["steps"]
    keys = ("quarry.loss_before", "quarry.loss_after", "quarry.system_sha256")
    assert read_head(to, keys) == read_head(whole, keys)
    assert to.read_bytes()[4096:] == whole.read_bytes()[4096:]
    assert not part.exists()


def test_another_training_does_not_go_on_from_what_is_left(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    part = to.with_name(f"{to.name}.part")
    part.write_bytes(b"not what was left")
    assert tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK).resumed_at == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "qwen-plus", "region": "intl"}, "only embedded models can be tuned"),
        ({"image": "photo"}, "cannot see"),
        ({"instructions": "x", "tools": ("math:sqrt",)}, "leave --tools out"),
    ],
)
def test_what_cannot_be_tuned_is_said_first(
    golden: Path, weights: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        tune(golden, job(golden, weights, **more), tmp_path / "tuned.gguf", environment=NO_NETWORK)


def test_too_few_records_are_refused(golden: Path, weights: Path, tmp_path: Path) -> None:
    golden.write_text("\n".join(golden.read_text().split("\n")[:12]))
    with pytest.raises(JobError, match="needs 16 labelled records or more, and there are 12"):
        tune(golden, job(golden, weights), tmp_path / "tuned.gguf", environment=NO_NETWORK)
    with pytest.raises(JobError, match=r"ends in \.gguf"):
        tune(golden, job(golden, weights), tmp_path / "tuned.bin", environment=NO_NETWORK)


def test_a_tuned_model_is_not_tuned_again(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK)
    with pytest.raises(JobError, match="is tuned already"):
        tune(golden, job(golden, to), tmp_path / "again.gguf", environment=NO_NETWORK)
    assert len(instructions_digest("x")) == 64
