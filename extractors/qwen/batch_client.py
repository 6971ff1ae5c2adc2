"""The files and batches API over HTTP: one request a method, no retry.

The lane makes a request a minute for hours, so this client is plain and synchronous; uploads are read from disk
and downloads written to it as they come.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from pydantic import SecretStr

from extractors.errors import KeyRejected
from extractors.qwen import chat
from extractors.qwen.addresses import Route, endpoint_url
from extractors.qwen.batch import BatchObject, FileObject, read_batch, read_file
from extractors.qwen.hiding import HiddenKey
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import is_loopback
from extractors.qwen.requests import CallError, ErrorKind
from extractors.store import files

_T = TypeVar("_T")
_PAGE = 100
_MOST_PAGES = 100


class BatchTrouble(Exception):
    """A request that did not succeed. ``unclear``: the service may have done what it was asked."""

    def __init__(self, error: CallError, *, unclear: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.unclear = unclear


class BatchClient:
    """A context manager that owns the connections. Every method may raise ``BatchTrouble``.

    ``timeout`` (seconds) is how long a connection may be silent. Raises ``JobError`` for an address and
    ``KeyRejected`` for a key that cannot be used."""

    def __init__(self, base_url: str, *, api_key: SecretStr, timeout: float = 120.0) -> None:
        parts = urlsplit(endpoint_url(base_url, Route.CHAT))
        self.root = urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix(Route.CHAT), "", ""))
        secret = api_key.get_secret_value()
        if secret and (not (secret.isascii() and secret.isprintable()) or " " in secret):
            raise KeyRejected("the API key holds a space, a line break or a character outside of ASCII")
        self._key = HiddenKey(api_key)
        headers = {"User-Agent": "quarry", "Accept-Encoding": "identity"}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        self._http = httpx.Client(
            base_url=self.root,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(10.0, timeout)),
            trust_env=not is_loopback(self.root),
        )

    def __repr__(self) -> str:
        return f"BatchClient({self.root!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def upload(self, path: Path, *, name: str) -> FileObject:
        """Send a request file under ``name``."""
        with path.open("rb") as file:
            data = self._json(
                "POST", "/files", data={"purpose": "batch"}, files={"file": (name, file, "application/jsonl")}
            )
        return self._read(read_file, data)

    def files(self) -> Iterator[FileObject]:
        """The account's batch files, page by page."""
        yield from (self._read(read_file, row) for row in self._pages("/files", {"purpose": "batch"}))

    def delete(self, file_id: str) -> None:
        """Delete a file; one that is gone is no trouble."""
        try:
            self._json("DELETE", f"/files/{file_id}")
        except BatchTrouble as trouble:
            if trouble.error.http_status not in (400, 404):
                raise

    def create(self, file_id: str, *, endpoint: str, window: str, metadata: Mapping[str, str]) -> BatchObject:
        """Start a batch."""
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": window,
            "metadata": dict(metadata),
        }
        return self._read(read_batch, self._json("POST", "/batches", json=body))

    def retrieve(self, batch_id: str) -> BatchObject:
        """Where a batch stands."""
        return self._read(read_batch, self._json("GET", f"/batches/{batch_id}"))

    def batches(self, **filters: str) -> Iterator[BatchObject]:
        """The account's batches of the last 30 days, newest first, page by page."""
        yield from (self._read(read_batch, row) for row in self._pages("/batches", filters))

    def cancel(self, batch_id: str) -> BatchObject:
        """Ask for a batch to be stopped; what is done of it is kept and billed."""
        return self._read(read_batch, self._json("POST", f"/batches/{batch_id}/cancel"))

    def download(self, file_id: str, path: Path) -> None:
        """Write a file's content to ``path``: whole and durable, or not at all. May raise ``OutputError``."""
        temp = files.temporary(path)
        try:
            with self._http.stream("GET", f"/files/{file_id}/content") as response:
                if response.status_code != 200:
                    raise self._refused(response, response.read())
                expected = response.headers.get("content-length")
                size = 0
                with temp.open("wb") as file:
                    for piece in response.iter_bytes(1 << 20):
                        file.write(piece)
                        size += len(piece)
                    file.flush()
                    os.fsync(file.fileno())
            if expected is not None and size != int(expected):
                raise self._broken(f"{size:,} bytes came of {expected}")
            files.rename(temp, path)
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        except OSError as error:
            raise files.explained(error, path) from error
        finally:
            files.remove(temp)

    def _pages(self, path: str, filters: Mapping[str, str]) -> Iterator[Any]:
        after: str | None = None
        for _ in range(_MOST_PAGES):
            query = {**filters, "limit": str(_PAGE), **({"after": after} if after else {})}
            page = self._json("GET", path, params=query)
            rows = page.get("data") or []
            yield from rows
            if not page.get("has_more") or not rows:
                return
            after = str(rows[-1]["id"])

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        if response.status_code != 200:
            raise self._refused(response, response.content)
        try:
            data = response.json()
        except ValueError as error:
            raise self._broken("the reply is not JSON") from error
        if not isinstance(data, dict):
            raise self._broken("the reply is no JSON object")
        if "error" in data and "id" not in data:
            raise self._refused(response, response.content)
        return data

    def _read(self, reader: Callable[[Any], _T], data: Any) -> _T:
        try:
            return reader(data)
        except ValueError as error:
            raise self._broken(str(error)) from error

    def _refused(self, response: httpx.Response, body: bytes) -> BatchTrouble:
        hidden = self._key.out_of(body)
        error = chat.decode(response.status_code, response.headers, hidden, model="", pricing=Pricing.free())
        assert isinstance(error, CallError)
        return BatchTrouble(error, unclear=response.status_code >= 500)

    def _broken(self, words: str) -> BatchTrouble:
        return BatchTrouble(CallError(ErrorKind.GARBLED, f"{self.root}: {words}", ""), unclear=True)

    def _lost(self, error: httpx.HTTPError) -> BatchTrouble:
        kind = ErrorKind.TIMED_OUT if isinstance(error, httpx.TimeoutException) else ErrorKind.CONNECTION
        sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        words = f"no whole reply from {self.root}" if sent else f"no connection to {self.root}"
        return BatchTrouble(CallError(kind, f"{words} ({type(error).__name__})", ""), unclear=sent)
