"""Tuning from a golden set to a file that the embedded server answers with, and killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gguf import GGUFReader

from extractors.endpoint import Settings as Environment
from extractors.endpoint import resolve_endpoint
from extractors.errors import JobError, ModelMissing, OutputBusy
from extractors.evaluate.evaluation import evaluate
from extractors.evaluate.page import evaluation_page
from extractors.evaluate.results import figures
from extractors.extraction import Extraction
from extractors.qwen.adapters import adapter_at
from extractors.qwen.local import EmbeddedModel
from extractors.qwen.local_server import LocalServer
from extractors.qwen.requests import ChatRequest
from extractors.qwen.vocabulary import read_head
from extractors.qwen.weights import sha256_of
from extractors.recipe import compile_recipe
from extractors.tuning.labelled import taught
from extractors.tuning.lessons import lessons_of
from extractors.tuning.settings import Settings, Step, Watcher
from extractors.tuning.tune import Tuned, _recipe, tune
from schemas.job import ExtractionJob
from schemas.loading import load_schema
from schemas.records import Record, content_fingerprint
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
    return write_golden(tmp_path / "golden.jsonl")


def write_golden(path: Path) -> Path:
    rows = [
        {
            "text": f"a {COLOURS[number % 6]} one, size {number}",
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


@dataclass(frozen=True)
class Made:
    """A tuned model that tests share, as none of them changes it."""

    golden: Path
    weights: Path
    to: Path
    found: Tuned
    steps: list[Step]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    golden, weights = write_golden(folder / "golden.jsonl"), write_tiny_qwen2(folder / "tiny.gguf")
    to, told = folder / "tuned.gguf", Told()
    found = tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK, watch=told)
    return Made(golden, weights, to, found, told.steps)


class Told(Watcher):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def stepped(self, step: Step) -> None:
        self.steps.append(step)


def test_it_learns_and_says_what_it_is(made: Made) -> None:
    found = made.found
    assert found.loss_after < 0.5 * found.loss_before
    assert (found.learned_from + found.held_back, found.partly_labelled, found.too_long) == (30, 0, 0)
    assert [step.number for step in made.steps] == list(range(1, found.steps + 1))
    assert made.steps[-1].best == pytest.approx(found.loss_after)
    adapter = adapter_at(str(made.to))
    assert adapter is not None
    assert (adapter.base, adapter.base_sha256) == (str(made.weights), sha256_of(made.weights))
    assert adapter.omit_nulls and adapter.text_order
    texts = [json.loads(line)["text"] for line in made.golden.read_text().split("\n")]
    assert adapter.learned == set(map(content_fingerprint, texts))
    keys = ("quarry.epochs", "quarry.seed", "quarry.loss_after", "quarry.records", "adapter.lora.alpha")
    head = read_head(made.to, keys)
    assert head["quarry.epochs"] == SHORT.epochs and head["quarry.records"] == 30 and head["adapter.lora.alpha"] == 8
    assert head["quarry.seed"] == 0 and head["quarry.loss_after"] == found.loss_after
    assert [path.name for path in made.to.parent.iterdir() if "tuned" in path.name] == [made.to.name]


def test_what_is_there_is_not_replaced(made: Made) -> None:
    before = made.to.read_bytes()
    for to, settings, said in (
        (made.to, SHORT, "is there already, of just this training"),
        (made.to, replace(SHORT, rank=8), "is there already, and is something else"),
        (made.weights, SHORT, "is there already, and is something else"),
    ):
        with pytest.raises(JobError, match=said):
            tune(made.golden, job(made.golden, made.weights), to, settings=settings, environment=NO_NETWORK)
    assert made.to.read_bytes() == before


def test_it_is_served_with_the_adapter_and_under_its_own_name(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK)
    model = EmbeddedModel(str(to), slots=1)
    assert (model.name, model.weights) == (str(to), str(weights))
    assert model.sha256 not in (sha256_of(to), sha256_of(weights))
    untuned = EmbeddedModel(str(weights), slots=1)
    assert first_byte(model) != pytest.approx(first_byte(untuned), abs=0.05)
    moved = tmp_path / "elsewhere" / "tuned.gguf"
    moved.parent.mkdir()
    to.rename(moved)
    weights.rename(moved.parent / weights.name)
    assert EmbeddedModel(str(moved)).weights == str(moved.parent / weights.name)
    with pytest.raises(ModelMissing, match=r"was tuned from .*tiny\.gguf .* which is not here"):
        (moved.parent / weights.name).rename(tmp_path / "gone.gguf")
        EmbeddedModel(str(moved))


def test_other_weights_and_a_file_that_changed_are_refused(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK)
    model = EmbeddedModel(str(to))
    assert model.sha256
    to.write_bytes(to.read_bytes() + b"more")
    with pytest.raises(ModelMissing, match="was written anew since this run began"), model.serve():
        pass
    write_tiny_qwen2(weights, seed=7)
    with pytest.raises(ModelMissing, match=r"was tuned from .* with SHA-256"), EmbeddedModel(str(to)).serve():
        pass


def test_it_is_asked_in_a_job_as_it_was_tuned(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    tune(golden, job(golden, weights, instructions="sizes are whole"), to, settings=SHORT, environment=NO_NETWORK)
    made = job(golden, to, instructions="sizes are whole", final=str(weights), examples=str(golden))
    endpoint = resolve_endpoint(made, NO_NETWORK)
    recipe = compile_recipe(made, load_schema(SCHEMA), endpoint.policy)
    assert recipe.policy.tuned is not None and recipe.shape.text_order
    with pytest.raises(JobError, match="was tuned for other instructions"):
        compile_recipe(job(golden, to), load_schema(SCHEMA), resolve_endpoint(job(golden, to), NO_NETWORK).policy)


def test_the_lessons_are_the_questions_of_a_run(golden: Path, weights: Path, tmp_path: Path) -> None:
    """The tokens of a lesson are those that the server reads when the run asks about the record."""
    to, made = tmp_path / "tuned.gguf", job(golden, weights)
    recipe, _ = _recipe(made, NO_NETWORK)
    records = taught(golden, made, recipe)
    lessons = lessons_of(recipe, records.examples, weights)
    assert not to.exists() and len(lessons.lessons) == 30 and len(lessons.prefix) > 100
    asked = Extraction(recipe, record_of(records.examples[0].text)).next_request()
    assert isinstance(asked, ChatRequest)
    body = {"messages": [{"role": one.role, "content": one.content} for one in asked.messages], "max_tokens": 1}
    with LocalServer(weights, slots=1) as server:
        reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60, trust_env=False).json()
    first = lessons.lessons[0]
    assert reply["usage"]["prompt_tokens"] == len(lessons.prefix) + len(first.question)
    text = bytes(token for token in (*lessons.prefix, *first.question) if token < 256).decode()
    assert records.examples[0].text in text and text.endswith("assistant\n")
    assert bytes(first.answer[:-1]).decode() == '{"colour":"red","size":0}'
    assert first.answer[-1] == 258, "the end of the turn"


def test_labels_that_do_not_say_all_are_left_out(golden: Path, weights: Path) -> None:
    rows = [
        {"text": "red, 7", "expected": {"colour": "red", "size": 7}},
        {"text": "blue", "expected": {"colour": "blue"}},
        {"text": "nothing", "expected": {"colour": "", "size": None}},
        {"text": "x" * 60_000, "expected": {"colour": None, "size": None}},
    ]
    golden.write_text("\n".join(map(json.dumps, rows)))
    made = job(golden, weights)
    recipe, _ = _recipe(made, NO_NETWORK)
    found = taught(golden, made, recipe)
    assert [one.answer for one in found.examples] == ['{"colour":"red","size":7}', "{}"]
    assert (found.partly, found.in_parts) == (1, 1)
    with pytest.raises(JobError, match=r"there are 2 that can be used .1 are labelled in part .*; 1 are so long"):
        tune(golden, made, golden.with_name("tuned.gguf"), environment=NO_NETWORK)


def test_a_killed_run_goes_on_and_ends_the_same(golden: Path, weights: Path, tmp_path: Path) -> None:
    """The child is killed after its first steps; what it does not ask again shows in where the next one begins."""
    whole, to = tmp_path / "whole.gguf", tmp_path / "killed.gguf"
    settings = Settings(epochs=6, rank=4, learning_rate=1e-3)
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
    command += ["--to", str(to), "--epochs", "6", "--rank", "4", "--learning-rate", "1e-3", "--json"]
    part = to.with_name(f"{to.name}.part") / "state.npz"
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
    assert tensors(to) == tensors(whole)
    assert not part.parent.exists()


def test_another_training_does_not_go_on_from_what_is_left(
    golden: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to, part = tmp_path / "tuned.gguf", tmp_path / "tuned.gguf.part" / "state.npz"
    made = job(golden, weights)

    class Stops(Watcher):
        def stepped(self, step: Step) -> None:
            if step.number == 2:
                raise KeyboardInterrupt

    brief = replace(SHORT, epochs=2)
    for settings, resumed_at in ((replace(brief, learning_rate=2e-2), 0), (brief, 2)):
        with pytest.raises(KeyboardInterrupt):
            tune(golden, made, to, settings=brief, environment=NO_NETWORK, watch=Stops())
        assert part.exists() and not to.exists()
        assert tune(golden, made, to, settings=settings, environment=NO_NETWORK).resumed_at == resumed_at
        to.unlink()
    part.parent.mkdir()
    part.write_bytes(b"PK not what was left")
    assert tune(golden, made, to, settings=brief, environment=NO_NETWORK).resumed_at == 0
    assert "cannot be gone on from" in caplog.text


def test_two_at_once_are_one_too_many(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"

    class Second(Watcher):
        def compiling(self) -> None:
            with pytest.raises(OutputBusy, match=r"is in use by another run .* or give another --to"):
                tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK)

    tune(golden, job(golden, weights), to, settings=SHORT, environment=NO_NETWORK, watch=Second())
    assert to.exists()


def test_a_training_that_runs_away_says_so(golden: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / "tuned.gguf"
    with pytest.raises(JobError, match=r"no number any more: the learning rate 1e[+]30 is too high"):
        tune(golden, job(golden, weights), to, settings=replace(SHORT, learning_rate=1e30), environment=NO_NETWORK)
    with pytest.raises(JobError, match="no step made the right answers to the 4 records held back likelier"):
        tune(golden, job(golden, weights), to, settings=replace(SHORT, learning_rate=1e-30), environment=NO_NETWORK)
    assert not to.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "qwen-plus", "region": "intl"}, "only embedded models can be tuned"),
        ({"image": "photo"}, "leave out --image"),
        ({"instructions": "x", "tools": ("math:sqrt",)}, "leave --tool out"),
    ],
)
def test_what_cannot_be_tuned_is_said_first(
    golden: Path, weights: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        tune(golden, job(golden, weights, **more), tmp_path / "tuned.gguf", environment=NO_NETWORK)


def test_too_few_records_are_refused(golden: Path, weights: Path, tmp_path: Path) -> None:
    golden.write_text("\n".join(golden.read_text().split("\n")[:12]))
    with pytest.raises(JobError, match="needs 16 labelled records or more, and there are 12 that can be used"):
        tune(golden, job(golden, weights), tmp_path / "tuned.gguf", environment=NO_NETWORK)
    with pytest.raises(JobError, match=r"ends in \.gguf"):
        tune(golden, job(golden, weights), tmp_path / "tuned.bin", environment=NO_NETWORK)


def test_a_tuned_model_is_not_tuned_again(made: Made, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is tuned already"):
        tune(made.golden, job(made.golden, made.to), tmp_path / "again.gguf", environment=NO_NETWORK)


def test_scores_on_what_it_was_tuned_on_say_so(made: Made, tmp_path: Path) -> None:
    """The tuned model answers by the real server; half of the records that are evaluated were learned from."""
    to = made.to
    lines = made.golden.read_text().split("\n")[:3]
    others = [json.dumps({"text": f"a new one, {colour}", "expected": {"colour": colour}}) for colour in COLOURS[:3]]
    asked = tmp_path / "asked.jsonl"
    for rows, learned in (([*lines, *others], 3), (others, 0)):
        asked.write_text("\n".join(rows))
        asking = job(asked, to, out=str(tmp_path / f"out-{learned}"), max_output_tokens=32, max_attempts=1)
        found = evaluate(asked, asking, settings=NO_NETWORK)
        assert len(found.records) == len(rows) and found.learned == learned
        assert figures(found)["learned"] == learned
        said = "3 of 6 labelled records are among those that"
        assert (found.caution or "").startswith(said) == bool(learned)
        assert (said in evaluation_page(found)) == bool(learned)
    bar = ["eval", str(asked), "--schema", SCHEMA, "--model", str(to), "--out", str(tmp_path / "out-0")]
    bar += ["--max-output-tokens", "32", "--max-attempts", "1", "--fail-under", "f1=0"]
    assert quarry(*bar).returncode == 0
    asked.write_text("\n".join([*lines, *others]))
    refused = quarry(*bar)
    assert refused.returncode == 1 and "nothing can be held to a bar on records" in refused.stderr
    assert said in " ".join(refused.stderr.split())


def test_a_final_behind_it_is_evaluated_as_it_is_asked_there(made: Made, tmp_path: Path) -> None:
    """Without examples it would write nulls alone, and leaves them out behind a tuned draft."""
    others, final, out = tmp_path / "others.jsonl", write_tiny_qwen2(tmp_path / "final.gguf", seed=3), tmp_path / "out"
    rows = [{"text": f"a new one, {colour}", "expected": {"colour": colour, "size": None}} for colour in COLOURS[:3]]
    others.write_text("\n".join(map(json.dumps, rows)))
    asked = ["route", str(others), "--schema", SCHEMA, "--model", str(made.to), "--final", str(final), "--json"]
    done = quarry(*asked, "--out", str(out), "--max-output-tokens", "32", "--max-attempts", "1")
    assert done.returncode == 0, done.stderr
    told = [json.loads(path.read_text()) for path in out.rglob("recipe.json")]
    by_model = {one["model"]["name"]: one for one in told}
    assert by_model.keys() == {str(made.to), str(final)}
    assert [(one["omit_nulls"], one["field_order"]) for one in by_model.values()] in (
        [("as tuned", "text"), (True, "text")],
        [(True, "text"), ("as tuned", "text")],
    )
    assert "examples" in by_model[str(final)] and "examples" not in by_model[str(made.to)]


def first_byte(model: EmbeddedModel) -> list[float]:
    """The log-probabilities of the first bytes of an answer, those that can be printed, in the bytes' order."""
    with model.serve() as address:
        body = {"prompt": [1, 2, 3], "n_predict": 1, "n_probs": 259, "grammar": 'root ::= "e"', "temperature": 0}
        at = address.removesuffix("/v1")
        (told,) = httpx.post(f"{at}/completion", json=body, timeout=60, trust_env=False).json()[
            "completion_probabilities"
        ]
    return [one["logprob"] for one in sorted(told["top_logprobs"], key=lambda one: one["id"])][:128]


def record_of(text: str) -> Record:
    return Record("r", text, content_fingerprint(text))


def tensors(path: Path) -> dict[str, bytes]:
    return {one.name: one.data.tobytes() for one in GGUFReader(path).tensors}


def quarry(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)
