"""The ranker of a record, made before its extraction begins: extraction is pure, so that what it needs is loaded here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import orjson

from extractors.longtext.begin import is_in_parts
from extractors.longtext.focus import focus_of
from extractors.longtext.parts import parts_of
from extractors.longtext.retrieval import Bm25, FieldQuery, Ranker
from extractors.qwen.requests import CallError, ErrorKind
from extractors.recipe import Recipe
from extractors.tokens import estimate_tokens
from extractors.vectors.asking import Ask, HelperFailed
from extractors.vectors.embedding import Embedder
from extractors.vectors.models import HelperModel, Helpers
from extractors.vectors.ranking import EmbeddingRanker, Fused, Known, Reranked
from extractors.vectors.stored import StoredVectors
from extractors.vectors.wire import rerank_request

logger = logging.getLogger(__name__)

CANDIDATES = 30
"""Passages of a query that are re-ranked, the best of those that were ranked before."""
_UNSURE = 1.2


class Rankers:
    """Makes the rankers of one run's records. ``writer`` is the thread that reads and writes the output."""

    def __init__(self, recipe: Recipe, helpers: Helpers, out: Path, writer: Executor, *, concurrency: int = 64) -> None:
        """Reads which vectors are kept. Raises ``OutputError``."""
        self._recipe = recipe
        self._rerank = helpers.rerank
        self._embedder: Embedder | None = None
        if (model := helpers.embedding) is not None:
            stored = StoredVectors(out, model=model.name, dimensions=model.dimensions)
            self._embedder = Embedder(model, stored, writer=writer, concurrency=concurrency)

    async def ranker(self, text: str, ask: Ask) -> Ranker | None:
        """What ranks the text's chunks; None where it is asked whole. Raises ``HelperFailed``, and what ``ask`` raises."""
        recipe = chooses_chunks(self._recipe, text)
        wanted = _Wanted()
        if recipe is None or focus_of(recipe, text, ranker=wanted) is None:
            return None
        queries, passages = wanted.queries, wanted.passages
        ranker: Ranker = Bm25()
        if self._embedder is not None:
            texts = list(dict.fromkeys([*(query.text for query in queries), *passages]))
            ranker = Fused([ranker, EmbeddingRanker(await self._embedder.vectors(texts, ask))])
        rows = ranker.scores(queries, passages)
        known = Known(queries, passages, rows)
        if self._rerank is None:
            return known
        said = {}
        for query, row in zip(queries, rows, strict=True):
            if query.text not in said:
                said[query.text] = await self._said(self._rerank, query.text, _best(row, passages), ask)
        return Known(queries, passages, Reranked(known, said).scores(queries, passages))

    async def _said(self, model: HelperModel, query: str, passages: Sequence[str], ask: Ask) -> dict[str, float]:
        """What the model says of a query's passages."""
        said: dict[str, float] = {}
        asked = model.fitted(query)
        for group in _calls(model, asked, [(passage, model.fitted(passage)) for passage in passages]):
            said.update(await self._scores(model, asked, group, ask))
        return said

    async def _scores(
        self, model: HelperModel, query: str, group: Sequence[tuple[str, str]], ask: Ask
    ) -> dict[str, float]:
        result = await ask(rerank_request(model.name, query, [sent for _, sent in group]))
        if not isinstance(result, CallError):
            return dict(zip((passage for passage, _ in group), orjson.loads(result.text), strict=True))
        if result.kind is ErrorKind.REFUSED:
            logger.warning("%s will not order some texts: they keep their places", model.name)
            return {}
        if result.kind is not ErrorKind.TOO_LONG or len(group) < 2:
            raise HelperFailed(result)
        middle = len(group) // 2
        first = await self._scores(model, query, group[:middle], ask)
        return first | await self._scores(model, query, group[middle:], ask)


def chooses_chunks(recipe: Recipe, text: str) -> Recipe | None:
    """The recipe by whose fields chunks of the text are chosen: of a record whose lists are asked window by window, those
    beside the lists. None where there are none, since windows are read whole."""
    parts = parts_of(recipe) if is_in_parts(recipe, text) else None
    return recipe if parts is None else parts.rest


class _Wanted:
    """A ranker that only sees what would be ranked."""

    def __init__(self) -> None:
        self.queries: Sequence[FieldQuery] = ()
        self.passages: Sequence[str] = ()

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        self.queries, self.passages = queries, passages
        return [[0.0] * len(passages) for _ in queries]


def _best(row: Sequence[float], passages: Sequence[str]) -> list[str]:
    """The passages that are worth another look, best first; blank ones are not."""
    order = sorted((at for at, score in enumerate(row) if score > 0), key=lambda at: (-row[at], at))
    found = dict.fromkeys(passages[at] for at in order if passages[at].strip())
    return list(found)[:CANDIDATES]


def _calls(model: HelperModel, query: str, pairs: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The pairs in groups that one call takes: the query counts once for each text."""
    profile = model.profile
    around = estimate_tokens(query) * _UNSURE
    groups: list[list[tuple[str, str]]] = []
    tokens = 0.0
    for pair in pairs:
        more = around + estimate_tokens(pair[1]) * _UNSURE
        full = bool(profile.most_call) and tokens + more > profile.most_call
        if not groups or full or len(groups[-1]) == profile.most_texts:
            groups.append([])
            tokens = 0.0
        groups[-1].append(pair)
        tokens += more
    return groups
