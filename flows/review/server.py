"""The page's server: loopback only, a token in its address, no write that another site's page could make."""

from __future__ import annotations

import asyncio
import functools
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from extractors.errors import QuarryError
from extractors.review import acts
from extractors.review.queue import Queue
from extractors.store.reviews import Action, Decision

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "": ("index.html", "text/html"),
    "review.js": ("review.js", "text/javascript"),
    "review.css": ("review.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MARK = "X-Quarry-Review"
"""Every write carries this header. A page of another site cannot send it without asking first, and the answer is no."""
_DECISIONS: Mapping[str, Action] = {"ignore": "ignored", "confirm": "confirmed", "reopen": "reopened"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Options:
    """``golden`` is where promoted records go; ``models`` are offered for asking again; ``base_url`` is their
    address where it is not the job's."""

    golden: Path
    models: Sequence[str] = ()
    base_url: str | None = None


class ReviewServer:
    """Serves some queues. Use ``start`` and ``stop`` in one event loop; ``address`` is then the page's."""

    def __init__(self, queues: Sequence[Queue], options: Options) -> None:
        self._queues = {f"{one.name}/{one.recipe}": one for one in queues}
        self._options = options
        self._token = secrets.token_urlsafe(24)
        # One thing at a time: an output has one writer.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="quarry-review")
        self._runner: web.AppRunner | None = None
        self._hosts: frozenset[str] = frozenset()
        self.address = ""

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; port 0 is any free one. Raises ``OSError``."""
        app = web.Application(middlewares=[self._guarded], client_max_size=16 << 20)
        app.add_routes(
            [
                web.get("/{token}/api/start", self._start_page),
                web.get("/{token}/api/queue", self._list),
                web.get("/{token}/api/record", self._record),
                web.post("/{token}/api/{act}", self._act),
                web.get("/{token}/{file:.*}", self._file),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        bound = self._runner.addresses[0][1]
        self._hosts = frozenset({f"127.0.0.1:{bound}", f"localhost:{bound}"})
        self.address = f"http://127.0.0.1:{bound}/{self._token}/"

    async def stop(self) -> None:
        """Finish what is under way, and close."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._worker.shutdown()
        for one in self._queues.values():
            one.close()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        token = request.match_info.get("token", "")
        # Another name for this address would be a page of somebody else's that was made to point here.
        if request.host not in self._hosts or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise web.HTTPNotFound(headers=_HEADERS)
        if request.method not in ("GET", "HEAD") and not self._own(request):
            raise web.HTTPForbidden(headers=_HEADERS, text="only the review page itself may write")
        try:
            response = await handler(request)
        except acts.InvalidValues as error:
            response = _json({"error": str(error), "problems": error.problems}, status=422)
        except QuarryError as error:
            response = _json({"error": str(error)}, status=409)
        response.headers.update(_HEADERS)
        return response

    def _own(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return (
            request.headers.get(_MARK) == "1"
            and request.content_type == "application/json"
            and (origin is None or origin.removeprefix("http://") in self._hosts)
            and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = _FILES.get(request.match_info["file"])
        if found is None:
            raise web.HTTPNotFound(headers=_HEADERS)
        name, kind = found
        return web.Response(body=(_PAGE / name).read_bytes(), content_type=kind, charset="utf-8")

    async def _start_page(self, _: web.Request) -> web.StreamResponse:
        queues = [
            {
                "key": key,
                "name": one.name,
                "recipe": one.recipe,
                "schema": one.schema,
                "model": one.document.get("model"),
            }
            for key, one in self._queues.items()
        ]
        return _json({"queues": queues, "models": list(self._options.models), "golden": str(self._options.golden)})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        queue = self._queue(request.query.get("queue", ""))
        return _json({"entries": [asdict(one) for one in await self._do(queue.entries)]})

    async def _record(self, request: web.Request) -> web.StreamResponse:
        target = _target(request.query)
        queue = self._queue(request.query.get("queue", ""))
        return _json(await self._do(queue.record, target.kind, target.record_id, target.occurrence))

    async def _act(self, request: web.Request) -> web.StreamResponse:
        try:
            told = orjson.loads(await request.read())
            queue, target, note = self._queue(told["queue"]), _target(told), str(told.get("note") or "")
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(headers=_HEADERS, text=f"not a decision: {error}") from error
        act = request.match_info["act"]
        if act == "accept":
            return _json({"value": await self._do(acts.accept, queue, target, told.get("value") or {}, note=note)})
        if act == "retry":
            changes = {"base_url": self._options.base_url} if self._options.base_url else None
            model = told.get("model") or None
            report = await self._do(acts.retry, queue, target, model=model, changes=changes)
            return _json({"rows": report.rows, "failures": report.failures, "reasons": report.failures_by_reason})
        if act == "promote":
            await self._do(acts.promote, queue, target, self._options.golden)
            return _json({"golden": str(self._options.golden)})
        if act in _DECISIONS:
            await self._do(acts.decide, queue, target, _DECISIONS[act], note=note)
            return _json({})
        raise web.HTTPNotFound(headers=_HEADERS)

    def _queue(self, key: str) -> Queue:
        if key not in self._queues:
            raise web.HTTPNotFound(headers=_HEADERS)
        return self._queues[key]

    async def _do(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, functools.partial(work, *arguments, **options))


def _target(told: Mapping[str, Any]) -> acts.Target:
    kind = told["kind"]
    if kind not in ("failure", "row"):
        raise ValueError(f"kind {kind!r}")
    return acts.Target(kind, str(told["record_id"]), int(told["occurrence"]), int(told.get("sequence") or 0))


def _json(document: Any, *, status: int = 200) -> web.Response:
    body = orjson.dumps(document, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal | timedelta | date | datetime | time):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Decision):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
