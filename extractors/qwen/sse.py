"""Server-sent events out of bytes that come in pieces: the parser of the HTML standard, and DashScope's habits.

The standard: lines end with LF, CR or CRLF; a line that starts with a colon is a comment; several ``data`` lines
are joined with LF; an empty line ends an event; a byte order mark at the start is skipped. DashScope adds the
HTTP status of an error, as a ``status:`` line or as the comment ``:HTTP_STATUS/400``.
"""

from __future__ import annotations

from dataclasses import dataclass

_MARK = b"\xef\xbb\xbf"
_HTTP_STATUS = b"HTTP_STATUS/"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its joined data, as it came. ``name`` is "" for the unnamed, ``status`` None where none was told."""

    data: bytes
    name: str = ""
    status: int | None = None


class SseParser:
    """``feed`` it bytes, cut anywhere; it gives the events that are whole. ``close`` gives the one that the
    stream ended in: the standard would drop it, but services forget the last empty line."""

    __slots__ = ("_after_cr", "_data", "_name", "_rest", "_started", "_status")

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._started = False
        self._data: list[bytes] = []
        self._name = ""
        self._status: int | None = None

    @property
    def held(self) -> int:
        """Bytes that wait for the end of their event."""
        return len(self._rest) + sum(map(len, self._data))

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if self._after_cr and chunk:
            # The CR has ended its line already; the LF of a CRLF cut in two ends nothing.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not self._started:
            self._rest += chunk
            if len(self._rest) < len(_MARK) and _MARK.startswith(self._rest):
                return []
            chunk, self._rest = self._rest.removeprefix(_MARK), b""
            self._started = True
        if not chunk:
            return []
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest += chunk
            return []
        whole = self._rest + chunk
        lines = whole.splitlines()
        if whole.endswith((b"\n", b"\r")):
            self._rest = b""
            self._after_cr = whole.endswith(b"\r")
        else:
            self._rest = lines.pop()
        events: list[Event] = []
        for line in lines:
            if not line:
                if (event := self._take()) is not None:
                    events.append(event)
            else:
                self._read(line)
        return events

    def close(self) -> list[Event]:
        """The event that was not ended, if there is one."""
        if self._rest:
            self._read(self._rest.removeprefix(_MARK) if not self._started else self._rest)
            self._rest = b""
        event = self._take()
        return [] if event is None else [event]

    def _read(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"status" or (not field and colon and value.startswith(_HTTP_STATUS)):
            told = value.removeprefix(_HTTP_STATUS)
            if len(told) == 3 and told.isdigit():
                self._status = int(told)

    def _take(self) -> Event | None:
        data, name, status = self._data, self._name, self._status
        self._data, self._name, self._status = [], "", None
        if not data:
            return None
        return Event(data[0] if len(data) == 1 else b"\n".join(data), name, status)


def events_in(body: bytes) -> list[Event]:
    """The events of a stream that is there as a whole."""
    parser = SseParser()
    return [*parser.feed(body), *parser.close()]
