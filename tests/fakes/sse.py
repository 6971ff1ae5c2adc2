"""Server-sent events and chunked bodies, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

DONE = b"data: [DONE]\n\n"
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


def http(
    status: int, body: bytes, headers: Sequence[tuple[str, str]] = (), content_type: str = "application/json"
) -> bytes:
    """A whole reply with its length."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'X')}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode("latin-1") + body


def stream_head(headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The head of a stream of events."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\nCache-Control: no-cache\r\n"
        f"Transfer-Encoding: chunked\r\n{extra}\r\n"
    ).encode("latin-1")


STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole_stream(events: Iterable[bytes], headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A stream as one piece of bytes, each event in a chunk of its own."""
    return stream_head(headers) + b"".join(map(chunk, events)) + STREAM_END
