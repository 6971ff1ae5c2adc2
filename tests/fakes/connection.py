"""HTTP/1.1 with keep-alive, by hand: the server must cost next to nothing beside what it measures."""

from __future__ import annotations

import asyncio
import socket
import struct

from tests.fakes.canned import Canned
from tests.fakes.play import Plan
from tests.fakes.service import Service


class Connection(asyncio.Protocol):
    """One connection: one request at a time, in order."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service, self._loop = service, loop
        self._traffic = service.traffic
        self._buffer = b""
        self._wanted = 0
        """How much the buffer must hold before it is worth another look."""
        self._transport: asyncio.Transport
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._service.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._service.connections.discard(self)
        if self._busy:
            self._traffic.left_early += 1
            self._done()
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy and len(self._buffer) >= self._wanted:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._wanted = end + 4 + length
        if len(self._buffer) < self._wanted:
            return
        body = self._buffer[end + 4 : self._wanted]
        self._buffer = self._buffer[self._wanted :]
        self._wanted = 0
        self._busy = True
        traffic, service = self._traffic, self._service
        traffic.in_flight += 1
        if isinstance(service.answer, Canned) and head.startswith(b"POST "):
            traffic.count += 1
            if traffic.in_flight > traffic.most_in_flight:
                traffic.most_in_flight = traffic.in_flight
            reply = service.answer.reply(head, body)
            if service.latency:
                self._loop.call_later(service.latency, self._finish, reply)
            else:
                self._finish(reply)
            return
        if head.startswith(b"POST ") and traffic.in_flight > traffic.most_in_flight:
            traffic.most_in_flight = traffic.in_flight
        self._play(service.reply(head, body))

    def _play(self, plan: Plan) -> None:
        if len(plan.steps) == 1 and plan.end == "keep":
            wait, data = plan.steps[0]
            if wait:
                self._loop.call_later(wait, self._finish, data)
            else:
                self._finish(data)
        elif plan.steps:
            self._task = self._loop.create_task(self._step(plan))
        else:
            self._end(plan)

    async def _step(self, plan: Plan) -> None:
        for wait, data in plan.steps:
            if wait:
                await asyncio.sleep(wait)
            self._transport.write(data)
        self._end(plan)

    def _end(self, plan: Plan) -> None:
        if plan.end == "keep":
            self._finish(b"")
        elif plan.end == "reset":
            # Linger of zero seconds makes close() send RST instead of FIN.
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._free()
            self._transport.abort()
        elif plan.end == "close":
            self._free()
            self._transport.close()

    def _finish(self, data: bytes) -> None:
        if not self._busy:
            return
        self._done()
        if data:
            self._transport.write(data)
        if self._buffer:
            self._next()

    def _free(self) -> None:
        """The request ends here by our own doing: it does not count as left by the client."""
        if self._busy:
            self._done()

    def _done(self) -> None:
        self._busy = False
        self._traffic.in_flight -= 1
