"""Writes the one example that is far too long: the log pasted into ticket T-2013 of ``tickets.jsonl``.

The file is kept with the record in it; this script only says where the record comes from, and a test holds the two
together. Run it again after a change: ``python examples/data/make_long.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

TICKET_ID = "T-2013"
LENGTH = 120_000
"""Code points of the message: some 60,000 tokens, about twice what the embedded models read."""

_FILE = Path(__file__).with_name("tickets.jsonl")
_GREETING = "Hi, sync stops every night. You asked for the log, here is all of it:\n\n"
_EVENTS = (
    "sync.worker INFO started job={number} shard={small}",
    "sync.worker WARN slow upload file=archive-{number}.bin took={number} ms",
    "http.client INFO PUT https://files.example.net/v2/blocks/{number} -> 200 in {small} ms",
    "http.client ERROR PUT https://files.example.net/v2/blocks/{number} -> 503, retry in {small} s",
    "db.pool DEBUG connections busy={small} idle={small} wait={number} us",
    "cache INFO evicted {number} entries, kept {small} %",
)


def long_message() -> str:
    """The message, exactly ``LENGTH`` code points, the same on every machine."""
    lines = [_GREETING]
    length = len(_GREETING)
    state = 2013
    second = 0
    while length < LENGTH:
        # A linear congruential generator (Numerical Recipes), so that no library's random stream matters.
        state = (1664525 * state + 1013904223) % 2**32
        second += state % 7
        event = _EVENTS[(state >> 16) % len(_EVENTS)].format(number=state % 99_991, small=(state >> 8) % 97)
        line = f"2024-05-03T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z {event}\n"
        lines.append(line)
        length += len(line)
    return "".join(lines)[:LENGTH]


def main() -> None:
    """Put the message into its line of ``tickets.jsonl``; every other line stays as it is."""
    lines = []
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        ticket = json.loads(line)
        if ticket["ticket_id"] == TICKET_ID:
            line = json.dumps({**ticket, "message": long_message()}, ensure_ascii=False)
        lines.append(line)
    _FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
