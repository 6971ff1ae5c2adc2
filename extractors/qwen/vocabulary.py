"""An embedded model's own tokenizer, made from the vocabulary in its GGUF file.

Only the file's head is read: ``gguf``'s reader makes an array of each of some 300,000 strings, which takes many seconds.
The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the pattern that divides a text before its pairs
are merged is that of Qwen2's ``tokenizer.json`` and of llama.cpp's pre-tokenizer ``qwen2``.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.qwen.weights import find
from extractors.tokens import estimate_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PRE = "tokenizer.ggml.pre"
_TOKENS = "tokenizer.ggml.tokens"
_MERGES = "tokenizer.ggml.merges"
_FOUND: dict[str, Path] = {}
"""Where weights lie, which does not change while they are used; whether they are there is looked up until they are."""


@dataclass(frozen=True, slots=True)
class GgufTokens:
    """Counts tokens as the embedded model ``name`` does. The weights are read at the first count; where they are not on
    this machine, or divide texts in another way than Qwen2, tokens are estimated."""

    name: str

    def __call__(self, text: str) -> int:
        """The text's tokens, special ones as if they were plain text."""
        path = _FOUND.get(self.name)
        if path is None and (path := find(self.name)) is not None:
            _FOUND[self.name] = path
        tokenizer = None if path is None else _tokenizer(path)
        if tokenizer is None:
            return estimate_tokens(text)
        return len(tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Tokenizer | None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    head = read_head(path, (_PRE, _TOKENS, _MERGES))
    if head.get(_PRE) != "qwen2" or not head.get(_TOKENS) or not head.get(_MERGES):
        return None
    merges = [tuple(pair.split(" ", 1)) for pair in head[_MERGES]]
    made = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(head[_TOKENS])}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def read_head(path: Path, keys: tuple[str, ...], *, before: str | None = None) -> dict[str, Any]:
    """The values of ``keys`` in a GGUF file's head, as far as they are strings, numbers or lists of strings; of those before
    the first key that begins with ``before``, if that is given.

    Raises ``ValueError`` for a file that is no GGUF file of version 2 or 3, ``OSError`` for one that cannot be read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        try:
            version, _, pairs = struct.unpack_from("<IQQ", data, 4)
            if version in (2, 3):
                return _read(_Reader(data, 24), pairs, keys, before)
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError(f"{path} ends in the middle of its head, or has values of an unknown kind") from error
        raise ValueError(f"{path} is GGUF version {version}; 2 and 3 are read")


def _read(reader: _Reader, pairs: int, keys: tuple[str, ...], before: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.string()
        if before is not None and key.startswith(before):
            break
        kind = reader.number("I")
        value = reader.value(kind, wanted=key in keys)
        if key in keys:
            found[key] = value
            if len(found) == len(keys):
                break
    return found


class _Reader:
    __slots__ = ("_at", "_data")

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self._at = at

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        length = self.number("Q")
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8", "replace")

    def value(self, kind: int, *, wanted: bool) -> Any:
        """The value that begins here, or None where it is only stepped over."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_NUMBERS[kind])
        of, length = self.number("I"), self.number("Q")
        if of in (_STRING, _ARRAY):
            items = [self.value(of, wanted=wanted) for _ in range(length)]
            return items if wanted else None
        self._at += struct.calcsize(f"<{_NUMBERS[of]}") * length
        return None
