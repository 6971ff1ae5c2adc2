"""``quarry review``: serve the page until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from pathlib import Path

from extractors.errors import JobError
from extractors.qwen.profiles import load_profiles
from extractors.review.queue import queues
from flows.cli import terminal
from flows.review.server import Options, ReviewServer


def review_output(
    out: Path, *, name: str | None, recipe: str | None, golden: Path, base_url: str | None, port: int, show: bool
) -> None:
    """Serve the page of an output's queues; returns after Ctrl-C. Raises ``JobError`` for a port that is taken."""
    found = queues(out, name=name, recipe=recipe)
    server = ReviewServer(found, Options(golden=golden, models=load_profiles().offered(), base_url=base_url))

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Loops of Windows take no handlers; there Ctrl-C is a KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, ended.set)
        try:
            await server.start(port)
        except OSError as error:
            raise JobError(
                f"--port {port} cannot be used: {error.strerror or error}; leave it out for a free one"
            ) from error
        terminal.say(server.address)
        terminal.talk().print("open this address; it works on this machine only. Ctrl-C ends it")
        if show:
            webbrowser.open(server.address)
        try:
            await ended.wait()
        finally:
            await server.stop()

    asyncio.run(serve())
