"""Every way in which a fake Qwen can go wrong, in any dialect, streamed or not."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.fakes.asked import Body, key
from tests.fakes.spelling import USUAL
from tests.fakes.told import Reply

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong. Make it with the class methods; ``Fault.named("429")`` takes a name of ``FAULTS``."""

    kind: str
    status_code: int = 200
    body: bytes = b""
    headers: Headers = ()
    content_type: str = "application/json"
    seconds: float = 0.0
    answer: str = "{}"
    code: str = ""
    message: str = ""
    type: str | None = None
    native: bool | None = None

    @classmethod
    def status(
        cls,
        status: int,
        code: str | None = None,
        message: str = "",
        *,
        retry_after: float | str | None = None,
        headers: Headers = (),
        native: bool | None = None,
        type: str | None = None,
    ) -> Fault:
        """An error in the shape and spelling of the request's dialect (``native`` asks for one of them)."""
        default, words = USUAL.get(status, ("internal_error", "Something went wrong."))
        if retry_after is not None:
            headers = (*headers, ("Retry-After", str(retry_after)))
        return cls(
            "error",
            status_code=status,
            headers=headers,
            code=code or default,
            message=message or words,
            type=type,
            native=native,
        )

    @classmethod
    def framed(cls, status: int, code: str | None = None, message: str = "") -> Fault:
        """The same as the only event of a stream, under the error's own status, where a stream was asked for."""
        return replace(cls.status(status, code, message), kind="framed")

    @classmethod
    def raw(cls, status: int, body: bytes, *, content_type: str = "application/json", **headers: str) -> Fault:
        """Exactly these bytes. Header names are given with ``_`` for ``-``."""
        pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return cls("raw", status_code=status, body=body, content_type=content_type, headers=pairs)

    @classmethod
    def error_in_200(
        cls, code: str = "internal_error", message: str = "Try again.", *, native: bool | None = None
    ) -> Fault:
        """An error's body under status 200; in a stream, its first event."""
        return replace(cls.status(500, code, message, native=native), status_code=200)

    @classmethod
    def error_in_stream(cls, code: str = "internal_error", message: str = "Try again.", answer: str = "{}") -> Fault:
        """Half of a good stream, then an error's event; not streamed, an error's body under status 200."""
        return replace(cls.error_in_200(code, message), kind="error_in_stream", answer=answer)

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
        """A good reply, one byte every ``seconds``; in a stream, one event."""
        return cls("drip", seconds=seconds, answer=answer)

    @classmethod
    def cut(cls, answer: str = '{"cut": "in the middle"}') -> Fault:
        """A good reply whose connection is closed half-way through the body or the stream."""
        return cls("cut", answer=answer)

    @classmethod
    def stall(cls, answer: str = '{"stalled": "in the middle"}') -> Fault:
        """Half of a good reply or stream, then nothing, with the connection open."""
        return cls("stall", answer=answer)

    @classmethod
    def partial(cls, answer: str = '{"name": "ket') -> Fault:
        """What was made before the service's own time-out, marked by a header; a stream is cut instead."""
        return cls("partial", answer=answer, headers=(("x-dashscope-partialresponse", "true"),))

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
        """Blanks and newlines without end, up to the output limit."""
        return cls("whitespace")

    @classmethod
    def repetition(cls) -> Fault:
        """The same words without end, up to the output limit."""
        return cls("repetition")

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


_LIMITED: dict[str, tuple[int, str, str]] = {
    "429": (429, "limit_requests", "You exceeded your current requests list."),
    "429-burst": (429, "limit_burst_rate", "Request rate increased too quickly."),
    "429-overloaded": (429, "Throttling.ServiceOverloaded", "Too many requests are waiting."),
    "quota": (429, "insufficient_quota", "Allocated quota exceeded."),
}
"""The kinds of 429 that pass."""

FAULTS: dict[str, Callable[[], Fault]] = {
    **{str(status): partial(Fault.status, status) for status in (400, 401, 403, 404, 500, 502, 503, 504)},
    **{name: partial(Fault.status, *given) for name, given in _LIMITED.items()},
    **{f"{name}-retry-after": partial(Fault.status, *given, retry_after=0.05) for name, given in _LIMITED.items()},
    "overdue": lambda: Fault.status(429, "PostpaidBillOverdue", "The postpaid bill is overdue."),
    "arrears": lambda: Fault.status(400, "Arrearage", "Access denied, your account is not in good standing."),
    "429-framed": lambda: Fault.framed(429),
    "reset": Fault.reset,
    "closed": Fault.closed,
    "hang": Fault.hang,
    "drip": Fault.drip,
    "cut": Fault.cut,
    "stall": Fault.stall,
    "partial": Fault.partial,
    "html": Fault.html,
    "error-in-200": Fault.error_in_200,
    "error-in-stream": Fault.error_in_stream,
    "invalid-utf8": Fault.invalid_utf8,
    "truncated": Fault.truncated,
    "fenced": Fault.fenced,
    "thinking-leaked": Fault.thinking_leaked,
    "whitespace": Fault.whitespace,
    "repetition": Fault.repetition,
    "wrong-types": Fault.wrong_types,
    "refusal": Fault.refusal,
    "moderation": Fault.moderation,
    "empty-choices": Fault.empty_choices,
    "null-content": Fault.null_content,
}
"""Every fault by name, for ``Faults``."""

_SPOILED = (
    "truncated",
    "fenced",
    "thinking_leaked",
    "wrong_types",
    "drip",
    "cut",
    "stall",
    "partial",
    "error_in_stream",
)
_SHORTENED = ("truncated", "partial")

Answer = Callable[[Any], "str | Reply | Fault"]


class Faults:
    """A seeded mix of faults: ``mix`` maps names of ``FAULTS`` to their share of the requests.

    The draw depends on the seed, the request's messages and how often they were asked, not on the
    order of arrival or the dialect: any concurrency meets the same faults. Faults that spoil a good answer
    (fences, truncation, wrong types, ...) spoil what ``then`` answers. ``seen`` counts what was drawn.
    """

    def __init__(self, seed: int, *, mix: Mapping[str, float], then: Answer) -> None:
        unknown = sorted(set(mix) - set(FAULTS))
        if unknown:
            raise ValueError(f"unknown faults {unknown}; known: {sorted(FAULTS)}")
        self._seed, self._mix, self._then = seed, dict(mix), then
        self._asked: Counter[bytes] = Counter()
        self.seen: Counter[str] = Counter()

    def __call__(self, body: Body) -> str | Reply | Fault:
        mark = hashlib.blake2b(key(body), digest_size=12).digest()
        draw = random.Random(f"{self._seed}/{mark.hex()}/{self._asked[mark]}").random()
        self._asked[mark] += 1
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
        return replace(fault, answer=text[: len(text) * 2 // 3] if fault.kind in _SHORTENED else text)
