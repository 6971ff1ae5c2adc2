"""A server that plays a stream piece by piece: bytes to send, pauses, and how the connection ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Step = bytes | float | Literal["cut", "reset", "hang"]
"""Bytes are one chunk of the body; a number is a pause in seconds; "cut" closes in the middle, "reset" resets,
"hang" waits until the client goes. A script that ends otherwise ends the body as it should."""


@dataclass
class Scripted:
    """What the server saw."""

    port: int = 0
    head: bytes = b""
    body: dict[str, Any] = field(default_factory=dict)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has closed the connection."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first piece is on its way."""
    sent: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@asynccontextmanager
async def playing(script: Sequence[Step], *, head: bytes = HEAD) -> AsyncIterator[Scripted]:
    """Answer every request with the script."""
    seen = Scripted()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.head = await reader.readuntil(b"\r\n\r\n")
            length = int(seen.head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            seen.body = orjson.loads(await reader.readexactly(length))
            writer.write(head)
            play = asyncio.create_task(_play(script, writer, seen))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait({play, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                seen.left.set()
            play.cancel()
            gone.cancel()
            await asyncio.gather(play, gone, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            seen.left.set()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        seen.port = server.sockets[0].getsockname()[1]
        yield seen


async def _play(script: Sequence[Step], writer: asyncio.StreamWriter, seen: Scripted) -> None:
    for step in script:
        if isinstance(step, bytes):
            writer.write(b"%x\r\n%b\r\n" % (len(step), step))
            await writer.drain()
            seen.sent += 1
            seen.begun.set()
        elif step == "hang":
            await asyncio.Event().wait()
        elif step == "cut":
            return
        elif step == "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            # Linger of zero seconds makes close() send RST instead of FIN.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        else:
            assert isinstance(step, float)
            await asyncio.sleep(step)
    writer.write(b"0\r\n\r\n")
    await asyncio.Event().wait()


def chat_frame(
    content: str = "", *, reason: str | None = None, timings: dict[str, int] | None = None, **delta: Any
) -> bytes:
    """One frame of a streamed chat completion; ``timings`` as llama.cpp has them."""
    told = {} if timings is None else {"timings": timings}
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": reason}
    return b"data: " + orjson.dumps({"model": "qwen-plus", "choices": [choice], "usage": None, **told}) + b"\n\n"


USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CHAT_USAGE = b"data: " + orjson.dumps({"choices": [], "usage": USAGE}) + b"\n\n"
DONE = b"data: [DONE]\n\n"
