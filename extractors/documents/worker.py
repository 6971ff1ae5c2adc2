"""``python -m extractors.documents.worker``: a process that converts documents, one question at a time.

Questions and answers are JSON behind four bytes of length (big endian), on standard input and output. Whatever a parser
prints goes to standard error.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import struct
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

import orjson

from extractors.documents.convert import convert, read, told
from extractors.documents.converted import DocumentLimits

_LENGTH = struct.Struct(">I")
_LONGER = 2.0
"""Seconds by which a process outlives the limit of a document that nobody waits for any more."""


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    while (question := receive(questions)) is not None:
        _alarm(float(question["limits"]["seconds"]) + _LONGER)
        try:
            answer = _answer(question)
        except BaseException as error:  # noqa: BLE001 - a hostile document makes a parser raise anything
            answer = {"problem": told(error)}
        send(answers, answer)
        _alarm(0)


def _alarm(seconds: float) -> None:
    """Let the system end this process after so long, where it can: whoever asks ends it sooner, unless killed meanwhile. 0:
    not any more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def send(to: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message. Lone surrogates, which JSON cannot hold, become U+FFFD."""
    try:
        body = orjson.dumps(message)
    except TypeError:
        text = str(message.get("text") or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        body = orjson.dumps(message | {"text": text, "title": None})
    to.write(_LENGTH.pack(len(body)) + body)
    to.flush()


def receive(source: BinaryIO) -> dict[str, Any] | None:
    """Read one message; None at the end."""
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    message: dict[str, Any] = orjson.loads(source.read(_LENGTH.unpack(head)[0]))
    return message


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    limits = DocumentLimits(**question["limits"])
    _bounded(limits.memory_bytes)
    path = os.fsdecode(base64.b64decode(question["path"]))
    if question["do"] == "convert":
        return asdict(convert(path, limits))
    if question["do"] == "boxes":
        from extractors.documents.pdf import boxes

        spans = {
            int(page): [(start, end, quote) for start, end, quote in each] for page, each in question["spans"].items()
        }
        return {"boxes": {str(page): found for page, found in boxes(read(path, limits), spans).items()}}
    from extractors.documents.pdf import picture

    return {"png": base64.b64encode(picture(path, question["page"])).decode()}


def _bounded(memory_bytes: int) -> None:
    """Hold this process to so much address space, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
