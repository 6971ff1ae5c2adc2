"""What went wrong below HTTP: from an exception of the network to a ``CallError`` in plain words."""

from __future__ import annotations

import aiohttp
import httpx

from extractors.qwen.requests import CallError, ErrorKind

NOT_SENT = "not_sent"
"""The code of errors before the request left: nothing can have been charged for it."""
CONNECT_SECONDS = 5.0


class Unfit(Exception):
    """A reply that is not taken, whatever it says."""


def connection_error(
    error: BaseException, *, target: httpx.URL, timeout: float, idle_timeout: float, model: str
) -> CallError:
    """The error of a call without a reply, by what lay below ``httpx``'s exception. Times are in seconds.

    ``httpx-aiohttp`` turns a reset connection into a connect time-out, so its cause is asked first."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
    where = f"{target.host}:{target.port or (443 if target.scheme == 'https' else 80)}"
    kind, code, words = ErrorKind.CONNECTION, None, f"the connection to {where} failed"
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        kind, code = ErrorKind.MODEL, NOT_SENT
        words = f"{where} cannot be trusted: its TLS certificate or protocol was refused"
    elif isinstance(cause, aiohttp.ConnectionTimeoutError):
        code, words = NOT_SENT, f"no connection to {where} within {CONNECT_SECONDS:g} seconds"
    elif isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        code, words = NOT_SENT, f"no connection to {where}"
    elif isinstance(cause, aiohttp.SocketTimeoutError):
        kind, words = ErrorKind.TIMED_OUT, f"not a byte from {where} for {idle_timeout:g} seconds"
    elif isinstance(cause, TimeoutError):
        kind, words = ErrorKind.TIMED_OUT, f"no whole reply from {where} within {timeout:g} seconds"
    elif isinstance(cause, aiohttp.ClientPayloadError | EOFError):
        words = f"the connection to {where} was cut off in the middle of the reply"
    elif isinstance(cause, aiohttp.ServerDisconnectedError):
        words = f"{where} closed the connection without a reply"
    elif isinstance(cause, ConnectionResetError | BrokenPipeError | aiohttp.ClientOSError):
        words = f"the connection to {where} was reset"
    elif isinstance(cause, Unfit):
        kind, words = ErrorKind.GARBLED, str(cause)
    elif isinstance(cause, aiohttp.ClientResponseError | ValueError):
        kind, words = ErrorKind.GARBLED, f"the reply of {where} is not HTTP"
    detail = "" if isinstance(cause, Unfit | TimeoutError | EOFError) else f" ({type(cause).__name__})"
    return CallError(kind, words + detail, model, code=code)
