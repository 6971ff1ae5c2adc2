"""A long record as a few of its chunks: what is shown of it first, what another look shows, and where evidence lies.

Pure: the same recipe, record and ranker give the same chunks in any process, so that a journal's answers are found.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.longtext.budget import budget_of
from extractors.longtext.choosing import chosen
from extractors.longtext.chunks import Chunk, cut
from extractors.longtext.retrieval import Bm25, FieldQuery, Ranker, field_queries
from extractors.recipe import Recipe
from extractors.tokens import estimate_tokens

MOST_LOOKS = 2
"""Looks into further chunks for what was not found in the first ones."""
_HEAD = 240
"""Tokens of a text's beginning that are always shown first: who, when and what it is about."""
_LOOK = 0.5
"""Tokens of a look, as a share of what is shown first: most of what stays empty is not in the record."""
_LEAST_LOOK = 240
_LEAST = 128
"""Tokens of a focus that was narrowed, at least."""
_LABEL = 10
"""Tokens of the line over a run of chunks, and of the break before it, about."""
_BM25 = Bm25()


@dataclass(frozen=True, slots=True)
class Shown:
    """Chunks in the text's order. ``text`` is what a prompt says, with a line over each run of neighbours; ``ranges`` are
    the runs' offsets in the record's text."""

    chunks: tuple[Chunk, ...]
    text: str
    ranges: tuple[tuple[int, int], ...]


class Focus:
    """The chunks of one record that is longer than a call may show. ``budget`` is in tokens."""

    __slots__ = ("_chunks", "_queries", "_rows", "_seen", "_starts", "_text", "budget", "looks")

    def __init__(
        self,
        schema: Mapping[str, Any],
        text: str,
        *,
        budget: int,
        instructions: str = "",
        tokens: Callable[[str], int] = estimate_tokens,
        ranker: Ranker = _BM25,
    ) -> None:
        self._text = text
        self._chunks = cut(text, tokens=tokens)
        self._starts = [chunk.start for chunk in self._chunks]
        self.budget = budget
        self._queries: tuple[FieldQuery, ...] = field_queries(schema, instructions=instructions)
        self._rows = ranker.scores(self._queries, [chunk.of(text) for chunk in self._chunks])
        self._seen: set[int] = set()
        self.looks = 0
        """Looks that were taken."""

    def first(self) -> Shown:
        """What is shown when the whole answer is asked for."""
        return self._chosen(self._rows, always=self._ends())

    def another(self, paths: Sequence[str]) -> Shown | None:
        """The best chunks for the fields at ``paths`` that were not shown yet; None where all were, or were looked at
        often enough, or none fits."""
        if self.looks >= MOST_LOOKS or len(self._seen) == len(self._chunks):
            return None
        self.looks += 1
        shown = self._chosen(
            self._rows_of(paths),
            without=self._seen,
            most=min(self.budget, max(_LEAST_LOOK, int(self.budget * _LOOK))),
        )
        return shown if shown.chunks else None

    def about(self, paths: Sequence[str], places: Iterable[int]) -> Shown:
        """The best chunks for the fields at ``paths``, those with the offsets ``places`` first."""
        return self._chosen(self._rows_of(paths), always=[self._at(place) for place in places])

    def number_of(self, start: int) -> int | None:
        """The number of the chunk in which an offset lies, None where that was never shown."""
        number = self._at(start) + 1
        return number if number in self._seen else None

    def shown(self) -> tuple[tuple[int, int], ...]:
        """The ranges of all that was shown so far."""
        return _runs([chunk for chunk in self._chunks if chunk.number in self._seen])

    def _chosen(
        self, rows: Sequence[Sequence[float]], *, without: Iterable[int] = (), always: Sequence[int] = (), most: int = 0
    ) -> Shown:
        chunks = chosen(
            self._chunks,
            rows,
            most_tokens=most or self.budget,
            without=frozenset(without),
            always=always,
            label=_LABEL,
        )
        self._seen.update(chunk.number for chunk in chunks)
        return self._as_shown(chunks)

    def _as_shown(self, chunks: tuple[Chunk, ...]) -> Shown:
        count = len(self._chunks)
        ranges = _runs(chunks)
        parts = []
        for start, end in ranges:
            first, last = self._at(start) + 1, self._at(end - 1) + 1
            name = f"[chunk {first} of {count}]" if first == last else f"[chunks {first} to {last} of {count}]"
            parts.append(f"{name}\n{self._text[start:end].strip()}")
        return Shown(chunks, "\n\n".join(parts), ranges)

    def _ends(self) -> list[int]:
        """The places of the chunks at the text's beginning and at its end."""
        places: list[int] = []
        tokens = 0
        for place, chunk in enumerate(self._chunks):
            tokens += chunk.tokens
            if tokens > _HEAD and places:
                break
            places.append(place)
        return [*places, len(self._chunks) - 1]

    def _rows_of(self, paths: Sequence[str]) -> list[Sequence[float]]:
        wanted = {_pattern(path) for path in paths}
        rows = [row for query, row in zip(self._queries, self._rows, strict=True) if _is_asked(query.path, wanted)]
        # A path that no query is for must not show nothing at all.
        return rows or list(self._rows)

    def _at(self, start: int) -> int:
        return bisect_right(self._starts, start) - 1


def focus_of(recipe: Recipe, text: str, *, ranker: Ranker | None = None) -> Focus | None:
    """The focus on a text, None where it is asked whole."""
    budget = budget_of(recipe, text)
    return None if budget is None else _focused(recipe, text, budget, ranker)


def narrowed(recipe: Recipe, text: str, before: Focus | None, *, ranker: Ranker | None = None) -> Focus | None:
    """A focus on a third of what the model did not take: the whole text, or what was shown ``before``. None where too
    little would be left, or the text is only ever asked whole."""
    budget = (estimate_tokens(text) if before is None else before.budget) // 3
    return None if recipe.long_text == "whole" or budget < _LEAST else _focused(recipe, text, budget, ranker)


def _focused(recipe: Recipe, text: str, budget: int, ranker: Ranker | None) -> Focus:
    return Focus(
        recipe.schema,
        text,
        budget=budget,
        instructions=recipe.instructions,
        tokens=recipe.policy.tokenizer or estimate_tokens,
        ranker=ranker or _BM25,
    )


def _runs(chunks: Sequence[Chunk]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for chunk in chunks:
        if runs and runs[-1][1] == chunk.start:
            runs[-1] = (runs[-1][0], chunk.end)
        else:
            runs.append((chunk.start, chunk.end))
    return tuple(runs)


def _pattern(path: str) -> str:
    return "/".join("*" if step.isdigit() else step for step in path.split("/"))


def _is_asked(query: str, wanted: set[str]) -> bool:
    """Whether a query is for one of the wanted paths, for what is inside of it, or for the list or map that it is an item of."""
    return any(
        query == path or query.startswith(f"{path}/") or (query and path.startswith(f"{query}/")) for path in wanted
    )
