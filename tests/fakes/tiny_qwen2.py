"""A Qwen2 model of a few thousand parameters, drawn at random, whose tokens are bytes: llama.cpp serves it in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

LAYERS, WIDTH, INNER, HEADS, KV_HEADS = 2, 64, 96, 4, 2
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_qwen2(path: Path, *, seed: int = 0, tied: bool = True, architecture: str = "qwen2") -> Path:
    """Write the model's GGUF file. ``tied``: its embeddings choose the next token as well."""
    tokens = [*_byte_letters(), *_CONTROL]
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(_CONTROL))
    writer.add_token_merges(["r e"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(_TEMPLATE)
    draw = np.random.default_rng(seed)

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(name, (draw.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def vector(name: str, size: int, *, around: float = 0.0) -> None:
        writer.add_tensor(name, (around + 0.1 * draw.standard_normal(size)).astype(np.float32))

    matrix("token_embd.weight", len(tokens), WIDTH)
    vector("output_norm.weight", WIDTH, around=1.0)
    if not tied:
        matrix("output.weight", len(tokens), WIDTH)
    narrow = WIDTH // HEADS * KV_HEADS
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            vector(f"blk.{layer}.{name}.weight", WIDTH, around=1.0)
        for name, out in (("attn_q", WIDTH), ("attn_k", narrow), ("attn_v", narrow)):
            matrix(f"blk.{layer}.{name}.weight", out, WIDTH)
            vector(f"blk.{layer}.{name}.bias", out)
        matrix(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_gate.weight", INNER, WIDTH)
        matrix(f"blk.{layer}.ffn_up.weight", INNER, WIDTH)
        matrix(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_letters() -> list[str]:
    """A letter for each byte, as GPT-2's tokenizer has them: itself where it can be printed, else one from 256 on."""
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]
