"""The embedded model as the rest of Quarry sees it: a name, its limits, its hash, and an address while it is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from extractors.errors import ModelMissing
from extractors.qwen.adapters import adapter_at
from extractors.qwen.local_server import DEFAULT_CONTEXT, DEFAULT_SLOTS, LocalServer, Tuning
from extractors.qwen.weights import KNOWN, Watch, ensure, find, hub_file, models_folder, sha256_of

MAX_OUTPUT_TOKENS = 2048


def is_embedded(name: str) -> bool:
    """Whether a model name means weights on this machine: ``local-...``, ``hf:...`` or a ``.gguf`` path."""
    return name.startswith(("local-", "hf:")) or name.endswith(".gguf")


class EmbeddedModel:
    """Weights that are served by this machine for as long as they are needed.

    ``name`` is a known name, ``hf:OWNER/REPO:FILE`` or a path, of weights or of a tuned model. ``slots`` requests are worked on
    at a time; None is what was measured to be best. A slot's ``context`` tokens are shared by prompt and answer.
    ``probabilities`` of tokens are wanted by default; without, what is copied from a record is written faster.
    Raises ``ModelMissing`` for a name that cannot mean a model, and for an adapter of unknown making.
    """

    def __init__(
        self, name: str, *, slots: int | None = None, context: int = DEFAULT_CONTEXT, probabilities: bool = True
    ) -> None:
        if name not in KNOWN and hub_file(name) is None:
            find(name)
        self.name = name
        self.adapter = adapter_at(name)
        """What was tuned, where the name is a tuned model's."""
        self.weights = name if self.adapter is None else self.adapter.weights
        """The name of the weights themselves."""
        self.slots = slots or DEFAULT_SLOTS
        self.context = context
        self.probabilities = probabilities

    @property
    def max_output_tokens(self) -> int:
        """Tokens that an answer may have."""
        return min(MAX_OUTPUT_TOKENS, self.context // 2)

    @property
    def max_input_tokens(self) -> int:
        """Tokens that a prompt may have, so that the longest answer still fits beside it."""
        return self.context - self.max_output_tokens

    @cached_property
    def sha256(self) -> str:
        """What the weights are. For an ``hf:`` name that is not on this machine yet, they are fetched first."""
        if self.adapter is not None:
            return self.adapter.sha256
        known = KNOWN.get(self.name)
        return known.sha256 if known is not None else sha256_of(ensure(self.name))

    @contextmanager
    def serve(self, *, progress: Watch | None = None) -> Iterator[str]:
        """The base URL, ending in ``/v1``, of a server that runs until the block ends.

        Fetches the weights if they are not here. Raises ``ModelMissing``, also where a tuned model's weights are others than
        it was tuned from, and ``ServerUnreachable``."""
        path = ensure(self.weights, progress=progress)
        if self.adapter is not None:
            self.adapter.check(path)
            if self.adapter.sha256 != self.sha256:
                raise ModelMissing(f"{self.name} was written anew since this run began: run the same command again")
        tuning = Tuning(speculate=not self.probabilities)
        with LocalServer(
            path,
            slots=self.slots,
            context_per_slot=self.context,
            alias=self.name,
            tuning=tuning,
            adapter=None if self.adapter is None else self.adapter.path,
        ) as server:
            yield server.base_url


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model that ``quarry model list`` shows. ``path`` is None when it is not on this machine."""

    name: str
    path: Path | None
    bytes: int
    sha256: str
    source: str
    licence: str


def _source(path: Path) -> str:
    """Where a file that is no known model's comes from."""
    try:
        adapter = adapter_at(str(path))
    except ModelMissing:
        return "an adapter of another tool, of no use here"
    return "your own" if adapter is None else f"your own, tuned from {adapter.base}"


def model_states() -> list[ModelState]:
    """The known models, then whatever else lies in the model folder. Fetches nothing."""
    folder = models_folder()
    states = [
        ModelState(
            name=known.name,
            path=find(known.name),
            bytes=known.bytes,
            sha256=known.sha256,
            source=f"{known.repository} @ {known.revision[:12]}",
            licence=known.licence,
        )
        for known in KNOWN.values()
    ]
    files = {known.file for known in KNOWN.values()}
    for path in sorted(folder.rglob("*.gguf")) if folder.is_dir() else ():
        if path.parent == folder and path.name in files:
            continue
        states.append(
            ModelState(
                name=str(path),
                path=path,
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
                source=_source(path),
                licence="unknown",
            )
        )
    return states
