"""A Qwen-like service on loopback: a real HTTP server that answers, fails and misbehaves on demand.

::

    with FakeQwen(lambda body: '{"name": "kettle"}') as qwen:
        ...ask qwen.base_url...
        assert qwen.count == 1
        assert qwen.requests[0].body["model"] == "qwen-plus"

    # Every third request is refused once with a 429, the rest is answered; the same seed, the same faults.
    with FakeQwen(Faults(7, mix={"429": 0.2, "reset": 0.1}, then=lambda body: "{}")) as qwen: ...

    # A list is a script: one entry a request, the last one for ever.
    with FakeQwen([Fault.status(503), Fault.reset(), '{"a": 1}']) as qwen: ...

As a process of its own, for benchmarks and kill tests (``GET /stats`` gives its counts)::

    python -m tests.fakes.qwen --port-file /tmp/port --answer '{"a":1}' --latency 0.5
    python -m tests.fakes.qwen --port-file /tmp/port --answer tests.fakes.answers:thing_answer
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from tests.fakes.faults import FAULTS, Answer, Body, Fault, Faults, Reply, Rules

__all__ = ["FAULTS", "FakeQwen", "Fault", "Faults", "Reply", "Rules", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. ``at`` is in seconds of ``time.monotonic``; header names are lower-case."""

    at: float
    path: str
    headers: dict[str, str]
    body: Body


@dataclass(slots=True)
class _State:
    """What the connections of one server share. Only the server's thread writes to it."""

    answer: Answer | bytes
    latency: float
    rules: Rules | None
    keep: bool
    requests: list[Seen] = field(default_factory=list)
    count: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    connections: set[_Connection] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, by hand: the server must cost next to nothing beside what it measures."""

    def __init__(self, state: _State, loop: asyncio.AbstractEventLoop) -> None:
        self._state, self._loop = state, loop
        self._buffer = b""
        self._transport: asyncio.Transport
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._state.connections.discard(self)
        if self._busy:
            self._done()
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        self._busy = True
        state = self._state
        if head.startswith(b"GET "):
            state.in_flight += 1
            self._send(*self._get(head))
            return
        state.count += 1
        state.in_flight += 1
        if state.in_flight > state.most_in_flight:
            state.most_in_flight = state.in_flight
        if isinstance(state.answer, bytes):
            self._later(state.latency, state.answer)
            return
        try:
            self._answer(head, body)
        except Exception as error:  # noqa: BLE001
            # A broken answer function must fail the test that wrote it, not hang it.
            state.errors.append(repr(error))
            self._send(500, orjson.dumps({"error": {"message": f"the fake broke: {error!r}", "code": "fake"}}))

    def _get(self, head: bytes) -> tuple[int, bytes]:
        path = head.split(b" ", 2)[1]
        if path == b"/stats":
            state = self._state
            return 200, orjson.dumps({"count": state.count, "most_in_flight": state.most_in_flight})
        if path.endswith(b"/models"):
            return 200, b'{"object":"list","data":[{"id":"qwen-plus","object":"model"}]}'
        return (200, b'{"status":"ok"}') if path == b"/health" else (404, b'{"error":{"message":"no such page"}}')

    def _answer(self, head: bytes, raw: bytes) -> None:
        state = self._state
        lines = head.decode("latin-1").split("\r\n")
        path = lines[0].split(" ")[1]
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        if not path.endswith("/chat/completions"):
            self._send(404, b'{"error":{"message":"no such page","code":"NotFound"}}')
            return
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._play(Fault.status(400, "invalid_request_error", "We could not parse the JSON body."), {})
            return
        if state.keep:
            state.requests.append(Seen(time.monotonic(), path, headers, body))
        broken = state.rules.refusal(body, headers) if state.rules is not None else None
        assert callable(state.answer)
        answer = broken or state.answer(body)
        if isinstance(answer, str):
            answer = Reply(answer)
        if isinstance(answer, Reply):
            self._later(state.latency + answer.delay, _http(200, _completion(body, answer), answer.headers))
        else:
            self._play(answer, body)

    def _later(self, delay: float, reply: bytes) -> None:
        if delay:
            self._loop.call_later(delay, self._write, reply)
        else:
            self._write(reply)

    def _send(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._write(_http(status, body, headers))

    def _write(self, reply: bytes) -> None:
        if not self._busy:
            return
        self._done()
        self._transport.write(reply)
        if self._buffer:
            self._next()

    def _done(self) -> None:
        self._busy = False
        self._state.in_flight -= 1

    def _play(self, fault: Fault, body: Body) -> None:
        if fault.kind == "raw":
            reply = _http(fault.status_code, fault.body, fault.headers, fault.content_type)
            self._later(self._state.latency, reply)
        elif fault.kind == "reset":
            # Linger of zero seconds makes close() send RST instead of FIN.
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif fault.kind == "closed":
            self._transport.close()
        elif fault.kind == "hang":
            return
        elif fault.kind in ("drip", "cut"):
            reply = _http(200, _completion(body, Reply(fault.answer)))
            task = self._loop.create_task(self._drip(reply, fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._later(self._state.latency, _http(200, _odd_reply(fault, body)))

    async def _drip(self, reply: bytes, fault: Fault) -> None:
        if fault.kind == "cut":
            head = reply.index(b"\r\n\r\n") + 4
            self._transport.write(reply[: head + (len(reply) - head) // 2])
            await asyncio.sleep(0.005)
            self._transport.close()
            return
        for at in range(len(reply) - 1):
            self._transport.write(reply[at : at + 1])
            await asyncio.sleep(fault.seconds)
        self._write(reply[-1:])


def _odd_reply(fault: Fault, body: Body) -> bytes:
    if fault.kind == "invalid_utf8":
        return _completion(body, Reply("@@@")).replace(b"@@@", b"\xff\xfe caf\xe9")
    if fault.kind == "empty_choices":
        whole = orjson.loads(_completion(body, Reply("")))
        return orjson.dumps({**whole, "choices": []})
    if fault.kind == "null_content":
        return _completion(body, Reply(None))
    text, reason = fault.answer, "stop"
    if fault.kind == "truncated":
        reason = "length"
    elif fault.kind == "fenced":
        text = f"Here is the JSON:\n```json\n{text}\n```\n"
    elif fault.kind == "thinking_leaked":
        text = f'<think>\nMaybe {{"a": "draft"}}? No.\n</think>\n\n{text}'
    elif fault.kind == "whitespace":
        text, reason = '{"' + " \n" * 500, "length"
    elif fault.kind == "wrong_types":
        text = _mistyped(text)
    return _completion(body, Reply(text, reason))


def _mistyped(text: str) -> str:
    def spoil(value: Any) -> Any:
        return [str(value)] if isinstance(value, bool | int | float) else 17

    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "17"
    if not isinstance(data, dict):
        return "17"
    return orjson.dumps({key: spoil(value) for key, value in data.items()}).decode()


def _completion(body: Body, reply: Reply) -> bytes:
    """The body of a chat completion; the answer is a tool call where the request forces a tool."""
    tools = body.get("tools")
    message: Body = {"role": "assistant", "content": reply.text}
    if reply.thinking is not None:
        message["reasoning_content"] = reply.thinking
    reason = reply.finish_reason
    if tools and reply.text is not None:
        call = {"name": tools[0]["function"]["name"], "arguments": reply.text}
        message["content"] = ""
        message["tool_calls"] = [{"id": "call_0", "type": "function", "index": 0, "function": call}]
        reason = "tool_calls" if reason == "stop" else reason
    whole: Body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1760000000,
        "model": reply.model or body.get("model", "fake"),
        "choices": [{"index": 0, "finish_reason": reason, "logprobs": None, "message": message}],
    }
    if reply.usage:
        asked = sum(len(m["content"]) for m in body.get("messages", ())) // 4 + 8
        fresh, made, cached, thought = reply.tokens or (asked, len(reply.text or "") // 4 + 1, 0, 0)
        whole["usage"] = {
            "prompt_tokens": fresh,
            "completion_tokens": made,
            "total_tokens": fresh + made,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
    return orjson.dumps(whole)


def _http(
    status: int, body: bytes, headers: Sequence[tuple[str, str]] = (), content_type: str = "application/json"
) -> bytes:
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode("latin-1") + body


class FakeQwen:
    """The server, in a thread of its own, on a free loopback port. A context manager.

    ``answer`` is called in the server's thread with each request's parsed body and gives the answer's
    text, a ``Reply`` or a ``Fault``. A list is played in order, its last entry for ever. A plain string
    answers everything. ``latency`` (seconds) delays every reply. ``rules=None`` switches the documented
    refusals off. ``keep=False`` keeps no request bodies (for millions of them).
    """

    def __init__(
        self,
        answer: Answer | str | Reply | Fault | Sequence[str | Reply | Fault] = "{}",
        *,
        latency: float = 0.0,
        rules: Rules | None = Rules(),  # noqa: B008 -- never changed
        keep: bool = True,
        port: int = 0,
    ) -> None:
        self._state = _State(_as_function(answer), latency, rules, keep)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fake-qwen", daemon=True)
        self._ready = threading.Event()
        self.port = port

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible root, as a user would give it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Seen]:
        """Every chat request so far, in order of arrival."""
        return list(self._state.requests)

    @property
    def count(self) -> int:
        """How many chat requests arrived."""
        return self._state.count

    @property
    def most_in_flight(self) -> int:
        """The largest number of requests that were open at the same time."""
        return self._state.most_in_flight

    @property
    def errors(self) -> list[str]:
        """What went wrong inside the answer function."""
        return list(self._state.errors)

    def answer_with(self, answer: Answer | str | Reply | Fault | Sequence[str | Reply | Fault]) -> None:
        """Answer differently from now on."""
        self._state.answer = _as_function(answer)

    def forget(self) -> None:
        """Set the counts and the kept requests back to nothing."""
        self._state.requests.clear()
        self._state.count = self._state.most_in_flight = 0

    def start(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the fake server did not start")
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(_listen(self._state, self._loop, self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for connection in list(self._state.connections):
                connection._transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.run_until_complete(server.wait_closed())
            self._loop.close()


async def _listen(state: _State, loop: asyncio.AbstractEventLoop, port: int) -> asyncio.Server:
    return await loop.create_server(lambda: _Connection(state, loop), "127.0.0.1", port, backlog=1024)


def _as_function(answer: Answer | str | Reply | Fault | Sequence[str | Reply | Fault]) -> Answer:
    if callable(answer):
        return answer
    if isinstance(answer, str | Reply | Fault):
        only = answer
        return lambda body: only
    script = list(answer)
    if not script:
        raise ValueError("an empty list of answers")
    return lambda body: script.pop(0) if len(script) > 1 else script[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Serve in this process until it is ended."""
    parser = argparse.ArgumentParser(description="A Qwen-like chat server on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument("--answer", default="{}", help="the answer's text, or `module:function` of the parsed body")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each reply")
    given = parser.parse_args(argv)
    answer: Answer | bytes
    if re.fullmatch(r"[\w.]+:\w+", given.answer):
        module, _, name = given.answer.partition(":")
        answer = getattr(importlib.import_module(module), name)
    else:
        # The same bytes for everyone: nothing is parsed, nothing is built.
        tokens = (100, len(given.answer) // 4 + 1, 0, 0)
        answer = _http(200, _completion({}, Reply(given.answer, tokens=tokens)))
    state = _State(answer, given.latency, None, keep=False)

    async def serve() -> None:
        server = await _listen(state, asyncio.get_running_loop(), given.port)
        port = server.sockets[0].getsockname()[1]
        if given.port_file is not None:
            # Renamed into place, so that who waits for the file never reads half of it.
            part = given.port_file.with_suffix(".part")
            part.write_text(str(port))
            part.rename(given.port_file)
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
