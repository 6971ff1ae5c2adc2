"""Tokens are counted as the embedded model counts them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from extractors.qwen.local_server import LocalServer
from extractors.qwen.vocabulary import GgufTokens, read_head
from extractors.qwen.weights import find
from extractors.tokens import estimate_tokens

SMALL = "local-0.5b"
TEXTS = (
    "This Agreement shall be governed by the laws of the State of Nevada, U.S.A.; fee: $1,250.00 (2024-05-03).",
    "甲方应当在收到货物后三十日内付款。",
    "  two  blanks\n\n\ttab\r\nd'être naïve Ünïcödé 👩\u200d🔬 <|im_end|> I'll don't x_y",
    "",
)


def tiny(path: Path, *, pre: str) -> Path:
    """A GGUF file with the vocabulary of some letters, written by the format's own library."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "qwen2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["a", "b", "c", "ab", "abc", "Ġ", "Ġa"])
    writer.add_token_types([1] * 7)
    writer.add_token_merges(["a b", "ab c", "Ġ a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_files_vocabulary_is_read_and_its_merges_are_applied(tmp_path: Path) -> None:
    tokens = GgufTokens(str(tiny(tmp_path / "tiny.gguf", pre="qwen2")))

    assert tokens("abc") == 1
    assert tokens("abc acb") == 4


def test_a_model_that_divides_texts_in_another_way_is_estimated(tmp_path: Path) -> None:
    tokens = GgufTokens(str(tiny(tmp_path / "other.gguf", pre="llama-bpe")))

    assert tokens("abc abc abc") == estimate_tokens("abc abc abc")


def test_a_file_of_another_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" + bytes(64))

    with pytest.raises(ValueError, match="no GGUF file"):
        read_head(tmp_path / "x.gguf", ("a",))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(find(SMALL) is None, reason=f"`quarry model pull {SMALL}` first")
def test_counts_are_those_of_the_server() -> None:
    path = find(SMALL)
    assert path is not None
    tokens = GgufTokens(SMALL)
    with LocalServer(path, slots=1, context_per_slot=512, alias=SMALL) as server:
        for text in TEXTS:
            request = urllib.request.Request(
                server.base_url.removesuffix("/v1") + "/tokenize",
                json.dumps({"content": text, "add_special": False, "parse_special": False}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                assert tokens(text) == len(json.load(reply)["tokens"]), text
