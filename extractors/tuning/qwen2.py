"""Qwen2's transformer in JAX, over the weights of a GGUF file, with a low-rank adapter beside each of its matrices.

The network is that of "Qwen2 Technical Report" (Yang et al. 2024) in the sizes that the file tells: RMS norms, grouped-query
attention with rotary positions and biases on queries, keys and values, a SwiGLU. The adapter is that of "LoRA: Low-Rank
Adaptation of Large Language Models" (Hu et al. 2021): beside a frozen matrix W of shape (out, in) stand A (rank, in) and
B (out, rank), and the layer gives W x + (alpha / rank) B A x. Quantised weights are computed with as what they stand for, in
32 bits; llama.cpp rounds activations as well, so that its log-probabilities differ by some hundredths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGUFReader, dequantize

from extractors.errors import JobError

Array = Any
"""A JAX array: its functions give and take these, and what is traced in their place."""
Weights = dict[str, Any]
"""``layers`` by tensor name, each (layers, ...); ``tokens`` (vocabulary, width); ``norm`` (width,); ``output`` where it is
not ``tokens``."""
Lora = dict[str, dict[str, Array]]
"""For each adapted matrix ``a`` (layers, rank, in) and ``b`` (layers, out, rank)."""
Batch = dict[str, Array]
"""``token``, ``position``, ``segment`` (tokens,); ``at``, ``next``, ``weight`` (answers,): see ``Network.loss``."""

ADAPTED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""The matrices that have an adapter: all linear layers."""
COMMON, NOTHING = 0, -1
"""The segment of what all others see, and that of what fills a batch up."""
_BIASED = ("attn_q", "attn_k", "attn_v")
_NORMS = ("attn_norm", "ffn_norm")
_FAR = -1e30


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the file's head tells of the network."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    rope_base: float
    epsilon: float

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads


class Network:
    """The weights of ``path``, each layer's stacked on the others'. Raises ``JobError`` for those of another network."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.sizes = _sizes(reader, path)
        tensors = {one.name: one for one in reader.tensors}

        def of(name: str) -> np.ndarray[Any, Any]:
            tensor = tensors.get(name)
            if tensor is None:
                raise JobError(f"{path} has no weights {name}: it is not a Qwen2 model that can be tuned")
            shape = tuple(int(size) for size in reversed(tensor.shape))
            return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)

        names = [f"{one}.weight" for one in (*_NORMS, *ADAPTED)] + [f"{one}.bias" for one in _BIASED]
        layers = range(self.sizes.layers)
        self.weights: Weights = {
            "layers": {name: jnp.asarray(np.stack([of(f"blk.{layer}.{name}") for layer in layers])) for name in names},
            "tokens": jnp.asarray(of("token_embd.weight")),
            "norm": jnp.asarray(of("output_norm.weight")),
        }
        if "output.weight" in tensors:
            self.weights["output"] = jnp.asarray(of("output.weight"))

    def adapter(self, rank: int, *, seed: int) -> Lora:
        """A fresh adapter, which changes nothing yet: A at random, B zero."""
        made: Lora = {}
        for key, name in zip(jax.random.split(jax.random.key(seed), len(ADAPTED)), ADAPTED, strict=True):
            layers, wide, narrow = self.weights["layers"][f"{name}.weight"].shape
            made[name] = {
                "a": jax.random.normal(key, (layers, rank, narrow)) / np.sqrt(narrow),
                "b": jnp.zeros((layers, wide, rank)),
            }
        return made

    def loss(self, weights: Weights, lora: Lora, batch: Batch, scale: float) -> Array:
        """The mean negative log-likelihood (nats) of the tokens ``next``, each after the place ``at`` and counted by its
        ``weight``. A place sees those before it in its own segment and in the ``COMMON`` one, at its ``position``.

        ``weights`` are the network's, given so that a compiled function does not hold a copy of them."""
        seen = self._hidden(weights, lora, batch["token"], batch["position"], batch["segment"], scale)[batch["at"]]
        # Small models use the embeddings of tokens once more to choose the next one.
        logits = seen @ (weights["output"] if "output" in weights else weights["tokens"]).T
        likely = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), batch["next"][:, None], axis=1)[:, 0]
        return -jnp.sum(likely * batch["weight"]) / jnp.sum(batch["weight"])

    def _hidden(
        self, weights: Weights, lora: Lora, token: Array, position: Array, segment: Array, scale: float
    ) -> Array:
        sizes, length = self.sizes, token.shape[0]
        place = jnp.arange(length)
        visible = (place[:, None] >= place[None]) & ((segment[None] == COMMON) | (segment[None] == segment[:, None]))
        turn = position[:, None] * sizes.rope_base ** (-jnp.arange(0, sizes.head, 2) / sizes.head)[None]
        cos, sin = jnp.cos(turn)[:, None], jnp.sin(turn)[:, None]

        def turned(heads: Array) -> Array:
            one, other = jnp.split(heads, 2, axis=-1)
            return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1)

        def layer(x: Array, given: tuple[dict[str, Array], Lora]) -> tuple[Array, None]:
            own, added = given

            def linear(name: str, value: Array) -> Array:
                low = added[name]
                made = value @ own[f"{name}.weight"].T + scale * ((value @ low["a"].T) @ low["b"].T)
                return made + own[f"{name}.bias"] if name in _BIASED else made

            normed = self._normed(x, own["attn_norm.weight"])
            query = turned(linear("attn_q", normed).reshape(length, sizes.heads, sizes.head))
            key = turned(linear("attn_k", normed).reshape(length, sizes.kv_heads, sizes.head))
            value = linear("attn_v", normed).reshape(length, sizes.kv_heads, sizes.head)
            grouped = query.reshape(length, sizes.kv_heads, -1, sizes.head)
            score = jnp.einsum("tkgd,skd->kgts", grouped, key) / np.sqrt(sizes.head)
            share = jax.nn.softmax(jnp.where(visible, score, _FAR), axis=-1)
            x = x + linear("attn_output", jnp.einsum("kgts,skd->tkgd", share, value).reshape(length, sizes.width))
            normed = self._normed(x, own["ffn_norm.weight"])
            gated = jax.nn.silu(linear("ffn_gate", normed)) * linear("ffn_up", normed)
            return x + linear("ffn_down", gated), None

        # What a layer computes on its way is computed again for the gradient: it would take gigabytes to keep.
        x, _ = jax.lax.scan(jax.checkpoint(layer), weights["tokens"][token], (weights["layers"], lora))
        return self._normed(x, weights["norm"])

    def _normed(self, x: Array, weight: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.sizes.epsilon) * weight


def _sizes(reader: GGUFReader, path: Path) -> Sizes:
    def told(key: str) -> Any:
        found = reader.get_field(key)
        if found is None:
            raise JobError(f"{path} does not say {key}: it cannot be tuned")
        return found.contents()

    kind = told("general.architecture")
    if kind != "qwen2":
        raise JobError(f"{path} is a {kind} model; those of the kind qwen2 can be tuned, such as local-0.5b")
    return Sizes(
        layers=told("qwen2.block_count"),
        width=told("qwen2.embedding_length"),
        heads=told("qwen2.attention.head_count"),
        kv_heads=told("qwen2.attention.head_count_kv"),
        rope_base=told("qwen2.rope.freq_base"),
        epsilon=told("qwen2.attention.layer_norm_rms_epsilon"),
    )
