"""Training an adapter on lessons: Adam on the mean loss of a step's answers, and what is kept so that it can go on.

A step has one copy of the beginning that all questions share and, behind it, as many lessons as there is room for, none of
which sees another: the beginning, often the most of a question, is computed once. Part of the lessons is held back; the
adapter that does best on them is the one that is kept, so that a model which begins to learn its lessons by heart is not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
import optax

from extractors.errors import JobError
from extractors.store import files
from extractors.tuning.lessons import Lesson, Lessons, steps_of
from extractors.tuning.qwen2 import COMMON, NOTHING, Batch, Lora, Network
from extractors.tuning.settings import Settings, Step

_LOG = logging.getLogger(__name__)
_HELD, _FEWEST_HELD, _MOST_HELD = 0.1, 4, 64
_ROOM = 640
"""Tokens of a step's lessons together, the common beginning apart."""
_WARM = 0.06
"""Share of the steps over which the learning rate rises to its full height."""
_LOOKS = 3
"""Times in an epoch that the lessons which are held back are looked at."""
_SAVE_SECONDS = 60.0
"""Seconds of work that are lost at most where a run is killed, and a step."""
_ROUND = 64


@dataclass(frozen=True, slots=True)
class Trained:
    """The adapter that did best on the lessons held back. ``before`` is their loss without it, ``after`` with it."""

    lora: Lora
    learned_from: int
    held_back: int
    before: float
    after: float
    steps: int
    best_step: int
    resumed_at: int

    def matrices(self) -> dict[str, np.ndarray[Any, Any]]:
        """The adapter's matrices by the names that llama.cpp knows them by."""
        return {
            f"blk.{layer}.{name}.weight.lora_{kind}": np.ascontiguousarray(matrix)
            for name, pair in self.lora.items()
            for kind, values in pair.items()
            for layer, matrix in enumerate(np.asarray(values, np.float32))
        }


@dataclass(frozen=True, slots=True)
class _State:
    """What a run that was killed goes on from."""

    step: int
    lora: Lora
    optimiser: Any
    best: Lora
    best_loss: float
    best_step: int
    before: float


def train(
    network: Network,
    lessons: Lessons,
    settings: Settings,
    *,
    identity: str,
    part: Path,
    watch: Callable[[Step], None] | None = None,
) -> Trained:
    """Train an adapter for the network. ``part`` is a file that a run which was killed goes on from, where it has the same
    ``identity``; whoever calls removes it once the adapter is safe.

    Raises ``JobError`` where the loss is no number any more, ``OutputError`` where ``part`` cannot be written."""
    learned, held = _divided(lessons.lessons, settings.seed)
    plan = _Plan.of(lessons.prefix, learned, held)
    steps = plan.schedule(learned, settings)
    scale = settings.alpha / settings.rank
    peak, warm = settings.learning_rate, max(1, round(_WARM * len(steps)))
    rate = optax.warmup_cosine_decay_schedule(peak / (warm + 1), peak, warm, len(steps) + 1, 0.1 * peak)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    loss = partial(network.loss, scale=scale)

    @jax.jit
    def stepped(weights: Any, lora: Lora, state: Any, batch: Batch) -> tuple[Lora, Any, Any]:
        value, slope = jax.value_and_grad(lambda own: loss(weights, own, batch))(lora)
        change, state = optimiser.update(slope, state)
        return optax.apply_updates(lora, change), state, value

    looked = jax.jit(loss)
    held_batches = [plan.batch(each) for each in plan.together(held, range(len(held)))]

    def of_held(lora: Lora) -> float:
        losses = [float(looked(network.weights, lora, batch)) for batch in held_batches]
        return float(np.average(losses, weights=[float(batch["weight"].sum()) for batch in held_batches]))

    fresh = network.adapter(settings.rank, seed=settings.seed)
    state = _State(0, fresh, optimiser.init(fresh), fresh, float("inf"), 0, 0.0)
    if (left := _resumed(part, identity, state)) is not None:
        state = left
    else:
        before = of_held(fresh)
        state = replace(state, before=before, best_loss=before)
    resumed, saved = state.step, time.monotonic()
    every = max(1, round(len(steps) / max(1.0, settings.epochs * _LOOKS)))
    try:
        for number in range(resumed + 1, len(steps) + 1):
            lora, moments, value = stepped(network.weights, state.lora, state.optimiser, plan.batch(steps[number - 1]))
            seen = of_held(lora) if number % every == 0 or number == len(steps) else None
            if not np.isfinite(float(value)) or (seen is not None and not np.isfinite(seen)):
                raise JobError(
                    f"the loss at step {number} of {len(steps)} is no number any more: the learning rate {peak:g} is too high "
                    "for these records, give a lower --learning-rate"
                )
            made = replace(state, step=number, lora=lora, optimiser=moments)
            if seen is not None and seen < state.best_loss:
                made = replace(made, best=lora, best_loss=seen, best_step=number)
            # In one go, so that an interruption finds the one state or the other.
            state = made
            if watch is not None:
                watch(Step(number, len(steps), float(value), seen, state.best_loss))
            if time.monotonic() - saved >= _SAVE_SECONDS or number == len(steps):
                _save(part, identity, state)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _save(part, identity, state)
        raise
    return Trained(
        lora=state.best,
        learned_from=len(learned),
        held_back=len(held),
        before=state.before,
        after=state.best_loss,
        steps=len(steps),
        best_step=state.best_step,
        resumed_at=resumed,
    )


def _divided(lessons: Sequence[Lesson], seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Those to learn from and those that are held back."""
    order = np.random.default_rng(seed).permutation(len(lessons))
    count = min(_MOST_HELD, max(_FEWEST_HELD, round(_HELD * len(lessons))))
    return [lessons[place] for place in order[count:]], [lessons[place] for place in order[:count]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The size of a step, the same for all: a compiled function is for one size. ``room`` are the tokens of its lessons,
    ``answers`` those of them in answers."""

    prefix: tuple[int, ...]
    room: int
    answers: int

    @classmethod
    def of(cls, prefix: tuple[int, ...], learned: Sequence[Lesson], held: Sequence[Lesson]) -> _Plan:
        every = [*learned, *held]
        longest = max(one.tokens for one in every)
        room = _up(max(_ROOM, longest) + len(prefix)) - len(prefix)
        share = sum(len(one.answer) for one in every) / sum(one.tokens for one in every)
        return cls(prefix, room, _up(max(share * room * 1.1, max(len(one.answer) for one in every))))

    def together(self, lessons: Sequence[Lesson], order: Sequence[int]) -> list[list[Lesson]]:
        return list(steps_of(lessons, order, room=self.room, answers=self.answers))

    def schedule(self, lessons: Sequence[Lesson], settings: Settings) -> list[list[Lesson]]:
        """The lessons of every step, drawn anew for each epoch; the last one may be part of one."""
        steps: list[list[Lesson]] = []
        draws = np.random.default_rng(settings.seed)
        whole = int(settings.epochs)
        for _ in range(whole):
            steps += self.together(lessons, draws.permutation(len(lessons)).tolist())
        if rest := round((settings.epochs - whole) * len(lessons)):
            steps += self.together(lessons, draws.permutation(len(lessons))[:rest].tolist())
        return steps

    def batch(self, lessons: Sequence[Lesson]) -> Batch:
        """The lessons behind one copy of the beginning."""
        length, before = len(self.prefix) + self.room, len(self.prefix)
        token, position = list(self.prefix), list(range(before))
        segment, at, following = [COMMON] * before, list[int](), list[int]()
        for number, one in enumerate(lessons, start=1):
            answer = len(token) + len(one.question)
            at += range(answer - 1, answer + len(one.answer) - 1)
            following += one.answer
            token += (*one.question, *one.answer)
            position += range(before, before + one.tokens)
            segment += [number] * one.tokens
        weight = [1.0] * len(at)
        return {
            "token": _filled(token, length, 0),
            "position": _filled(position, length, 0),
            "segment": _filled(segment, length, NOTHING),
            "at": _filled(at, self.answers, 0),
            "next": _filled(following, self.answers, 0),
            "weight": _filled(weight, self.answers, 0.0),
        }


def _filled(values: Sequence[float], length: int, value: float) -> Any:
    return jnp.asarray([*values, *[value] * (length - len(values))])


def _up(count: float) -> int:
    return -(-int(np.ceil(count)) // _ROUND) * _ROUND


def _save(part: Path, identity: str, state: _State) -> None:
    """Write what a run goes on from, whole or not at all."""
    told = {
        "identity": identity,
        "step": state.step,
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "before": state.before,
    }
    leaves = jax.tree.leaves((state.lora, state.optimiser, state.best))
    written = BytesIO()
    np.savez(written, *[np.asarray(one) for one in leaves], told=np.array(json.dumps(told)))
    files.write_whole(part, written.getvalue())


def _resumed(part: Path, identity: str, like: _State) -> _State | None:
    """What an earlier run left, in the form of ``like``; None where there is nothing of the same ``identity``."""
    try:
        with np.load(part, allow_pickle=False) as kept:
            told: Mapping[str, Any] = json.loads(str(kept["told"]))
            if told["identity"] != identity:
                return None
            fresh, shape = jax.tree.flatten((like.lora, like.optimiser, like.best))
            leaves = [jnp.asarray(kept[f"arr_{number}"]) for number in range(len(fresh))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        _LOG.warning("%s cannot be gone on from (%s): the training starts anew", part, error)
        return None
    lora, moments, best = jax.tree.unflatten(shape, leaves)
    return _State(told["step"], lora, moments, best, told["best_loss"], told["best_step"], told["before"])
