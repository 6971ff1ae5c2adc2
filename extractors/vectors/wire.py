"""``POST /embeddings`` and ``POST /reranks``: requests and replies that the policies around any call take as they are.

The messages of an embedding request are its texts; those of a re-ranking request are the query, then its texts. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from extractors.budget import Amount
from extractors.qwen import chat
from extractors.qwen.addresses import Route
from extractors.qwen.dialects import Dialect
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.replies import error_in, garbled, object_in, usage_in
from extractors.qwen.requests import (
    AnswerShape,
    Call,
    CallError,
    ChatReply,
    ChatRequest,
    ErrorKind,
    Message,
    Mode,
    Purpose,
)
from extractors.qwen.wire import dump
from extractors.tokens import most_tokens
from schemas.usage import Usage

_AROUND = 16
"""Tokens that a service may add to a text, at most."""


@dataclass(frozen=True, slots=True)
class Embedded(ChatReply):
    """A reply with one vector for each text, in the texts' order: float32, little-endian, one after the other."""

    vectors: tuple[bytes, ...] = ()


def embedding_request(model: str, texts: Sequence[str], *, dimensions: int | None) -> ChatRequest:
    """Asks for a vector of each text; ``dimensions`` where a length may be asked for."""
    wire: dict[str, Any] = {"encoding_format": "float"}
    if dimensions is not None:
        wire["dimensions"] = dimensions
    return _request(model, texts, wire, Purpose.EMBED)


def rerank_request(model: str, query: str, texts: Sequence[str]) -> ChatRequest:
    """Asks how much each text has to do with the query."""
    return _request(model, [query, *texts], {"top_n": len(texts)}, Purpose.RERANK)


def _request(model: str, texts: Sequence[str], wire: Mapping[str, Any], purpose: Purpose) -> ChatRequest:
    shape = AnswerShape(purpose.value, {}, Mode.PROMPTED, wire)
    messages = tuple(Message("user", text) for text in texts)
    return ChatRequest(model, messages, shape, purpose=purpose, max_output_tokens=0)


def encode_embedding(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The body of an embedding request."""
    texts = [message.content for message in request.messages]
    return dump({"model": request.model, "input": texts, **request.shape.wire, **profile.always})


def encode_rerank(request: ChatRequest, *, profile: Profile, stream: bool = False) -> bytes:
    """The body of a re-ranking request."""
    query, *texts = (message.content for message in request.messages)
    return dump({"model": request.model, "query": query, "documents": texts, **request.shape.wire, **profile.always})


def decode_embedding(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing, tools: bool = False
) -> ChatReply | CallError:
    """The vectors of a reply, ordered by ``index``. One without a finite number in every place is garbled."""
    found = _rows(status, headers, body, "data", model=model, pricing=pricing)
    if isinstance(found, CallError):
        return found
    data, rows, usage = found
    try:
        vectors = tuple(_float32(row["embedding"]) for row in _in_order(rows))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return garbled(f"the reply holds no vectors ({error})", status, body, model=model, usage=usage)
    return Embedded("", "stop", usage, str(data.get("model") or model), vectors=vectors)


def decode_rerank(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, pricing: Pricing, tools: bool = False
) -> ChatReply | CallError:
    """The scores of a reply as a JSON list in the texts' order, which is the reply's text."""
    found = _rows(status, headers, body, "results", model=model, pricing=pricing)
    if isinstance(found, CallError):
        return found
    data, rows, usage = found
    try:
        scores = [float(row["relevance_score"]) for row in _in_order(rows)]
        if not all(map(math.isfinite, scores)):
            raise ValueError("a score is not finite")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return garbled(f"the reply holds no scores ({error})", status, body, model=model, usage=usage)
    return ChatReply(orjson.dumps(scores).decode(), "stop", usage, str(data.get("model") or model))


def _rows(
    status: int, headers: Mapping[str, str], body: bytes, key: str, *, model: str, pricing: Pricing
) -> tuple[Mapping[str, Any], list[Any], Usage] | CallError:
    data = object_in(status, headers, body, model=model)
    if isinstance(data, CallError):
        return data
    inner = data.get("output") if isinstance(data.get("output"), dict) else data
    rows = inner.get(key) if isinstance(inner, dict) else None
    if status != 200 or not isinstance(rows, list):
        return error_in(status, headers, data, body, model=model, pricing=pricing, missing=key)
    usage = usage_in(data, pricing)
    told = data.get("usage")
    if not usage.input_tokens and isinstance(told, dict) and isinstance(told.get("total_tokens"), int):
        # There is no output, so that the sum is the input.
        usage = usage_in({"usage": {"prompt_tokens": told["total_tokens"]}}, pricing)
    return data, rows, usage


def _in_order(rows: Sequence[Any]) -> list[Any]:
    """The rows by ``index``. Raises ``ValueError`` where those are not 0, 1, 2 and so on, each once."""
    ordered = sorted(rows, key=lambda row: int(row["index"]))
    if [row["index"] for row in ordered] != list(range(len(rows))):
        raise ValueError("its indexes are not those of the texts")
    return ordered


def _float32(values: Any) -> bytes:
    import numpy as np

    if not isinstance(values, list) or not values:
        raise ValueError("an embedding is no list of numbers")
    with np.errstate(over="ignore"):
        made = np.asarray(values, dtype="<f4")
    if made.ndim != 1 or not np.isfinite(made).all():
        raise ValueError("an embedding has what is no finite number")
    return made.tobytes()


EMBEDDINGS = Dialect("embeddings", Route.EMBEDDINGS, encode_embedding, decode_embedding, chat.take)
RERANKS = Dialect("reranks", Route.RERANKS, encode_rerank, decode_rerank, chat.take)


class Checked:
    """A ``Call`` whose replies have as much as was asked for: a vector, or a score, for each text. Others are garbled,
    which is asked again. Vectors of another length than ``dimensions`` are what the model makes, whatever text it is
    asked about: an error that ends the run."""

    def __init__(self, call: Call, *, dimensions: int | None = None) -> None:
        self._call = call
        self._dimensions = dimensions

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """The call's result."""
        result = await self._call(request)
        trouble = self._trouble(request, result) if isinstance(result, ChatReply) else None
        if trouble is None:
            return result
        kind, said = trouble
        return CallError(
            kind,
            said,
            request.model,
            200,
            latency=result.latency,
            usage=result.usage,
            started_at=result.started_at,
            begun=True,
        )

    def _trouble(self, request: ChatRequest, reply: ChatReply) -> tuple[ErrorKind, str] | None:
        if isinstance(reply, Embedded):
            asked, got = len(request.messages), len(reply.vectors)
            lengths = {len(one) // 4 for one in reply.vectors}
            if got == asked and self._dimensions is not None and lengths != {self._dimensions}:
                told = ", ".join(map(str, sorted(lengths)))
                # Of several lengths all but one are a broken reply's.
                return ErrorKind.GARBLED if len(lengths) > 1 else ErrorKind.MODEL, (
                    f"{request.model} sent vectors of {told} numbers where {self._dimensions} are wanted; give "
                    "--embedding-dimensions what the model makes"
                )
        else:
            asked, got = len(request.messages) - 1, len(orjson.loads(reply.text))
        return None if got == asked else (ErrorKind.GARBLED, f"{request.model} sent {got} results for {asked} texts")


def embedding_bound(pricing: Pricing, request: ChatRequest) -> Amount:
    """The most that a call for embeddings may take: a token for each byte of its texts."""
    return _amount(pricing, sum(most_tokens(message.content) + _AROUND for message in request.messages))


def rerank_bound(pricing: Pricing, request: ChatRequest) -> Amount:
    """The most that a re-ranking call may take: its query counts once for each text."""
    query, *texts = (most_tokens(message.content) + _AROUND for message in request.messages)
    return _amount(pricing, query * max(1, len(texts)) + sum(texts))


def _amount(pricing: Pricing, tokens: int) -> Amount:
    return replace(Amount(tokens=tokens), cost=pricing.worst_cost(tokens, 0) or Amount().cost)
