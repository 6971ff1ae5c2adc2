"""The calls that help with one record: asked within the run's policies, journaled, told in the ledger, added up."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from extractors.qwen.requests import CallError, ChatReply, ChatRequest, Purpose
from extractors.store.journal import entry_result, result_entry
from extractors.vectors.wire import embedding_request
from schemas.ledger import CallRecord
from schemas.usage import Usage

Ask = Callable[[ChatRequest], Awaitable[ChatReply | CallError]]
"""One call through the policies."""
Tell = Callable[[str, ChatRequest, ChatReply | CallError], list[CallRecord]]
"""The ledger's rows of a call, under the name that it has in the journal."""


class HelperFailed(Exception):
    """A call for vectors or an order failed for good. ``error`` says how."""

    def __init__(self, error: CallError) -> None:
        super().__init__(error.message)
        self.error = error


class HelperCalls:
    """An ``Ask`` for one record.

    What a call for vectors brought is kept by the vectors' own store, and which texts it is of depends on what is kept
    already; so in the journal it is the record's n-th such call, without its vectors: after a kill the ledger has it
    all the same. A re-ranking is found again by what was asked.
    """

    def __init__(
        self,
        fingerprint: str,
        *,
        ask: Ask,
        replay: Callable[[str], Mapping[str, Any] | None],
        journal: Callable[[str, Mapping[str, Any]], None],
        tell: Tell,
    ) -> None:
        self.calls: list[CallRecord] = []
        self.usage = Usage()
        self.asked = Usage()
        """What of it was asked now, and is in no journal of before."""
        self.replayed = 0
        self._fingerprint = fingerprint
        self._ask = ask
        self._replay = replay
        self._journal = journal
        self._tell = tell
        self._embedded = 0
        before = embedding_request("", (), dimensions=None)
        while (entry := replay(self._name())) is not None:
            self._take(self._name(), before, entry_result(entry))
            self._embedded += 1
            self.replayed += 1

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Ask, unless the journal has the answer. Raises what the engine's own calls raise."""
        if request.purpose is not Purpose.EMBED:
            name = request.digest()
            entry = self._replay(name)
            if entry is not None:
                self.replayed += 1
                return self._take(name, request, entry_result(entry))
            result = await self._ask(request)
        else:
            result = await self._ask(request)
            # Others of this record may have ended in the meantime: the number is that of the end.
            name = self._name()
            self._embedded += 1
        self.asked += result.usage
        self._journal(name, result_entry(result))
        return self._take(name, request, result)

    def _take(self, name: str, request: ChatRequest, result: ChatReply | CallError) -> ChatReply | CallError:
        self.usage += result.usage
        self.calls.extend(self._tell(name, request, result))
        return result

    def _name(self) -> str:
        return hashlib.sha256(f"embed\0{self._fingerprint}\0{self._embedded}".encode()).hexdigest()[:32]
