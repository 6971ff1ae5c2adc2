"""Texts to vectors: each text once, in calls of as many as the model takes, kept before anybody works with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from extractors.qwen.requests import CallError, ErrorKind
from extractors.vectors.asking import Ask, HelperFailed
from extractors.vectors.models import HelperModel
from extractors.vectors.stored import StoredVectors, TextVector, text_hash
from extractors.vectors.wire import Embedded, embedding_request

logger = logging.getLogger(__name__)

_PARTED = (ErrorKind.BAD_REQUEST, ErrorKind.TOO_LONG, ErrorKind.REFUSED)
"""Errors that may be about one text of several, or about how many they are."""
_SHORTEST = 64
"""Characters down to which a text is cut that is too long for the service all the same."""


@dataclass(frozen=True, slots=True)
class _Text:
    key: str
    text: str
    sent: str


class Embedder:
    """The vectors of texts, from what is kept or from the model. All its coroutines belong to one event loop.

    A text that is being embedded is waited for, by whomever it was sent. ``writer`` is the one thread that touches
    ``stored``. Empty texts have no vector, and neither has one that the provider refuses.
    """

    def __init__(self, model: HelperModel, stored: StoredVectors, *, writer: Executor, concurrency: int = 64) -> None:
        """``concurrency`` is how many calls at once may be made or wait to be kept: what a kill can lose."""
        self.model = model
        self._stored = stored
        self._writer = writer
        self._open = asyncio.Semaphore(concurrency)
        self._keeping = asyncio.Lock()
        self._unkept: list[TextVector] = []
        self._trouble: Exception | None = None
        self._coming: dict[str, asyncio.Future[None]] = {}
        self._refused: set[str] = set()
        self._told = False

    async def vectors(self, texts: Sequence[str], ask: Ask) -> dict[str, bytes]:
        """The vector of each text that has one: float32, little-endian. Raises ``HelperFailed``, and what ``ask`` raises;
        what was embedded before that is kept."""
        wanted = {text: text_hash(text) for text in texts if text.strip()}
        found = await self._found(wanted, ask)
        if any(key not in found and key not in self._refused for key in wanted.values()):
            # A part was damaged after it was written.
            found = await self._found(wanted, ask)
        return {text: found[key] for text, key in wanted.items() if key in found}

    async def _found(self, wanted: Mapping[str, str], ask: Ask) -> dict[str, bytes]:
        """The vectors by the hash of their text, once those that are missing were asked for."""
        while True:
            mine, others = self._begin(wanted)
            if mine:
                made = await asyncio.gather(
                    *(self._batch(batch, ask) for batch in self._batches(mine)), return_exceptions=True
                )
                for trouble in made:
                    if isinstance(trouble, BaseException):
                        raise trouble
            if not others:
                break
            for future in others:
                await asyncio.shield(future)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._stored.load, list(wanted.values()))

    def _begin(self, wanted: Mapping[str, str]) -> tuple[list[_Text], list[asyncio.Future[None]]]:
        """The texts that nobody embedded or is embedding, and what must be waited for."""
        loop = asyncio.get_running_loop()
        mine: dict[str, _Text] = {}
        others: list[asyncio.Future[None]] = []
        for text, key in wanted.items():
            if key in self._stored or key in self._refused or key in mine:
                continue
            if (future := self._coming.get(key)) is not None:
                others.append(future)
                continue
            self._coming[key] = loop.create_future()
            mine[key] = _Text(key, text, self._fitted(text))
        return list(mine.values()), others

    def _fitted(self, text: str) -> str:
        sent = self.model.fitted(text)
        if len(sent) < len(text) and not self._told:
            self._told = True
            logger.warning(
                "%s takes %d tokens of a text: longer ones are embedded by their beginning (`embedded` in the stored vectors)",
                self.model.name,
                self.model.profile.max_input,
            )
        return sent

    def _batches(self, texts: list[_Text]) -> list[list[_Text]]:
        most = self.model.profile.most_texts
        return [texts[at : at + most] for at in range(0, len(texts), most)]

    async def _batch(self, texts: list[_Text], ask: Ask) -> None:
        """One call's texts, and their parts where the call does not go through as a whole."""
        try:
            await self._embed(texts, ask)
        except BaseException as error:
            # What is wrong with one text is no trouble of those that wait for another: they look again, and ask.
            parted = isinstance(error, HelperFailed) and error.error.kind in _PARTED
            for one in texts:
                future = self._coming.pop(one.key, None)
                if future is not None and not future.done():
                    if parted or one.key in self._stored:
                        future.set_result(None)
                    elif isinstance(error, asyncio.CancelledError):
                        future.cancel()
                    else:
                        future.set_exception(error)
                        future.exception()  # nobody may be waiting for it
            raise
        for one in texts:
            future = self._coming.pop(one.key, None)
            if future is not None and not future.done():
                future.set_result(None)

    async def _embed(self, texts: list[_Text], ask: Ask) -> None:
        request = embedding_request(self.model.name, [one.sent for one in texts], dimensions=self.model.sent_dimensions)
        async with self._open:
            result = await ask(request)
            if isinstance(result, Embedded):
                await self._keep(
                    TextVector(one.key, len(one.text), len(one.sent), vector)
                    for one, vector in zip(texts, result.vectors, strict=True)
                )
        if isinstance(result, CallError):
            await self._after(result, texts, ask)

    async def _keep(self, vectors: Iterable[TextVector]) -> None:
        """Have vectors on the disk. What comes while a part is being written goes into the next one together."""
        self._unkept.extend(vectors)
        async with self._keeping:
            if self._trouble is not None:
                raise self._trouble
            if not self._unkept:
                return
            part, self._unkept = self._unkept, []
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._stored.keep, part)
            except Exception as error:
                # Those that wait behind believe theirs to be written.
                self._trouble = error
                raise

    async def _after(self, error: CallError, texts: list[_Text], ask: Ask) -> None:
        """What is left to do after an error: halves of the texts, or half of the one."""
        if error.kind not in _PARTED:
            raise HelperFailed(error)
        if len(texts) > 1:
            middle = len(texts) // 2
            await self._embed(texts[:middle], ask)
            await self._embed(texts[middle:], ask)
            return
        only = texts[0]
        if error.kind is ErrorKind.REFUSED:
            logger.warning("%s will not embed a text: it is found by its words alone", self.model.name)
            self._refused.add(only.key)
        elif error.kind is ErrorKind.TOO_LONG and len(only.sent) > _SHORTEST:
            await self._embed([_Text(only.key, only.text, only.sent[: len(only.sent) // 2])], ask)
        else:
            raise HelperFailed(error)
