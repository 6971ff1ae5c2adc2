"""``python -m tests.fakes.qwen``: the fake service as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.canned import Canned
from tests.fakes.faults import Answer
from tests.fakes.qwen import listen
from tests.fakes.service import Service


def main(argv: Sequence[str] | None = None) -> None:
    """Serve in this process until it is ended."""
    parser = argparse.ArgumentParser(description="A Qwen-like server on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument("--answer", default="{}", help="the answer's text, or `module:function` of the parsed body")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each reply")
    parser.add_argument("--piece", type=int, default=16, help="characters in each delta of a stream")
    given = parser.parse_args(argv)
    answer: Answer | Canned
    if re.fullmatch(r"[\w.]+:\w+", given.answer):
        module, _, name = given.answer.partition(":")
        answer = getattr(importlib.import_module(module), name)
    else:
        answer = Canned.of(given.answer, piece=given.piece)
    service = Service(answer, given.latency, keep=False, piece=given.piece)

    async def serve() -> None:
        server = await listen(service, port=given.port)
        port = server.sockets[0].getsockname()[1]
        if given.port_file is not None:
            # Renamed into place, so that who waits for the file never reads half of it.
            part = given.port_file.with_suffix(".part")
            part.write_text(str(port))
            part.rename(given.port_file)
        await server.serve_forever()

    asyncio.run(serve())
