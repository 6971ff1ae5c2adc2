"""One HTTP request per call: no retry, no limit, no budget; those wrap it with the same signature.

It speaks to ``httpx``'s aiohttp transport directly. An ``httpx.AsyncClient`` above it merges headers,
cookies, auth, redirects and hooks for each call, which is the larger half of its cost, and none of them
is wanted here.
"""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.request
import zlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr

from extractors.errors import KeyRejected
from extractors.qwen.connection_errors import CONNECT_SECONDS, NOT_SENT, Unfit, connection_error
from extractors.qwen.dialects import CHAT, EVENT_STREAM, Dialect
from extractors.qwen.hiding import HiddenKey
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile, is_loopback
from extractors.qwen.requests import CallError, ChatReply, ChatRequest
from extractors.qwen.sse import SseParser, events_in
from extractors.qwen.streaming import StreamChoice, most_usage, wants_stream
from extractors.qwen.streams import StreamReader
from schemas.usage import Usage

__all__ = ["NOT_SENT", "HttpTransport"]

logger = logging.getLogger(__name__)

MAX_BODY = 16 * 1024 * 1024
STREAM_FRAMING = 16
"""How much longer a streamed reply may be than a whole one: every token has a frame around it."""
_CHATTER = 200
"""Characters after the answer's end that show that the model goes on talking."""
_TROUBLE = (TimeoutError, httpx.HTTPError, aiohttp.ClientError, OSError, ValueError, Unfit)


class HttpTransport:
    """A ``Call`` over HTTP in one dialect, and an async context manager that owns the connections.

    ``base_url`` may be a bare host, an API root or the whole address of an endpoint. ``timeout`` is
    in seconds and bounds a call from end to end, however slowly its bytes drip. Replies past ``max_body``
    bytes are given up, redirects are not followed, and the environment's proxies are not used for
    loopback addresses. Raises ``JobError`` for an address, and ``KeyRejected`` for a key, that cannot be used.

    ``stream`` says when replies are streamed (``wants_stream``). A stream is given up after ``idle_timeout`` seconds
    without a byte, one of the embedded model after ``timeout``. It is closed at once when it goes in circles, and
    ``grace`` seconds after its JSON value is whole: its usage usually comes within them; if not, the reply carries a
    bound in its place.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr,
        pricing: Pricing,
        profile: Profile,
        dialect: Dialect = CHAT,
        stream: StreamChoice = "auto",
        timeout: float = 300.0,
        idle_timeout: float = 60.0,
        grace: float = 2.0,
        connections: int = 64,
        max_body: int = MAX_BODY,
    ) -> None:
        self.url = dialect.url(base_url)
        self._target = httpx.URL(self.url)
        self._key = HiddenKey(api_key)
        self._pricing = pricing
        self._profile = profile
        self._dialect = dialect
        self._stream: StreamChoice = stream
        self._timeout = timeout
        # Before its first token the embedded model reads the whole prompt, and says nothing meanwhile.
        self._idle_timeout = timeout if profile.embedded else min(idle_timeout, timeout)
        self._grace = grace
        self._connections = connections
        self._max_body = max_body
        self._transport: AiohttpTransport | None = None
        common = {
            "Content-Type": "application/json",
            # Replies are small, and an answer that is not compressed cannot be a bomb.
            "Accept-Encoding": "identity",
            "User-Agent": "quarry",
            "Host": self._target.netloc.decode("ascii"),
        }
        secret = api_key.get_secret_value()
        if secret:
            if not (secret.isascii() and secret.isprintable()) or " " in secret:
                raise KeyRejected(
                    "the API key holds a space, a line break or a character outside of ASCII; "
                    "copy it again into DASHSCOPE_API_KEY"
                )
            common["Authorization"] = f"Bearer {secret}"
            if self._target.scheme == "http" and not is_loopback(self.url):
                logger.warning("the API key travels unencrypted to %s; use https", self._target.host)
        connect = min(CONNECT_SECONDS, timeout)
        self._plain = (
            httpx.Headers({**common, **dialect.headers(stream=False)}),
            {"timeout": {"connect": connect}},
        )
        # The embedded server closes a connection behind every stream without a word before it, and who takes it from the pool
        # at that moment is reset: none goes back there.
        ending = {"Connection": "close"} if profile.embedded else {}
        self._streamed = (
            httpx.Headers({**common, **dialect.headers(stream=True), **ending}),
            {"timeout": {"connect": connect, "read": self._idle_timeout}},
        )

    def __repr__(self) -> str:
        return f"HttpTransport({self.url!r})"

    async def __aenter__(self) -> Self:
        proxy = None if is_loopback(self.url) else _proxy_for(self._target)
        self._transport = AiohttpTransport(
            limits=httpx.Limits(max_connections=self._connections, keepalive_expiry=30.0),
            proxy=httpx.Proxy(proxy) if proxy else None,
        )
        self._transport.client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=30.0,
                ssl=self._transport.ssl_context,
            ),
            # A cookie would tie records together, and the jar costs time.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask once. Never raises for what the other side does; only ``CancelledError`` passes."""
        if self._transport is None:
            raise RuntimeError("HttpTransport is used inside `async with`")
        stream = wants_stream(request, self._profile, choice=self._stream)
        body = self._dialect.encode(request, profile=self._profile, stream=stream)
        headers, extensions = self._streamed if stream else self._plain
        message = httpx.Request("POST", self._target, headers=headers, content=body, extensions=extensions)
        started_at, start = time.time(), time.perf_counter()
        if stream:
            result = await self._listen(self._transport, message, request, body)
        else:
            result = await self._ask(self._transport, message, request)
        return replace(result, latency=time.perf_counter() - start, started_at=started_at)

    async def _ask(
        self, transport: AiohttpTransport, message: httpx.Request, request: ChatRequest
    ) -> ChatReply | CallError:
        """The whole reply at once."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await transport.handle_async_request(message)
                try:
                    raw = await self._read(response)
                finally:
                    await response.stream.aclose()  # type: ignore[union-attr]
        except _TROUBLE as error:
            return self._failed(error, request.model)
        return self._decoded(response, raw, request)

    async def _listen(
        self, transport: AiohttpTransport, message: httpx.Request, request: ChatRequest, sent: bytes
    ) -> ChatReply | CallError:
        """The reply as it is written. Leaving early closes the connection, so that no more is made."""
        reader = self._dialect.reader(
            model=request.model,
            pricing=self._pricing,
            tools=bool(request.tools),
            record=request.record,
        )
        trouble: BaseException | None = None
        headers: Mapping[str, str] = {}
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                response = await transport.handle_async_request(message)
                try:
                    headers = response.headers
                    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
                    if response.status_code != 200 or kind != EVENT_STREAM:
                        # An error, maybe in a frame of its own, or a server that does not stream.
                        raw = await self._read(response)
                        framed = events_in(raw) if kind == EVENT_STREAM else []
                        return self._decoded(response, framed[-1].data if framed else raw, request)
                    if not await self._follow(response, reader, deadline):
                        trouble = EOFError()
                finally:
                    await response.stream.aclose()  # type: ignore[union-attr]
        except _TROUBLE as error:
            trouble = error
        return self._heard(reader, headers, trouble, request, sent)

    async def _follow(self, response: httpx.Response, reader: StreamReader, deadline: asyncio.Timeout) -> bool:
        """Read events until there is nothing more to wait for; False when the stream ended before its answer."""
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Unfit("the stream is packed, which was not asked for")
        parser = SseParser()
        size, hurried = 0, False
        async with aclosing(response.stream.__aiter__()) as chunks:  # type: ignore[union-attr, type-var]
            async for chunk in chunks:
                size += len(chunk)
                for event in parser.feed(chunk):
                    hide = self._key.is_plain_in(event.data)
                    reader.feed(replace(event, data=self._key.out_of(event.data)) if hide else event)
                if size > self._max_body * STREAM_FRAMING or parser.held > self._max_body:
                    raise Unfit(f"the reply is longer than {self._max_body:,} bytes")
                if reader.error is not None or reader.looping or reader.json.extra > _CHATTER:
                    return True
                if not hurried and (reader.ended or reader.json.complete):
                    # The usage comes right behind the answer, if it comes.
                    hurried = True
                    soonest = asyncio.get_running_loop().time() + self._grace
                    deadline.reschedule(min(deadline.when() or soonest, soonest))
        for event in parser.close():
            reader.feed(event)
        return reader.ended or bool(reader.reason) or reader.json.complete or reader.error is not None

    def _heard(
        self,
        reader: StreamReader,
        headers: Mapping[str, str],
        trouble: BaseException | None,
        request: ChatRequest,
        sent: bytes,
    ) -> ChatReply | CallError:
        """What a stream came to."""
        if reader.looping and reader.error is None:
            logger.info("%s: the answer went in circles, the stream was closed", request.model)
            return self._stopped(reader, "loop", request, sent)
        if reader.ended or reader.reason or reader.error is not None:
            result = reader.result(headers=headers)
            if isinstance(result, CallError):
                # What was made before the error may be charged, and nobody says so.
                begun = bool(reader.text or reader.thinking)
                return replace(self._key.out_of_error(result), begun=begun)
            if isinstance(result, ChatReply) and reader.told is None:
                return replace(result, usage=self._bound(reader, request, sent), usage_estimated=True)
            return result
        if reader.json.complete:
            return self._stopped(reader, "stop", request, sent)
        if reader.worth_keeping:
            return self._stopped(reader, "cut", request, sent)
        error = self._failed(trouble or EOFError(), request.model)
        return replace(error, body="".join(reader.text)[:2000])

    def _stopped(self, reader: StreamReader, reason: str, request: ChatRequest, sent: bytes) -> ChatReply:
        """The reply of a stream that was not heard to its end. The embedded server counts along, and makes no more
        tokens once nobody listens; what any other cost is a bound."""
        if self._profile.embedded and reader.told is not None:
            return replace(reader.stopped(reason, usage=reader.usage), usage_estimated=False)
        return reader.stopped(reason, usage=self._bound(reader, request, sent))

    def _bound(self, reader: StreamReader, request: ChatRequest, sent: bytes) -> Usage:
        return most_usage(request, sent, reader, self._pricing)

    def _failed(self, error: BaseException, model: str) -> CallError:
        return connection_error(
            error, target=self._target, timeout=self._timeout, idle_timeout=self._idle_timeout, model=model
        )

    async def _read(self, response: httpx.Response) -> bytes:
        """The whole body, or ``Unfit`` for one that is too long or packed in a way that was not asked for."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.stream:  # type: ignore[union-attr]
            size += len(chunk)
            if size > self._max_body:
                raise Unfit(f"the reply is longer than {self._max_body:,} bytes")
            chunks.append(chunk)
        raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        packed = response.headers.get("content-encoding", "identity").strip().lower()
        if packed in ("identity", ""):
            return raw
        if packed not in ("gzip", "x-gzip", "deflate"):
            raise Unfit(f"the reply is packed as {packed[:40]}, which was not asked for")
        unpacker = zlib.decompressobj(wbits=47)
        try:
            raw = unpacker.decompress(raw, self._max_body)
        except zlib.error as error:
            raise Unfit(f"the reply cannot be unpacked ({error})") from error
        if unpacker.unconsumed_tail:
            raise Unfit(f"the reply is longer than {self._max_body:,} bytes")
        return raw

    def _decoded(self, response: httpx.Response, raw: bytes, request: ChatRequest) -> ChatReply | CallError:
        model, tools = request.model, bool(request.tools)
        decode = self._dialect.decode
        result = decode(response.status_code, response.headers, raw, model=model, pricing=self._pricing, tools=tools)
        if isinstance(result, CallError) and self._key.is_in(raw):
            hidden = self._key.out_of(raw)
            result = decode(response.status_code, response.headers, hidden, model=model, pricing=self._pricing)
        return self._key.out_of_error(result) if isinstance(result, CallError) else result


def _proxy_for(url: httpx.URL) -> str | None:
    """The environment's proxy for an address, by the usual variables and their exceptions."""
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
