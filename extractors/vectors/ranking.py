"""Rankers that know more than words: vectors, several rankers as one, and a model that reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extractors.longtext.retrieval import Bm25, FieldQuery, Ranker

K = 60
"""The constant of reciprocal rank fusion, as its paper has it."""
_DIGITS = 6
"""Digits of a similarity that count: sums of floats differ in the last ones from machine to machine."""


class EmbeddingRanker:
    """Cosine similarity of vectors, which are loaded before: float32, little-endian, by their text."""

    def __init__(self, vectors: Mapping[str, bytes]) -> None:
        self._vectors = vectors

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of similarities for each query; 0 where one of the two has no vector."""
        import numpy as np

        size = max((len(vector) for vector in self._vectors.values()), default=4)
        empty = b"\0" * size

        def matrix(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
            data = b"".join(self._vectors.get(text, empty) for text in texts)
            rows = np.frombuffer(data, dtype="<f4").reshape(len(texts), size // 4).astype(np.float64)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(lengths > 0, lengths, 1.0)
            return rows

        if not queries or not passages:
            return [[] for _ in queries]
        near = matrix([query.text for query in queries]) @ matrix(passages).T
        return [[round(float(one), _DIGITS) for one in row] for row in near]


class Fused:
    """Several rankers as one, by reciprocal rank fusion (Cormack, Clarke & Büttcher, *Reciprocal Rank Fusion outperforms
    Condorcet and individual Rank Learning Methods*, 2009): a passage's sum of 1 / (60 + its rank).

    The fusion gives the order. The scores are 1 / place in it, because what is chosen later is weighed against its
    neighbours, and the sums themselves hardly differ. A score of 0 or less is no rank; who has none, has 0 here.
    """

    def __init__(self, rankers: Sequence[Ranker]) -> None:
        self._rankers = tuple(rankers)

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of scores for each query."""
        told = [ranker.scores(queries, passages) for ranker in self._rankers]
        return [fused([rows[at] for rows in told]) for at in range(len(queries))]


class Reranked:
    """What a model that reads both said of a query's best passages goes before the others, which keep their order.

    ``said`` has for each query's text the scores by passage."""

    def __init__(self, ranker: Ranker, said: Mapping[str, Mapping[str, float]]) -> None:
        self._ranker = ranker
        self._said = said

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of scores for each query: 1 / place in the order."""
        rows = []
        for query, row in zip(queries, self._ranker.scores(queries, passages), strict=True):
            said = self._said.get(query.text, {})
            keys = [
                (1.0, said[passage], score) if passage in said else (0.0, 0.0, score)
                for passage, score in zip(passages, row, strict=True)
            ]
            kept = [at for at, key in enumerate(keys) if key[0] or key[2] > 0]
            rows.append(_by_place(sorted(kept, key=lambda at: (*(-part for part in keys[at]), at)), len(passages)))
        return rows


class Known:
    """Scores that were told before, by query and passage. Where one of them is new, words say all of it."""

    def __init__(self, queries: Sequence[FieldQuery], passages: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        self._passages = frozenset(passages)
        self._rows = {query: dict(zip(passages, row, strict=True)) for query, row in zip(queries, rows, strict=True)}

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of scores for each query."""
        if not self._passages.issuperset(passages) or any(query not in self._rows for query in queries):
            return Bm25().scores(queries, passages)
        return [[self._rows[query][passage] for passage in passages] for query in queries]


def fused(rows: Sequence[Sequence[float]]) -> list[float]:
    """The scores of several rankers for one query as one row."""
    sums = [0.0] * len(rows[0])
    for row in rows:
        ranked = sorted((at for at, score in enumerate(row) if score > 0), key=lambda at: (-row[at], at))
        for rank, at in enumerate(ranked, start=1):
            sums[at] += 1 / (K + rank)
    told = [at for at, total in enumerate(sums) if total > 0]
    return _by_place(sorted(told, key=lambda at: (-sums[at], -rows[0][at], at)), len(sums))


def _by_place(order: Sequence[int], count: int) -> list[float]:
    scores = [0.0] * count
    for place, at in enumerate(order, start=1):
        scores[at] = 1 / place
    return scores
