"""From an answer or a fault to the bytes of a reply, and when each of them is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import orjson

from tests.fakes import chat_shapes, native_shapes, responses_shapes
from tests.fakes.asked import Asked, Body, Dialect
from tests.fakes.faults import Fault
from tests.fakes.spelling import native_code
from tests.fakes.sse import STREAM_END, chunk, http, stream_head, whole_stream
from tests.fakes.told import Reply, Told, tell


class Shapes(Protocol):
    """What each dialect's module gives."""

    def whole(self, told: Told, asked: Asked) -> Body: ...
    def events(self, told: Told, asked: Asked, *, size: int) -> Iterator[bytes]: ...
    def error(self, code: str, message: str, kind: str | None) -> Body: ...
    def error_event(self, status: int, body: Body, *, number: int) -> Iterator[bytes]: ...


SHAPES: dict[Dialect, Shapes] = {
    "chat": chat_shapes,
    "responses": responses_shapes,
    "text": native_shapes,
    "multimodal": native_shapes,
}


End = Literal["keep", "close", "reset", "hang"]
_NOTHING: dict[str, End] = {"reset": "reset", "hang": "hang", "closed": "close"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a connection writes: pieces, each after a wait in seconds, and how it ends."""

    steps: Sequence[tuple[float, bytes]]
    end: End = "keep"


def answer(asked: Asked, told: Told, reply: Reply, *, latency: float = 0.0, size: int) -> Plan:
    """A good reply."""
    shapes = SHAPES[asked.dialect]
    wait = latency + reply.delay
    if not asked.stream:
        return Plan([(wait, http(200, orjson.dumps(shapes.whole(told, asked)), reply.headers))])
    events = shapes.events(told, asked, size=size)
    if not reply.pace:
        return Plan([(wait, whole_stream(events, reply.headers))])
    paced = [(reply.pace, chunk(event)) for event in events]
    return Plan([(wait, stream_head(reply.headers)), *paced, (0.0, STREAM_END)])


def misbehave(asked: Asked, fault: Fault, *, latency: float = 0.0, size: int) -> Plan:
    """A reply with a fault in it."""
    if fault.kind == "raw":
        return Plan([(latency, http(fault.status_code, fault.body, fault.headers, fault.content_type))])
    if fault.kind in ("error", "framed"):
        return Plan([(latency, _error(asked, fault))])
    if fault.kind in _NOTHING:
        return Plan([], _NOTHING[fault.kind])
    if fault.kind == "error_in_stream" and not asked.stream:
        return Plan([(latency, _error(asked, fault))])
    if fault.kind in ("drip", "cut", "stall", "error_in_stream") or (fault.kind == "partial" and asked.stream):
        return _broken_off(asked, fault, latency=latency, size=size)
    if fault.kind == "invalid_utf8":
        told = tell(asked, Reply("@@@"))
        plan = answer(asked, told, Reply("@@@"), latency=latency, size=max(size, 3))
        # As many bytes as before, since the chunks' lengths are written already.
        return replace(plan, steps=[(wait, data.replace(b"@@@", b"\xff\xfe\xe9")) for wait, data in plan.steps])
    reply = Reply(None) if fault.kind == "null_content" else _odd(fault)
    told = tell(asked, reply)
    if fault.kind == "empty_choices":
        told = replace(told, choices=False)
    return answer(asked, told, reply, latency=latency, size=size)


def error_body(asked: Asked, fault: Fault) -> Body:
    """An error in the dialect's own shape and spelling."""
    native = asked.native if fault.native is None else fault.native
    code = native_code(fault.code) if native else fault.code
    shapes: Shapes = native_shapes if native else chat_shapes
    return shapes.error(code, fault.message, fault.type)


def _error(asked: Asked, fault: Fault) -> bytes:
    body = error_body(asked, fault)
    framed = asked.stream and (fault.kind == "framed" or fault.status_code == 200)
    if not framed:
        return http(fault.status_code, orjson.dumps(body), fault.headers, fault.content_type)
    status = 500 if fault.status_code == 200 else fault.status_code
    event = b"".join(SHAPES[asked.dialect].error_event(status, body, number=0))
    if fault.status_code == 200:
        return whole_stream([event], fault.headers)
    return http(fault.status_code, event, fault.headers, "text/event-stream;charset=utf-8")


def _broken_off(asked: Asked, fault: Fault, *, latency: float, size: int) -> Plan:
    """A good reply that comes slowly, or half of one."""
    told = tell(asked, Reply(fault.answer))
    shapes = SHAPES[asked.dialect]
    if asked.stream:
        head, *pieces = [stream_head(), *map(chunk, shapes.events(told, asked, size=size))]
        pieces = pieces if fault.kind == "drip" else pieces[: (len(pieces) + 1) // 2]
    else:
        reply = http(200, orjson.dumps(shapes.whole(told, asked)))
        at = reply.index(b"\r\n\r\n") + 4
        if fault.kind == "drip":
            head, pieces = b"", [reply[one : one + 1] for one in range(len(reply))]
        else:
            head, pieces = reply[:at], [reply[at : at + (len(reply) - at) // 2]]
    if fault.kind == "drip":
        tail = [(0.0, STREAM_END)] if asked.stream else []
        return Plan([(latency, head), *((fault.seconds, piece) for piece in pieces), *tail])
    if fault.kind == "error_in_stream":
        pieces += [chunk(one) for one in shapes.error_event(500, error_body(asked, fault), number=len(pieces))]
        return Plan([(latency, head + b"".join(pieces) + STREAM_END)])
    # A moment before the connection is closed, so that the half is read first.
    end: End = "hang" if fault.kind == "stall" else "close"
    return Plan([(latency, head + b"".join(pieces)), (0.005, b"")], end)


def _odd(fault: Fault) -> Reply:
    text, reason = fault.answer, "stop"
    if fault.kind == "truncated":
        reason = "length"
    elif fault.kind == "fenced":
        text = f"Here is the JSON:\n```json\n{text}\n```\n"
    elif fault.kind == "thinking_leaked":
        text = f'<think>\nMaybe {{"a": "draft"}}? No.\n</think>\n\n{text}'
    elif fault.kind == "whitespace":
        text, reason = '{"' + " \n" * 500, "length"
    elif fault.kind == "repetition":
        text, reason = '{"name": "' + "the kettle and " * 400, "length"
    elif fault.kind == "wrong_types":
        text = _mistyped(text)
    return Reply(text, reason, headers=fault.headers)


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
