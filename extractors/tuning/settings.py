"""How a model is tuned, and how whoever watches hears of it. Needs no JAX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is trained. ``epochs``: times that every lesson is seen; ``rank`` of the adapter, whose alpha is twice that."""

    epochs: float = 3.0
    rank: int = 16
    learning_rate: float = 3e-4
    seed: int = 0

    @property
    def alpha(self) -> float:
        """What the adapter is multiplied by, times its rank."""
        return 2.0 * self.rank


@dataclass(frozen=True, slots=True)
class Step:
    """How far it is. ``loss`` is that of the step, ``held`` of the lessons held back where they were looked at, both in nats a
    token; ``best`` the lowest of those so far."""

    number: int
    of: int
    loss: float
    held: float | None
    best: float


class Watcher:
    """Is told how it goes; overridden by whoever shows it."""

    def fetching(self, what: str, done: int, total: int) -> None:
        """Bytes of the weights."""

    def reading(self, done: int, total: int) -> None:
        """Labelled records cut into tokens."""

    def compiling(self) -> None:
        """The training is compiled, and the untuned model looked at."""

    def stepped(self, step: Step) -> None:
        """A step of the training."""
