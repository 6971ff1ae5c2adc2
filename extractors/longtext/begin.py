"""Beginning a record: which state machine brings it to its outcome."""

from __future__ import annotations

from typing import Protocol

from extractors.extraction import Extraction
from extractors.images import Pictures
from extractors.longtext.budget import is_longer
from extractors.longtext.many import LongLists
from extractors.longtext.parts import has_lists, parts_of
from extractors.longtext.retrieval import Ranker
from extractors.qwen.requests import CallError, ChatReply, ChatRequest
from extractors.recipe import Recipe
from extractors.tools.requests import ToolRequest, ToolResult
from schemas.outcomes import Outcome
from schemas.records import Record

_NO_PICTURES = Pictures()


class Begun(Protocol):
    """One record on its way to an outcome, as whoever drives it knows it; see ``Extraction``."""

    outcome: Outcome | None

    def next_request(self) -> ChatRequest | ToolRequest | None: ...
    def receive(self, reply: ChatReply | CallError | ToolResult) -> None: ...


def begin(recipe: Recipe, record: Record, pictures: Pictures = _NO_PICTURES, *, ranker: Ranker | None = None) -> Begun:
    """An ``Extraction``, or ``LongLists`` for a record that is longer than one call and has lists of objects to fill."""
    if record.problem is None and pictures.problem is None and is_in_parts(recipe, record.text):
        parts = parts_of(recipe)
        if parts is not None:
            return LongLists(recipe, record, pictures, parts=parts, ranker=ranker)
    return Extraction(recipe, record, pictures, ranker=ranker)


def is_in_parts(recipe: Recipe, text: str) -> bool:
    """Whether a record with this text is asked in parts: it has lists of objects, which are counted, or it is longer than one
    call."""
    if not has_lists(recipe):
        return False
    return (recipe.lists.count == "always" and bool(text)) or is_longer(recipe, text)
