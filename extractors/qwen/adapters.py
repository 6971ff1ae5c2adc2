"""Tuned models: a low-rank adapter in a GGUF file of its own, on the weights that it was made from.

``quarry tune`` writes them; llama.cpp adds them to the weights as it loads these. The file says what it belongs to and what
the model was told while it was tuned, in keys that begin with ``quarry.``; an adapter without them, made by another tool, is
not used, since nobody knows what it should be asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.errors import ModelMissing
from extractors.qwen.vocabulary import read_head
from extractors.qwen.weights import sha256_of

if TYPE_CHECKING:
    import numpy as np

_TYPE, _KIND, _ALPHA = "general.type", "adapter.type", "adapter.lora.alpha"
_ADAPTER, _LORA = "adapter", "lora"
BASE, BASE_SHA256, SYSTEM_SHA256 = "quarry.base", "quarry.base_sha256", "quarry.system_sha256"
OMIT_NULLS, TEXT_ORDER = "quarry.omit_nulls", "quarry.text_order"
LEARNED, IDENTITY = "quarry.learned", "quarry.identity"
_NEEDED = (BASE, BASE_SHA256, SYSTEM_SHA256, OMIT_NULLS, TEXT_ORDER, LEARNED, IDENTITY)


@dataclass(frozen=True)
class Adapter:
    """A tuned model's file. ``base`` names the weights, ``base_sha256`` is theirs; ``system_sha256`` is that of the
    instructions that it was tuned behind (``extractors.tuned.instructions_digest``), whose answers left nulls out and were in
    the order of the text or not. ``learned`` are the fingerprints of the texts that it was tuned on, those held back too;
    ``identity`` names the training."""

    path: Path
    base: str
    base_sha256: str
    system_sha256: str
    omit_nulls: bool
    text_order: bool
    learned: frozenset[str]
    identity: str

    @property
    def sha256(self) -> str:
        """What base and adapter are together."""
        return hashlib.sha256(f"{self.base_sha256} {sha256_of(self.path)}".encode()).hexdigest()

    @property
    def weights(self) -> str:
        """The base's name, or its path: where it was, or beside the adapter. Raises ``ModelMissing`` where a file is in neither
        place."""
        if not self.base.endswith(".gguf") or self.base.startswith("hf:"):
            return self.base
        for place in (Path(self.base).expanduser(), self.path.parent / Path(self.base).name):
            if place.is_file():
                return str(place)
        raise ModelMissing(
            f"{self.path} was tuned from {self.base} (SHA-256 {self.base_sha256}), which is not here: put that file back, or "
            "beside the tuned model"
        )

    def check(self, weights: Path) -> None:
        """Raises ``ModelMissing`` for weights that are not those which it was tuned from."""
        if (found := sha256_of(weights)) != self.base_sha256:
            raise ModelMissing(
                f"{self.path} was tuned from {self.base} with SHA-256 {self.base_sha256}, but {weights} has {found}: tune it "
                "anew, or put the weights back"
            )


def adapter_at(name: str) -> Adapter | None:
    """The adapter that a model's name means; None for whole weights, and for a file that is not there or cannot be read.

    Raises ``ModelMissing`` for an adapter that ``quarry tune`` did not make."""
    path = Path(name).expanduser()
    if not name.endswith(".gguf") or name.startswith("hf:") or not path.is_file():
        return None
    try:
        # Whole weights have a tokenizer, whose words take a while to step over.
        head = read_head(path, (_TYPE, *_NEEDED), before="tokenizer.")
    except (OSError, ValueError):
        return None  # whoever opens it as weights says what is wrong with it
    if head.get(_TYPE) != _ADAPTER:
        return None
    if missing := [key for key in _NEEDED if key not in head]:
        raise ModelMissing(
            f"{path} is an adapter that does not say {', '.join(missing)}: only those that this version of `quarry tune` makes "
            "can be used as a model, because what an adapter was tuned to be asked is part of it"
        )
    return Adapter(
        path,
        base=str(head[BASE]),
        base_sha256=str(head[BASE_SHA256]),
        system_sha256=str(head[SYSTEM_SHA256]),
        omit_nulls=bool(head[OMIT_NULLS]),
        text_order=bool(head[TEXT_ORDER]),
        learned=frozenset(head[LEARNED]),
        identity=str(head[IDENTITY]),
    )


def write_adapter(
    path: Path, matrices: Mapping[str, np.ndarray[Any, Any]], *, alpha: float, about: Mapping[str, Any]
) -> None:
    """Write an adapter as llama.cpp reads it: the layout of its ``convert_lora_to_gguf.py``. ``matrices`` by tensor name, such
    as ``blk.0.attn_q.weight.lora_a`` (rank, in) and ``….lora_b`` (out, rank); ``about`` are further keys. Raises ``OSError``."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "qwen2")
    writer.add_string(_TYPE, _ADAPTER)
    writer.add_string(_KIND, _LORA)
    writer.add_float32(_ALPHA, alpha)
    for key, value in about.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_int64(key, value)
        elif isinstance(value, float):
            writer.add_float64(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, matrix in matrices.items():
        writer.add_tensor(name, matrix)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
