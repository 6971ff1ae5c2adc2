"""A model that answers at once, or after a fixed time: an HTTP server on loopback in a process of its own.

It finds the record's values in the request by one regular expression and answers with them as
JSON, so that evidence has something to find. Raw asyncio: the server must cost less than what is measured.
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
            reply = _reply(body)
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, self._send, reply)
            else:
                self._send(reply)

    def _send(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


def _reply(body: bytes) -> bytes:
    match = _VALUES.search(body, max(0, body.rfind(b"=== RECORD")))
    content = b"{}"
    if match is not None:
        content = (
            b'{\\"name\\":\\"%b\\",\\"code\\":\\"%b\\",\\"price\\":%b,\\"city\\":\\"%b\\",\\"since\\":\\"%b\\"}'
            % match.group("name", "code", "price", "city", "since")
        )
    answer = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"fake","choices":[{"index":0,"finish_reason":"stop",'
        b'"message":{"role":"assistant","content":"%b"}}],"usage":{"prompt_tokens":300,"completion_tokens":40,"total_tokens":340}}'
        % content
    )
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)


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
