"""Embeddings: unit vectors made from the words of a text, so that texts which share words lie close."""

from __future__ import annotations

import hashlib
import math
import random
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from tests.fakes.asked import Body
from tests.fakes.sse import http

_SIZES = {
    "text-embedding-v1": (1536,),
    "text-embedding-v2": (1536,),
    "text-embedding-v3": (1024, 768, 512, 256, 128, 64),
    "text-embedding-v4": (1024, 2048, 1536, 768, 512, 256, 128, 64),
}
"""Lengths of the vectors, the default first."""
_MOST_TEXTS = {"text-embedding-v1": 25, "text-embedding-v2": 25}
_FIXED = ("text-embedding-v1", "text-embedding-v2")


@dataclass(slots=True)
class Embeddings:
    """Both embedding dialects."""

    most_texts: int = 10
    count: int = field(default=0)

    def reply(self, raw: bytes, *, native: bool) -> bytes:
        """The whole HTTP reply to one request."""
        self.count += 1
        body = orjson.loads(raw)
        model = body.get("model")
        given = (body.get("input") or {}).get("texts") if native else body.get("input")
        texts: Any = [given] if isinstance(given, str) else given
        parameters = (body.get("parameters") or {}) if native else body
        size = parameters.get("dimension" if native else "dimensions")
        bad = self._refusal(model, texts, size)
        if bad:
            return http(bad[0], orjson.dumps(_error(*bad[1:], native=native)))
        sizes = _SIZES[model]
        wide = sizes[0] if size is None or model in _FIXED else size
        vectors = [vector(text, wide) for text in texts]
        tokens = sum(len(text) // 4 + 1 for text in texts)
        return http(200, orjson.dumps(_native(vectors, tokens) if native else _compat(model, vectors, tokens)))

    def _refusal(self, model: Any, texts: Any, size: Any) -> tuple[int, str, str, str] | None:
        invalid = ("invalid_parameter_error", "InvalidParameter")
        if model not in _SIZES:
            return 404, "model_not_found", "ModelNotFound", f"The model `{model}` does not exist."
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one for one in texts):
            return 400, *invalid, "input must be a string or a list of non-empty strings"
        most = _MOST_TEXTS.get(model, self.most_texts)
        if len(texts) > most:
            return (
                400,
                *invalid,
                f"<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, "
                f"it should not be larger than {most}.: input.contents",
            )
        if size is not None and model not in _FIXED and size not in _SIZES[model]:
            return 400, *invalid, f"dimension {size} is not supported: {sorted(_SIZES[model])}"
        return None


def vector(text: str, size: int) -> list[float]:
    """A vector of length 1: the sum of its words' own directions."""
    total = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [text]:
        for at, value in enumerate(_direction(word, size)):
            total[at] += value
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


@lru_cache(maxsize=4096)
def _direction(word: str, size: int) -> tuple[float, ...]:
    seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
    draw = random.Random(seed)
    return tuple(draw.gauss(0, 1) for _ in range(size))


def _compat(model: str, vectors: list[list[float]], tokens: int) -> Body:
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": used, "id": "fake"}


def _native(vectors: list[list[float]], tokens: int) -> Body:
    rows = [{"text_index": at, "embedding": one} for at, one in enumerate(vectors)]
    return {"output": {"embeddings": rows}, "usage": {"total_tokens": tokens}, "request_id": "fake"}


def _error(compat: str, native_spelling: str, message: str, *, native: bool) -> Body:
    if native:
        return {"request_id": "fake", "code": native_spelling, "message": message}
    return {"error": {"message": message, "type": compat, "param": None, "code": compat}, "request_id": "fake"}
