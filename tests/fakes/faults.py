"""What a fake Qwen can answer: good replies, every way to go wrong, and the rules that the service enforces."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer with details. ``tokens`` is (input, output, cached, reasoning); None: made from the lengths."""

    text: str | None
    finish_reason: str = "stop"
    thinking: str | None = None
    tokens: tuple[int, int, int, int] | None = None
    usage: bool = True
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong. Make it with the class methods; ``Fault.named("429")`` takes a name of ``FAULTS``."""

    kind: str
    status_code: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    seconds: float = 0.0
    answer: str = "{}"

    @classmethod
    def status(
        cls,
        status: int,
        code: str | None = None,
        message: str = "",
        *,
        retry_after: float | str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        native: bool = False,
        type: str | None = None,
    ) -> Fault:
        """An error with the compat protocol's body (``native``: DashScope's own)."""
        default, words = _USUAL.get(status, ("internal_error", "Something went wrong."))
        code, message = code or default, message or words
        error: Body = {"message": message, "type": type or code, "param": None, "code": code}
        body: Body = {"request_id": "fake", "code": code, "message": message} if native else {"error": error}
        if retry_after is not None:
            headers = (*headers, ("Retry-After", str(retry_after)))
        return cls("raw", status_code=status, body=orjson.dumps(body), headers=headers)

    @classmethod
    def raw(cls, status: int, body: bytes, *, content_type: str = "application/json", **headers: str) -> Fault:
        """Exactly these bytes. Header names are given with ``_`` for ``-``."""
        pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return cls("raw", status_code=status, body=body, content_type=content_type, headers=pairs)

    @classmethod
    def error_in_200(cls, code: str = "internal_error", message: str = "Try again.", *, native: bool = False) -> Fault:
        return replace(cls.status(500, code, message, native=native), status_code=200)

    @classmethod
    def moderation(cls) -> Fault:
        return cls.status(400, "data_inspection_failed", "Input data may contain inappropriate content.")

    @classmethod
    def html(cls, status: int = 200) -> Fault:
        page = b"<!DOCTYPE html><html><body><h1>It works</h1></body></html>"
        return cls.raw(status, page, content_type="text/html")

    @classmethod
    def reset(cls) -> Fault:
        """The connection is reset (RST) before a byte of the reply."""
        return cls("reset")

    @classmethod
    def closed(cls) -> Fault:
        """The connection is closed (FIN) before a byte of the reply."""
        return cls("closed")

    @classmethod
    def hang(cls) -> Fault:
        return cls("hang")

    @classmethod
    def drip(cls, seconds: float = 0.05, answer: str = "{}") -> Fault:
        """A good reply, one byte every ``seconds``."""
        return cls("drip", seconds=seconds, answer=answer)

    @classmethod
    def cut(cls, answer: str = '{"cut": "in the middle"}') -> Fault:
        """A good reply whose connection is closed half-way through the body."""
        return cls("cut", answer=answer)

    @classmethod
    def invalid_utf8(cls) -> Fault:
        return cls("invalid_utf8")

    @classmethod
    def truncated(cls, answer: str = '{"name": "ket') -> Fault:
        """The output limit was reached: half an answer and ``finish_reason`` length."""
        return cls("truncated", answer=answer)

    @classmethod
    def fenced(cls, answer: str = "{}") -> Fault:
        return cls("fenced", answer=answer)

    @classmethod
    def thinking_leaked(cls, answer: str = "{}") -> Fault:
        return cls("thinking_leaked", answer=answer)

    @classmethod
    def whitespace(cls) -> Fault:
        return cls("whitespace")

    @classmethod
    def wrong_types(cls, answer: str = "{}") -> Fault:
        """Every number and bool of the answer becomes a list, every other value a number."""
        return cls("wrong_types", answer=answer)

    @classmethod
    def refusal(cls) -> Fault:
        return cls("refusal", answer="I'm sorry, but I can't help with that request.")

    @classmethod
    def empty_choices(cls) -> Fault:
        return cls("empty_choices")

    @classmethod
    def null_content(cls) -> Fault:
        return cls("null_content")

    @classmethod
    def named(cls, name: str) -> Fault:
        """A fault by its name in ``FAULTS``."""
        return FAULTS[name]()


_USUAL = {
    400: ("invalid_parameter_error", "A parameter is not valid."),
    401: ("invalid_api_key", "Incorrect API key provided."),
    403: ("AccessDenied.Unpurchased", "Access denied."),
    404: ("model_not_found", "The model does not exist or you do not have access to it."),
    429: ("limit_requests", "You exceeded your current requests list."),
    500: ("internal_error", "An internal error has occurred, please try again later."),
    503: ("ServiceUnavailable", "The service is busy."),
}

FAULTS: dict[str, Callable[[], Fault]] = {
    **{str(status): partial(Fault.status, status) for status in (400, 401, 403, 404, 429, 500, 502, 503, 504)},
    "429-retry-after": lambda: Fault.status(429, retry_after=0.05),
    "quota": lambda: Fault.status(429, "insufficient_quota", "Allocated quota exceeded."),
    "reset": Fault.reset,
    "closed": Fault.closed,
    "hang": Fault.hang,
    "drip": Fault.drip,
    "cut": Fault.cut,
    "html": Fault.html,
    "error-in-200": Fault.error_in_200,
    "invalid-utf8": Fault.invalid_utf8,
    "truncated": Fault.truncated,
    "fenced": Fault.fenced,
    "thinking-leaked": Fault.thinking_leaked,
    "whitespace": Fault.whitespace,
    "wrong-types": Fault.wrong_types,
    "refusal": Fault.refusal,
    "moderation": Fault.moderation,
    "empty-choices": Fault.empty_choices,
    "null-content": Fault.null_content,
}
"""Every fault by name, for ``Faults``."""

_SPOILED = ("truncated", "fenced", "thinking_leaked", "wrong_types", "drip", "cut")

Answer = Callable[[Body], "str | Reply | Fault"]


class Faults:
    """A seeded mix of faults: ``mix`` maps names of ``FAULTS`` to their share of the requests.

    The draw depends on the seed, the request's messages and how often they were asked, not on the
    order of arrival: any concurrency meets the same faults. Faults that spoil a good answer (fences,
    truncation, wrong types, ...) spoil what ``then`` answers. ``seen`` counts what was drawn.
    """

    def __init__(self, seed: int, *, mix: Mapping[str, float], then: Answer) -> None:
        unknown = sorted(set(mix) - set(FAULTS))
        if unknown:
            raise ValueError(f"unknown faults {unknown}; known: {sorted(FAULTS)}")
        self._seed, self._mix, self._then = seed, dict(mix), then
        self._asked: Counter[bytes] = Counter()
        self.seen: Counter[str] = Counter()

    def __call__(self, body: Body) -> str | Reply | Fault:
        key = hashlib.blake2b(orjson.dumps(body["messages"]), digest_size=12).digest()
        draw = random.Random(f"{self._seed}/{key.hex()}/{self._asked[key]}").random()
        self._asked[key] += 1
        for name, share in self._mix.items():
            draw -= share
            if draw < 0:
                self.seen[name] += 1
                return self._spoil(Fault.named(name), body)
        self.seen["ok"] += 1
        return self._then(body)

    def _spoil(self, fault: Fault, body: Body) -> Fault:
        if fault.kind not in _SPOILED:
            return fault
        answer = self._then(body)
        text = answer if isinstance(answer, str) else answer.text if isinstance(answer, Reply) else None
        if text is None:
            return fault
        return replace(fault, answer=text[: len(text) * 2 // 3] if fault.kind == "truncated" else text)


@dataclass(slots=True)
class Rules:
    """What the service refuses with a 400, 401 or 404, as documented for the hosted API."""

    api_key: str | None = None
    """None: any key or none will do."""
    models: tuple[str, ...] | None = None
    """None: every name is known."""
    no_thinking_switch: tuple[str, ...] = ("qwen-max", "qwen2", "qwen3-coder", "qwen-long")
    """Names that start like this have no ``enable_thinking``."""
    max_input_chars: int | None = None
    schema_modes: bool = True
    """False: ``json_schema`` is refused, as by the older models."""

    def refusal(self, body: Any, headers: Mapping[str, str]) -> Fault | None:
        """The error that answers a request which breaks a rule, or None."""
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            return Fault.status(401, "invalid_api_key", "Incorrect API key provided.")
        bad = _bad_shape(body)
        if bad:
            return Fault.status(400, "invalid_parameter_error", bad)
        model = body["model"]
        if self.models is not None and model not in self.models:
            return Fault.status(404, "model_not_found", f"The model `{model}` does not exist.")
        words = " ".join(message["content"] for message in body["messages"])
        if self.max_input_chars is not None and len(words) > self.max_input_chars:
            return Fault.status(
                400,
                "invalid_parameter_error",
                f"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, {self.max_input_chars}]",
            )
        bad = self._bad_thinking(body, model) or self._bad_format(body, words)
        return Fault.status(400, "invalid_parameter_error", bad) if bad else None

    def _bad_thinking(self, body: Body, model: str) -> str | None:
        if "enable_thinking" not in body:
            return None
        if model.startswith(self.no_thinking_switch):
            return "InvalidParameter.NotSupportEnableThinking: the model does not support enable_thinking"
        if not isinstance(body["enable_thinking"], bool):
            return "enable_thinking must be a boolean"
        if "-thinking" in model and not body["enable_thinking"]:
            return "The value of the enable_thinking parameter is restricted to True."
        if body["enable_thinking"] and "response_format" in body:
            return "Json mode response is not supported when enable_thinking is true"
        if body["enable_thinking"] and isinstance(body.get("tool_choice"), dict):
            return (
                "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being "
                "set to required or object in thinking mode"
            )
        return None

    def _bad_format(self, body: Body, words: str) -> str | None:
        if body.get("tool_choice") == "required":
            return 'tool_choice is one of the strings that should be ["none", "auto"]'
        wanted = body.get("response_format")
        if wanted is None:
            return None
        kind = wanted.get("type")
        if kind == "json_object" and "json" not in words.lower():
            return (
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
            )
        if kind == "json_schema":
            if not self.schema_modes:
                return "'response_format' of type 'json_schema' is not supported by this model"
            inner = wanted.get("json_schema") or {}
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", inner.get("name", "")) or "schema" not in inner:
                return "response_format.json_schema needs a valid `name` and a `schema`"
            if '"uniqueItems"' in json.dumps(inner["schema"]):
                return "keyword uniqueItems, contains, minContains, maxContains is not supported"
        return None


def _bad_shape(body: Any) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return "model must be a string"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages must be a non-empty list"
    for message in messages:
        if message.get("role") not in ("system", "user", "assistant", "tool"):
            return "Role must be in [user, assistant]"
        if not isinstance(message.get("content"), str):
            return "input content must be a string"
    if messages[-1]["role"] not in ("user", "tool"):
        return "the last message must be of the user"
    if not 0 <= body.get("temperature", 0) < 2:
        return "'temperature' must be in [0.0, 2.0)"
    if "seed" in body and not (isinstance(body["seed"], int) and 0 <= body["seed"] < 2**31):
        return "Range of seed should be [0, 2147483647]"
    if "max_tokens" in body and not (isinstance(body["max_tokens"], int) and body["max_tokens"] >= 1):
        return "Range of max_tokens should be [1, 65536]"
    return None
