"""What the fake service does with one HTTP request: find the page, check the rules, answer."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from tests.fakes import chat_shapes
from tests.fakes.asked import PATHS, Asked, Body, Dialect, read
from tests.fakes.batches import Batches
from tests.fakes.cache import PromptCache
from tests.fakes.canned import Canned
from tests.fakes.embeddings import Embeddings
from tests.fakes.faults import Answer, Fault
from tests.fakes.files import Files
from tests.fakes.limits import Limits
from tests.fakes.play import Plan, answer, misbehave
from tests.fakes.rules import Rules
from tests.fakes.sse import http
from tests.fakes.told import Reply, tell
from tests.fakes.traffic import Traffic

_EMBEDDINGS = ("/embeddings", "/services/embeddings/text-embedding/text-embedding")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. ``at`` is in seconds of ``time.monotonic``; header names are lower-case."""

    at: float
    path: str
    headers: dict[str, str]
    body: Body
    asked: Asked | None = None
    """The same in chat's words, whatever the dialect."""


@dataclass(slots=True)
class Service:
    """What the connections of one server share. Only the server's thread writes to it."""

    answer: Answer | Canned
    latency: float = 0.0
    rules: Rules | None = None
    limits: Limits | None = None
    cache: PromptCache | None = None
    keep: bool = True
    piece: int = 16
    """Characters in each delta of a stream."""
    traffic: Traffic = field(default_factory=Traffic)
    requests: list[Seen] = field(default_factory=list)
    dialects: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    files: Files = field(default_factory=Files)
    embeddings: Embeddings = field(default_factory=Embeddings)
    batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        self.batches = Batches(self.files, self._batch_line)

    def reply(self, head: bytes, raw: bytes) -> Plan:
        """The reply to one request. Never raises."""
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        path, _, query = target.partition("?")
        try:
            if method == "POST":
                for ending, dialect in PATHS.items():
                    if path.endswith(ending):
                        return self._generate(dialect, path, headers, raw)
            page = self._page(method, unquote(path), parse_qs(query), headers, raw)
            wait = self.latency if path.endswith((*_EMBEDDINGS, "/reranks")) else 0.0
            return Plan([(wait, page)]) if page is not None else Plan([], "close")
        except Exception as error:  # noqa: BLE001
            # A broken answer function must fail the test that wrote it, not hang it.
            self.errors.append(repr(error))
            broken = {"error": {"message": f"the fake broke: {error!r}", "code": "fake"}}
            return Plan([(0.0, http(500, orjson.dumps(broken)))])

    def stats(self) -> Body:
        """The counts of this server, as ``GET /stats`` shows them."""
        traffic = self.traffic
        return {
            "count": traffic.count,
            "most_in_flight": traffic.most_in_flight,
            "left_early": traffic.left_early,
            "highest_rate": traffic.highest_rate(),
            "dialects": dict(self.dialects),
        }

    def _generate(self, dialect: Dialect, path: str, headers: dict[str, str], raw: bytes) -> Plan:
        now = time.monotonic()
        self.traffic.count += 1
        self.traffic.arrivals.append(now)
        self.dialects[dialect] += 1
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            asked = read(dialect, {}, headers)
            return self._fault(
                asked, Fault.status(400, "invalid_request_error", "We could not parse the JSON body."), 0.0
            )
        asked = read(dialect, body, headers)
        if self.keep:
            self.requests.append(Seen(now, path, headers, body, asked))
        broken = self.rules.refusal(asked, headers) if self.rules is not None else None
        if broken is None and self.limits is not None:
            broken = self.limits.refusal(asked, now, self.traffic.in_flight)
        if broken is not None:
            return self._fault(asked, broken, 0.0)
        assert callable(self.answer)
        said: Any = self.answer(asked)
        if isinstance(said, Fault):
            return self._fault(asked, said, self.latency)
        reply = Reply(said) if isinstance(said, str) else said
        hit, made = self.cache.use(asked, now) if self.cache is not None else (0, 0)
        told = tell(asked, reply, cached=hit, created=made)
        return answer(asked, told, reply, latency=self.latency, size=self.piece)

    def _batch_line(self, body: Body) -> tuple[int, Body]:
        """One line of a batch: status and body of its reply. It takes nothing of the limits of live requests."""
        asked = read("chat", body, {})
        said: Any = self.rules.refusal(asked, {"authorization": f"Bearer {self.rules.api_key}"}) if self.rules else None
        if said is None:
            assert callable(self.answer)
            said = self.answer(asked)
        if isinstance(said, Fault):
            return said.status_code, _compat_error(said.code or "internal_error", said.message)
        reply = Reply(said) if isinstance(said, str) else said
        return 200, chat_shapes.whole(tell(asked, reply), asked)

    def _fault(self, asked: Asked, fault: Fault, latency: float) -> Plan:
        return misbehave(asked, fault, latency=latency, size=self.piece)

    def _page(
        self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], raw: bytes
    ) -> bytes | None:
        """The whole reply; None: none, the connection is closed."""
        if self.rules is not None and not path.endswith(("/stats", "/health")):
            locked = self.rules.bad_key(headers)
            if locked is not None:
                return http(locked.status_code, orjson.dumps(_compat_error(locked.code, locked.message)))
        if method == "POST" and path.endswith(_EMBEDDINGS):
            self.dialects["embeddings"] += 1
            return self.embeddings.reply(raw, native=path.endswith(_EMBEDDINGS[1]))
        if method == "POST" and path.endswith("/reranks"):
            self.dialects["reranks"] += 1
            return self.embeddings.rerank(raw)
        if "/files" in path:
            self.dialects["files"] += 1
            return self.files.reply(method, path, query, headers, raw)
        if "/batches" in path:
            self.dialects["batches"] += 1
            return self.batches.reply(method, path, query, raw)
        if method == "GET" and path.endswith("/stats"):
            return http(200, orjson.dumps(self.stats()))
        if method == "GET" and path.endswith("/models"):
            models = (self.rules.models if self.rules is not None else None) or ("qwen-plus",)
            rows = [{"id": name, "object": "model", "created": 1760000000, "owned_by": "system"} for name in models]
            return http(200, orjson.dumps({"object": "list", "data": rows}))
        if method == "GET" and path.endswith("/health"):
            return http(200, b'{"status":"ok"}')
        return http(404, orjson.dumps(_compat_error("NotFound", "no such page")))


def _compat_error(code: str, message: str) -> Body:
    return {"error": {"message": message, "type": code, "param": None, "code": code}, "request_id": "fake"}
