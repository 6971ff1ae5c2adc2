"""A chunk's packs as the engine asks them: what goes together, what was answered before, what came of a reply."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from extractors.packing import (
    UNSEEN,
    Packable,
    after_pack,
    is_mostly_choices,
    pack_request,
    packable,
    packs,
    shares,
    unread,
)
from extractors.qwen.requests import CallError, ChatReply, ChatRequest
from extractors.recipe import Recipe
from extractors.store.journal import PACKED, entry_result
from extractors.store.plan import Group

logger = logging.getLogger(__name__)
_ENOUGH = 24
"""Records asked in packs after which it is told whether packs are worth it."""


class Answers(Protocol):
    """Answers from before, by request digest."""

    def get(self, request: str) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One request about several records."""

    asked: Sequence[Packable]
    request: ChatRequest


class Packer:
    """Makes the packs of a run's chunks. The same chunk has the same packs after a crash; those of their records that
    were answered before are left out of the question."""

    def __init__(self, recipe: Recipe, known: Answers) -> None:
        self._recipe = recipe
        self._known = known
        self._counts: Counter[bool] = Counter()
        """Records that were asked in packs, by whether they had an answer of their own."""
        self._told = False
        self._unseen = is_mostly_choices(recipe.schema)
        """Whether it is still to be told what packs of this schema do not show."""

    def packs(self, groups: Sequence[Group]) -> tuple[list[list[Group]], list[Group]]:
        """The groups that are asked together, and those that are asked alone."""
        new = [group for group in groups if group.donor is None]
        found = [[new[place] for place in pack] for pack in packs([group.records[0] for group in new], self._recipe)]
        if found and self._unseen:
            self._unseen = False
            logger.warning("%s", UNSEEN)
        together = {id(group) for pack in found for group in pack}
        return found, [group for group in groups if id(group) not in together]

    def question(self, pack: Sequence[Group]) -> Question | None:
        """The question about a pack's records; None where at most one of them is left to ask."""
        try:
            asked = [
                one
                for one in (packable(self._recipe, group.records[0]) for group in pack)
                if self._known.get(one.digest) is None and self._known.get(f"{one.digest}{PACKED}") is None
            ]
            return (
                Question(asked, pack_request(self._recipe, [one.record for one in asked])) if len(asked) > 1 else None
            )
        except Exception:
            # An odd record must not cost the others of its pack: each is asked alone, and fails alone.
            logger.exception("no pack can be made of %d records", len(pack))
            return None

    def shares(self, question: Question, result: ChatReply | CallError) -> dict[str, ChatReply | CallError]:
        """Each record's share of what came back, by the digest of the question that it would have been asked alone."""
        records = [one.record for one in question.asked]
        try:
            each = shares(self._recipe, records, question.request, result)
        except Exception:
            logger.exception("the reply about %d records cannot be read: they are asked alone", len(records))
            each = shares(self._recipe, records, question.request, unread(result))
        self._count(each)
        return {one.digest: share for one, share in zip(question.asked, each, strict=True)}

    def alone(
        self, digest: str, result: ChatReply | CallError, brought: Mapping[str, ChatReply | CallError]
    ) -> ChatReply | CallError:
        """A record's own answer, with its share of a pack that did not answer it, if there was one: in this run
        (``brought``) or in one that was interrupted."""
        share = brought.get(digest)
        if share is None and (entry := self._known.get(f"{digest}{PACKED}")) is not None:
            share = entry_result(entry)
        return after_pack(result, share) if isinstance(share, CallError) else result

    def _count(self, each: Sequence[ChatReply | CallError]) -> None:
        counts = self._counts
        counts.update(isinstance(share, ChatReply) for share in each)
        if not self._told and counts.total() >= _ENOUGH and counts[False] * 3 > counts.total():
            self._told = True
            logger.warning(
                "%d of the first %d records that were asked in packs had to be asked again alone: records_per_call costs "
                "more here than it saves",
                counts[False],
                counts.total(),
            )


def share_key(digest: str, share: ChatReply | CallError) -> str:
    """What a share is called in the journal: an answer is found as the record's own."""
    return digest if isinstance(share, ChatReply) else f"{digest}{PACKED}"
