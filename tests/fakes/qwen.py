"""A Qwen-like service on loopback: a real HTTP server that answers, fails and misbehaves on demand.

It speaks chat, Responses and both native dialects, whole and streamed, files and embeddings. An answer
function gets every question in chat's words (``asked.Asked``), whatever dialect it came in.

::

    with FakeQwen(lambda body: '{"name": "kettle"}') as qwen:
        ...ask qwen.base_url (compat) or qwen.native_url...
        assert qwen.count == 1
        assert qwen.requests[0].body["model"] == "qwen-plus"

    # Every third request is refused once with a 429, the rest is answered; the same seed, the same faults.
    with FakeQwen(Faults(7, mix={"429": 0.2, "reset": 0.1}, then=lambda body: "{}")) as qwen: ...

    # A list is a script: one entry a request, the last one for ever.
    with FakeQwen([Fault.status(503), Fault.reset(), '{"a": 1}']) as qwen: ...

    # Models that do what the documents say and no more, a rate limit, a prompt cache.
    with FakeQwen("{}", rules=Rules.documented(), limits=Limits(rpm=600), cache=True) as qwen:
        assert qwen.highest_rate(1.0) <= 10

As a process of its own, for benchmarks, kill tests and people: ``python -m tests.fakes.qwen --help``.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Self

from tests.fakes.asked import Asked
from tests.fakes.batches import Batches
from tests.fakes.cache import PromptCache
from tests.fakes.canned import Canned
from tests.fakes.connection import Connection
from tests.fakes.faults import FAULTS, Answer, Fault, Faults
from tests.fakes.files import Files
from tests.fakes.limits import Limits
from tests.fakes.rules import Rules
from tests.fakes.service import Seen, Service
from tests.fakes.told import Reply

__all__ = ["FAULTS", "Asked", "FakeQwen", "Fault", "Faults", "Limits", "PromptCache", "Reply", "Rules", "Seen"]

Given = Answer | str | Reply | Fault | Sequence[str | Reply | Fault]


class FakeQwen:
    """The server, in a thread of its own, on a free loopback port. A context manager.

    ``answer`` is called in the server's thread with each question and gives the answer's text, a ``Reply``
    or a ``Fault``. A list is played in order, its last entry for ever. A plain string answers everything.
    ``latency`` (seconds) delays every reply. ``rules=None`` switches the documented refusals off.
    ``keep=False`` keeps no request bodies (for millions of them). ``piece`` is the length of a stream's
    deltas in characters.
    """

    def __init__(
        self,
        answer: Given = "{}",
        *,
        latency: float = 0.0,
        rules: Rules | None = Rules(),  # noqa: B008 -- never changed
        limits: Limits | None = None,
        cache: bool | PromptCache = False,
        keep: bool = True,
        piece: int = 16,
        port: int = 0,
    ) -> None:
        kept = PromptCache() if cache is True else cache or None
        self._state = Service(
            _as_function(answer), latency, rules=rules, limits=limits, cache=kept, keep=keep, piece=piece
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fake-qwen", daemon=True)
        self._ready = threading.Event()
        self.port = port

    @property
    def host_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible root, as a user would give it."""
        return f"{self.host_url}/v1"

    @property
    def compat_url(self) -> str:
        """The OpenAI-compatible root under the hosted service's path."""
        return f"{self.host_url}/compatible-mode/v1"

    @property
    def native_url(self) -> str:
        """The native root."""
        return f"{self.host_url}/api/v1"

    @property
    def requests(self) -> list[Seen]:
        """Every request for an answer so far, in order of arrival."""
        return list(self._state.requests)

    @property
    def count(self) -> int:
        """How many requests for an answer arrived."""
        return self._state.traffic.count

    @property
    def dialects(self) -> Counter[str]:
        """How many requests came in each dialect (and for ``embeddings`` and ``files``)."""
        return Counter(self._state.dialects)

    @property
    def most_in_flight(self) -> int:
        """The largest number of requests that were open at the same time."""
        return self._state.traffic.most_in_flight

    @property
    def left_early(self) -> int:
        """How many replies the client did not wait for to their end."""
        return self._state.traffic.left_early

    @property
    def errors(self) -> list[str]:
        """What went wrong inside the answer function."""
        return list(self._state.errors)

    @property
    def files(self) -> Files:
        """The uploaded files."""
        return self._state.files

    @property
    def batches(self) -> Batches:
        """The batches, and what shall go wrong with them."""
        return self._state.batches

    def rates(self, seconds: float = 1.0) -> list[int]:
        """Requests that arrived in each window of ``seconds``, from the first arrival on."""
        return self._state.traffic.rates(seconds)

    def highest_rate(self, seconds: float = 1.0) -> int:
        """The most requests that arrived in any window of ``seconds``, wherever it begins."""
        return self._state.traffic.highest_rate(seconds)

    def answer_with(self, answer: Given) -> None:
        """Answer differently from now on."""
        self._state.answer = _as_function(answer)

    def forget(self) -> None:
        """Set the counts and the kept requests back to nothing."""
        self._state.requests.clear()
        self._state.dialects.clear()
        self._state.traffic.forget()

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
        server = self._loop.run_until_complete(listen(self._state, port=self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            connections: set[Connection] = self._state.connections
            for connection in list(connections):
                connection.abort()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.run_until_complete(server.wait_closed())
            self._loop.close()


async def listen(service: Service, *, port: int) -> asyncio.Server:
    """Serve on loopback, in the running loop; port 0 takes a free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(service, loop), "127.0.0.1", port, backlog=1024)


def _as_function(answer: Given) -> Answer | Canned:
    if callable(answer) or isinstance(answer, Canned):
        return answer
    if isinstance(answer, str | Reply | Fault):
        only = answer
        return lambda body: only
    script = list(answer)
    if not script:
        raise ValueError("an empty list of answers")
    return lambda body: script.pop(0) if len(script) > 1 else script[0]


if __name__ == "__main__":
    import sys

    from tests.fakes.command import main

    sys.exit(main())
