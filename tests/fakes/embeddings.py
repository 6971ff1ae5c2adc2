"""Embeddings: unit vectors made from the words of a text, so that texts which share words lie close. Re-ranking: the
share of a query's words that a text has."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from tests.fakes.asked import Body
from tests.fakes.faults import Fault
from tests.fakes.sse import http

_SIZES = {
    "text-embedding-v1": (1536,),
    "text-embedding-v2": (1536,),
    "text-embedding-v3": (1024, 768, 512, 256, 128, 64),
    "text-embedding-v4": (1024, 2048, 1536, 768, 512, 256, 128, 64),
}
"""Lengths of the vectors, the default first."""
_MOST_TEXTS = {"text-embedding-v1": 25, "text-embedding-v2": 25}
_MOST_TOKENS = {"text-embedding-v1": 2048, "text-embedding-v2": 2048}
_FIXED = ("text-embedding-v1", "text-embedding-v2")


@dataclass(slots=True)
class Embeddings:
    """Both embedding dialects, and re-ranking.

    ``trouble`` gets each request's body and may give the fault (a status) that answers it; ``spoil`` may change the
    reply of one that goes well."""

    most_texts: int = 10
    most_tokens: int = 8192
    count: int = field(default=0)
    reranked: int = field(default=0)
    texts: Counter[str] = field(default_factory=Counter)
    """How often each text was embedded."""
    trouble: Callable[[Body], Fault | None] | None = None
    spoil: Callable[[Body], Body] | None = None
    means: Callable[[str], str] = str
    """The words that a text is embedded by: where the synonyms of a test are made one."""

    def rerank(self, raw: bytes) -> bytes:
        """The whole HTTP reply to one re-ranking."""
        self.reranked += 1
        body = orjson.loads(raw)
        query, texts = body.get("query"), body.get("documents")
        bad = self._told(body) or _bad_rerank(body.get("model"), query, texts)
        if bad:
            return http(bad[0], orjson.dumps(_error(*bad[1:], native=False)))
        wanted = set(_words(query))
        scored = [(len(wanted & set(_words(text))) / max(1, len(wanted)), at) for at, text in enumerate(texts)]
        rows = [{"index": at, "relevance_score": score} for score, at in sorted(scored, reverse=True)]
        tokens = _tokens(query) * len(texts) + sum(map(_tokens, texts))
        told = {
            "object": "list",
            "results": rows[: body.get("top_n") or len(rows)],
            "model": body["model"],
            "id": "fake",
        }
        return http(200, orjson.dumps(self._spoilt({**told, "usage": {"total_tokens": tokens}})))

    def reply(self, raw: bytes, *, native: bool) -> bytes:
        """The whole HTTP reply to one request."""
        self.count += 1
        body = orjson.loads(raw)
        model = body.get("model")
        given = (body.get("input") or {}).get("texts") if native else body.get("input")
        texts: Any = [given] if isinstance(given, str) else given
        parameters = (body.get("parameters") or {}) if native else body
        size = parameters.get("dimension" if native else "dimensions")
        bad = self._told(body) or self._refusal(model, texts, size)
        if bad:
            return http(bad[0], orjson.dumps(_error(*bad[1:], native=native)))
        sizes = _SIZES[model]
        wide = sizes[0] if size is None or model in _FIXED else size
        vectors = [vector(self.means(text), wide) for text in texts]
        self.texts.update(texts)
        tokens = sum(map(_tokens, texts))
        told = _native(vectors, tokens) if native else _compat(model, vectors, tokens)
        return http(200, orjson.dumps(self._spoilt(told)))

    def _told(self, body: Body) -> tuple[int, str, str, str] | None:
        fault = self.trouble(body) if self.trouble is not None else None
        if fault is None:
            return None
        code = fault.code or "internal_error"
        return fault.status_code, code, code, fault.message

    def _spoilt(self, reply: Body) -> Body:
        return reply if self.spoil is None else self.spoil(reply)

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
        longest = max(map(_tokens, texts))
        if longest > _MOST_TOKENS.get(model, self.most_tokens):
            most = _MOST_TOKENS.get(model, self.most_tokens)
            return (
                400,
                *invalid,
                f"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, {most}]",
            )
        if size is not None and model not in _FIXED and size not in _SIZES[model]:
            return 400, *invalid, f"dimension {size} is not supported: {sorted(_SIZES[model])}"
        return None


def vector(text: str, size: int) -> list[float]:
    """A vector of length 1: the sum of its words' own directions."""
    total = [0.0] * size
    for word in _words(text) or [text]:
        for at, value in enumerate(_direction(word, size)):
            total[at] += value
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def _bad_rerank(model: Any, query: Any, texts: Any) -> tuple[int, str, str, str] | None:
    """The documented limits: 500 texts of 4,000 tokens, 120,000 in all with the query once for each."""
    invalid = ("invalid_parameter_error", "InvalidParameter")
    if model != "qwen3-rerank":
        return 404, "model_not_found", "ModelNotFound", f"The model `{model}` does not exist."
    if not isinstance(query, str) or not query or not isinstance(texts, list) or not texts:
        return 400, *invalid, "query and documents are required"
    if len(texts) > 500:
        return 400, *invalid, "batch size is invalid, it should not be larger than 500"
    if max(map(_tokens, [query, *texts])) > 4000:
        return 400, *invalid, "Range of input length should be [1, 4000]"
    if _tokens(query) * len(texts) + sum(map(_tokens, texts)) > 120_000:
        return 400, *invalid, "Range of input length should be [1, 120000]"
    return None


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


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
