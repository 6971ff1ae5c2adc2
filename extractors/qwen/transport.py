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
from dataclasses import replace
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr

from extractors.errors import JobError, KeyRejected
from extractors.qwen.chat import decode, encode
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile, is_loopback
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind

logger = logging.getLogger(__name__)

MAX_BODY = 16 * 1024 * 1024
CONNECT_SECONDS = 5.0
NOT_SENT = "not_sent"
"""The code of errors before the request left: nothing can have been charged for it."""


class HttpTransport:
    """A ``Call`` over HTTP, and an async context manager that owns the connections.

    ``base_url`` may be a bare host, an API root or the whole address of the chat endpoint. ``timeout`` is
    in seconds and bounds a call from end to end, however slowly its bytes drip. Replies past ``max_body``
    bytes are given up, redirects are not followed, and the environment's proxies are not used for
    loopback addresses. Raises ``JobError`` for an address, and ``KeyRejected`` for a key, that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr,
        pricing: Pricing,
        profile: Profile,
        timeout: float = 300.0,
        connections: int = 64,
        max_body: int = MAX_BODY,
    ) -> None:
        self.url = chat_url(base_url)
        self._target = httpx.URL(self.url)
        self._key = api_key
        self._pricing = pricing
        self._always = dict(profile.always)
        self._switch = profile.switch
        self._timeout = timeout
        self._connections = connections
        self._max_body = max_body
        self._extensions = {"timeout": {"connect": min(CONNECT_SECONDS, timeout)}}
        self._transport: AiohttpTransport | None = None
        self._headers = httpx.Headers(
            {
                "Content-Type": "application/json",
                "Accept": "application/json",
                # Replies are small, and an answer that is not compressed cannot be a bomb.
                "Accept-Encoding": "identity",
                "User-Agent": "quarry",
                "Host": self._target.netloc.decode("ascii"),
            }
        )
        secret = api_key.get_secret_value()
        if secret:
            if not (secret.isascii() and secret.isprintable()) or " " in secret:
                raise KeyRejected(
                    "the API key holds a space, a line break or a character outside of ASCII; "
                    "copy it again into DASHSCOPE_API_KEY"
                )
            self._headers["Authorization"] = f"Bearer {secret}"
            if self._target.scheme == "http" and not is_loopback(self.url):
                logger.warning("the API key travels unencrypted to %s; use https", self._target.host)

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
        body = encode(request, always=self._always, switch=self._switch)
        message = httpx.Request("POST", self._target, headers=self._headers, content=body, extensions=self._extensions)
        started_at, start = time.time(), time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(message)
                try:
                    raw = await self._read(response)
                finally:
                    await response.stream.aclose()  # type: ignore[union-attr]
        except TimeoutError as error:
            result: ChatReply | CallError = self._failed(error, request.model)
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError, _Unfit) as error:
            result = self._failed(error, request.model)
        else:
            result = self._decoded(response, raw, request.model)
        return replace(result, latency=time.perf_counter() - start, started_at=started_at)

    async def _read(self, response: httpx.Response) -> bytes:
        """The whole body, or ``_Unfit`` for one that is too long or packed in a way that was not asked for."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.stream:  # type: ignore[union-attr]
            size += len(chunk)
            if size > self._max_body:
                raise _Unfit(f"the reply is longer than {self._max_body:,} bytes")
            chunks.append(chunk)
        raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        packed = response.headers.get("content-encoding", "identity").strip().lower()
        if packed in ("identity", ""):
            return raw
        if packed not in ("gzip", "x-gzip", "deflate"):
            raise _Unfit(f"the reply is packed as {packed[:40]}, which was not asked for")
        unpacker = zlib.decompressobj(wbits=47)
        try:
            raw = unpacker.decompress(raw, self._max_body)
        except zlib.error as error:
            raise _Unfit(f"the reply cannot be unpacked ({error})") from error
        if unpacker.unconsumed_tail:
            raise _Unfit(f"the reply is longer than {self._max_body:,} bytes")
        return raw

    def _decoded(self, response: httpx.Response, raw: bytes, model: str) -> ChatReply | CallError:
        result = decode(response.status_code, response.headers, raw, model=model, pricing=self._pricing)
        secret = self._key.get_secret_value().encode()
        if secret and isinstance(result, CallError) and secret in raw:
            # Some services quote the key that they refuse.
            hidden = raw.replace(secret, b"[key]")
            result = decode(response.status_code, response.headers, hidden, model=model, pricing=self._pricing)
        return result

    def _failed(self, error: BaseException, model: str) -> CallError:
        """The error of a call without a reply, by what lay below ``httpx``'s exception.

        ``httpx-aiohttp`` turns a reset connection into a connect time-out, so its cause is asked first."""
        cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
        where = f"{self._target.host}:{self._target.port or (443 if self._target.scheme == 'https' else 80)}"
        kind, code, words = ErrorKind.CONNECTION, None, f"the connection to {where} failed"
        if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            kind, code = ErrorKind.MODEL, NOT_SENT
            words = f"{where} cannot be trusted: its TLS certificate or protocol was refused"
        elif isinstance(cause, aiohttp.ConnectionTimeoutError):
            code, words = NOT_SENT, f"no connection to {where} within {CONNECT_SECONDS:g} seconds"
        elif isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
            code, words = NOT_SENT, f"no connection to {where}"
        elif isinstance(cause, TimeoutError):
            kind, words = ErrorKind.TIMED_OUT, f"no whole reply from {where} within {self._timeout:g} seconds"
        elif isinstance(cause, aiohttp.ClientPayloadError):
            words = f"the connection to {where} was cut off in the middle of the reply"
        elif isinstance(cause, aiohttp.ServerDisconnectedError):
            words = f"{where} closed the connection without a reply"
        elif isinstance(cause, ConnectionResetError | BrokenPipeError | aiohttp.ClientOSError):
            words = f"the connection to {where} was reset"
        elif isinstance(cause, _Unfit):
            kind, words = ErrorKind.GARBLED, str(cause)
        elif isinstance(cause, aiohttp.ClientResponseError | ValueError):
            kind, words = ErrorKind.GARBLED, f"the reply of {where} is not HTTP"
        detail = "" if isinstance(cause, _Unfit | TimeoutError) else f" ({type(cause).__name__})"
        return CallError(kind, words + detail, model, code=code)


class _Unfit(Exception):
    """A reply that is not taken, whatever it says."""


def chat_url(base_url: str) -> str:
    """The chat endpoint's address from what a user gives: a bare host, ``.../v1``,
    ``.../compatible-mode/v1``, or the endpoint itself. Raises ``JobError``.

    >>> chat_url("dashscope-intl.aliyuncs.com")
    'https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions'
    >>> chat_url("127.0.0.1:8080/v1/")
    'http://127.0.0.1:8080/v1/chat/completions'
    """
    given = base_url.strip()
    if "//" not in given:
        given = ("http://" if is_loopback(given) else "https://") + given
    try:
        parts = urlsplit(given)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or "{" in given or any(c.isspace() for c in given):
        raise JobError(
            f"{_without_secrets(base_url)!r} is no address of an API; it looks like "
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1 or http://127.0.0.1:8080/v1"
        )
    if "@" in parts.netloc:
        raise JobError("an address with a name or password in it is refused; the key goes into DASHSCOPE_API_KEY")
    path = parts.path.rstrip("/")
    hosted = (parts.hostname or "").endswith(".aliyuncs.com")
    if not path.endswith("/chat/completions"):
        if hosted and path in ("", "/compatible-mode", "/api/v1", "/apps/anthropic"):
            path = "/compatible-mode/v1"
        elif not path:
            path = "/v1"
        path += "/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _without_secrets(url: str) -> str:
    """An address for a message: what stands before an ``@`` may be a password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('//')[0] + '//' if '//' in head else ''}...@{tail}" if at else url


def _proxy_for(url: httpx.URL) -> str | None:
    """The environment's proxy for an address, by the usual variables and their exceptions."""
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
