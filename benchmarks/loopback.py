"""A model that answers at once, or after a fixed time: an HTTP server on loopback in a process of its own.

It finds the record's values in the request by one regular expression and answers with them as
JSON, so that evidence has something to find, in the dialect that the path is of, streamed (four characters an
event, about a token) where that is asked for. Raw asyncio: the server must cost less than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_VALUES = re.compile(
    rb"Article (?P<name>[A-Za-z]+ \d+) \((?P<code>[A-Z]{2}-\d+)\) costs (?P<price>[\d.]+) EUR in (?P<city>[A-Za-z]+), sold since (?P<since>\d{4}-\d\d-\d\d)"
)
_PIECE = 4
_SPREAD_SECONDS = 0.002
"""Between two events of a stream whose address ends in ``?spread``: each then comes in a packet of its own."""
_MARK = b"\x00"
"""Where one event ends, on the way from ``_stream`` to the socket."""
_CHAT = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"fake","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"%b"}}],"usage":{"prompt_tokens":300,"completion_tokens":40,"total_tokens":340}}'
)
_CHAT_EVENT = (
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,'
    b'"delta":{"content":"%b"},"finish_reason":null,"logprobs":null}],"usage":null}\n\n'
)
_CHAT_LAST = (
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}],"usage":null}\n\n'
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"fake","choices":[],'
    b'"usage":{"prompt_tokens":300,"completion_tokens":40,"total_tokens":340}}\n\n'
)
_RESPONSE = (
    b'{"id":"x","object":"response","created_at":1,"status":"completed","model":"fake","output":[{"id":"m",'
    b'"type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"%b",'
    b'"annotations":[]}]}],"usage":{"input_tokens":300,"output_tokens":40,"total_tokens":340}}'
)
_RESPONSE_EVENT = (
    b"event:response.output_text.delta\n"
    b'data:{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"%b"}\n\n'
)
_RESPONSE_LAST = b'event:response.completed\ndata:{"type":"response.completed","response":%b}\n\n'
_NATIVE = (
    b'{"request_id":"x","output":{"choices":[{"finish_reason":"%b","message":{"role":"assistant","content":"%b"}}]},'
    b'"usage":{"input_tokens":300,"output_tokens":40,"total_tokens":340}}'
)
_NATIVE_EVENT = b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + _NATIVE.replace(b"%b", b"null", 1) + b"\n\n"
_NATIVE_LAST = b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + _NATIVE % (b"stop", b"") + b"\n\n"
_WORDS = ("kettle", "lamp", "basket", "mirror", "carpet", "shovel", "bucket", "ladder")
_CITIES = ("Lyon", "Porto", "Graz", "Turku", "Leeds", "Ghent")


def record_text(number: int, *, length: int = 300) -> str:
    """The text of one record, distinct for each number, about ``length`` characters."""
    word, city = _WORDS[number % 8], _CITIES[number % 6]
    text = (
        f"Article {word.title()} {number} (AB-{number:07}) costs {number % 900 + 1}.{number % 90 + 10} EUR in {city}, "
        f"sold since 20{number % 20 + 10}-{number % 12 + 1:02}-{number % 28 + 1:02}. "
    )
    filler = "It is made by hand from good wood and shipped within three days to most places. "
    return (text + filler * (length // len(filler) + 1))[:length]


class _Server(asyncio.Protocol):
    latency = 0.0

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            body, self._buffer = rest[:size], rest[size:]
            reply = _reply(head, body)
            loop = asyncio.get_running_loop()
            if b"?spread " in head:
                pieces = reply.split(_MARK)
                for number, piece in enumerate(pieces):
                    loop.call_later(_SPREAD_SECONDS * number, self._send, piece)
            elif self.latency:
                loop.call_later(self.latency, self._send, reply.replace(_MARK, b""))
            else:
                self._send(reply.replace(_MARK, b""))

    def _send(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


def _values(body: bytes) -> bytes:
    """The answer's JSON."""
    match = _VALUES.search(body, max(0, body.rfind(b"=== RECORD")))
    if match is None:
        return b"{}"
    return b'{"name":"%b","code":"%b","price":%b,"city":"%b","since":"%b"}' % match.group(
        "name", "code", "price", "city", "since"
    )


def chat_answer(body: bytes) -> bytes:
    """The reply to a chat request."""
    return _CHAT % _quoted(_values(body))


def _reply(head: bytes, body: bytes) -> bytes:
    content = _values(body)
    path = head.split(b" ", 2)[1].partition(b"?")[0]
    if path.endswith(b"/chat/completions"):
        if b'"stream":true' in body:
            return _stream(_CHAT_EVENT, content, (_CHAT_LAST, b"data: [DONE]\n\n"))
        answer = _CHAT % _quoted(content)
    elif path.endswith(b"/responses"):
        if b'"stream":true' in body:
            return _stream(_RESPONSE_EVENT, content, (_RESPONSE_LAST % (_RESPONSE % _quoted(content)),))
        answer = _RESPONSE % _quoted(content)
    elif b"x-dashscope-sse: enable" in head.lower():
        return _stream(_NATIVE_EVENT, content, (_NATIVE_LAST,))
    else:
        answer = _NATIVE % (b"stop", _quoted(content))
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)


def _stream(event: bytes, content: bytes, last: tuple[bytes, ...]) -> bytes:
    events = [event % _quoted(content[at : at + _PIECE]) for at in range(0, len(content), _PIECE)]
    chunks = b"".join(b"%x\r\n%b\r\n%b" % (len(one), one, _MARK) for one in (*events, *last))
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks
    )


def _quoted(text: bytes) -> bytes:
    return text.replace(b'"', b'\\"')


async def _serve(latency: float) -> None:
    _Server.latency = latency
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def running(*, latency: float = 0.0) -> Iterator[str]:
    """Start the server in its own process; gives the base URL, ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loopback", "--latency", str(latency)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args().latency))
