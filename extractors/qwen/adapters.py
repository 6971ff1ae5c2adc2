"""Tuned models: a low-rank adapter in a GGUF file of its own, on the weights that it was made from.

``quarry tune`` writes them; llama.cpp adds them to the weights as it loads these. The file says what it belongs to and what
the model was told while it was tuned, in keys that begin with ``quarry.``; an adapter without them, made by another tool, is
not used, since nobody knows what it should be asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from extractors.errors import ModelMissing
from extractors.qwen.vocabulary import read_head
from extractors.qwen.weights import sha256_of

TYPE, KIND, ALPHA = "general.type", "adapter.type", "adapter.lora.alpha"
ADAPTER, LORA = "adapter", "lora"
BASE, BASE_SHA256, SYSTEM_SHA256 = "quarry.base", "quarry.base_sha256", "quarry.system_sha256"
OMIT_NULLS, TEXT_ORDER = "quarry.omit_nulls", "quarry.text_order"


@dataclass(frozen=True)
class Adapter:
    """A tuned model's file. ``base`` names the weights, ``base_sha256`` is theirs; ``system_sha256`` is that of the
    instructions that it was tuned behind (``instructions_digest``), whose answers left nulls out and were in the order of
    the text or not."""

    path: Path
    base: str
    base_sha256: str
    system_sha256: str
    omit_nulls: bool
    text_order: bool

    @cached_property
    def sha256(self) -> str:
        """What base and adapter are together."""
        return hashlib.sha256(f"{self.base_sha256} {sha256_of(self.path)}".encode()).hexdigest()


def instructions_digest(system: str) -> str:
    """What names a recipe's instructions: the SHA-256 of its system message."""
    return hashlib.sha256(system.encode()).hexdigest()


def adapter_at(name: str) -> Adapter | None:
    """The adapter that a model's name means; None for whole weights, and for a file that is not there.

    Raises ``ModelMissing`` for an adapter that ``quarry tune`` did not make."""
    path = Path(name).expanduser()
    if not name.endswith(".gguf") or name.startswith("hf:") or not path.is_file():
        return None
    own = (BASE, BASE_SHA256, SYSTEM_SHA256, OMIT_NULLS, TEXT_ORDER)
    try:
        head = read_head(path, (TYPE, *own))
    except (OSError, ValueError):
        # Whoever opens it as weights says what is wrong with it.
        return None
    if head.get(TYPE) != ADAPTER:
        return None
    if missing := [key for key in own if key not in head]:
        raise ModelMissing(
            f"{path} is an adapter that does not say {', '.join(missing)}: only those that `quarry tune` makes can be used as "
            "a model, because what an adapter was tuned to be asked is part of it"
        )
    return Adapter(
        path,
        base=str(head[BASE]),
        base_sha256=str(head[BASE_SHA256]),
        system_sha256=str(head[SYSTEM_SHA256]),
        omit_nulls=bool(head[OMIT_NULLS]),
        text_order=bool(head[TEXT_ORDER]),
    )
