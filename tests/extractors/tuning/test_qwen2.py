"""The network in JAX beside llama.cpp's of the same weights, with and without an adapter."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jax
import numpy as np
import pytest

from extractors.errors import JobError
from extractors.qwen.adapters import write_adapter
from extractors.qwen.local_server import LocalServer
from extractors.tuning.lessons import Lesson
from extractors.tuning.qwen2 import Lora, Network
from extractors.tuning.settings import Settings
from extractors.tuning.training import Trained, _Plan
from tests.fakes.tiny_qwen2 import write_tiny_qwen2

PREFIX = tuple(b"You are shown a word. ")
LESSONS = [
    Lesson(tuple(b"word: hazel"), tuple(b"tree")),
    Lesson(tuple(b"the word is: rook"), tuple(b"a bird")),
]
SETTINGS = Settings(rank=4)
SCALE = SETTINGS.alpha / SETTINGS.rank


@pytest.fixture(params=["tied", "untied"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tiny_qwen2(tmp_path / "tiny.gguf", tied=request.param == "tied")


def loss(network: Network, lora: Lora, lessons: list[Lesson]) -> float:
    plan = _Plan.of(PREFIX, lessons, [])
    return float(jax.jit(network.loss)(network.weights, lora, plan.batch(lessons), SCALE))


def drawn(network: Network) -> Lora:
    """An adapter that changes something: its B are not zero."""
    made = network.adapter(SETTINGS.rank, seed=1)
    draws = np.random.default_rng(2)
    return {
        name: {"a": pair["a"], "b": np.float32(0.3) * draws.standard_normal(pair["b"].shape).astype(np.float32)}
        for name, pair in made.items()
    }


def llama_loss(weights: Path, lesson: Lesson, adapter: Path | None = None) -> float:
    """The mean negative log-likelihood of the answer's tokens, asked of llama.cpp's server one by one."""
    with LocalServer(weights, slots=1, context_per_slot=512, adapter=adapter) as server:
        at = server.base_url.removesuffix("/v1")
        said = []
        for place, token in enumerate(lesson.answer):
            prompt = [*PREFIX, *lesson.question, *lesson.answer[:place]]
            # The grammar only keeps the one sampled byte printable; the probabilities are those before it.
            body = {"prompt": prompt, "n_predict": 1, "n_probs": 259, "grammar": 'root ::= "e"', "temperature": 0}
            reply: dict[str, Any] = httpx.post(f"{at}/completion", json=body, trust_env=False, timeout=60).json()
            (told,) = reply["completion_probabilities"]
            said.append(next(one["logprob"] for one in told["top_logprobs"] if one["id"] == token))
    return -sum(said) / len(said)


def test_it_computes_what_llama_does(weights: Path) -> None:
    network = Network(weights)
    untouched = network.adapter(SETTINGS.rank, seed=0)
    for lesson in LESSONS:
        assert loss(network, untouched, [lesson]) == pytest.approx(llama_loss(weights, lesson), abs=0.02)


def test_an_adapter_does_the_same_in_llama(weights: Path, tmp_path: Path) -> None:
    network, to = Network(weights), tmp_path / "adapter.gguf"
    lora = drawn(network)
    trained = Trained(lora, 12, 4, before=1.0, after=0.5, steps=3, best_step=3, resumed_at=0)
    write_adapter(to, trained.matrices(), alpha=SETTINGS.alpha, about={})
    for lesson in LESSONS:
        with_it = loss(network, lora, [lesson])
        assert with_it == pytest.approx(llama_loss(weights, lesson, to), abs=0.02)
        assert abs(with_it - llama_loss(weights, lesson)) > 0.2


def test_lessons_of_a_step_do_not_see_each_other(weights: Path) -> None:
    network = Network(weights)
    lora = drawn(network)
    alone = [loss(network, lora, [lesson]) for lesson in LESSONS]
    sizes = [len(lesson.answer) for lesson in LESSONS]
    together = loss(network, lora, LESSONS)
    assert together == pytest.approx(np.average(alone, weights=sizes), abs=1e-4)
    other = replace(LESSONS[0], question=tuple(b"word: elder"))
    assert not math.isclose(loss(network, lora, [other]), alone[0], abs_tol=1e-4)


def test_weights_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is a llama model; those of the kind qwen2"):
        Network(write_tiny_qwen2(tmp_path / "other.gguf", architecture="llama"))
