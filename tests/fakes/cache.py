"""The prompt cache of the fake service: how much of a request's beginning was seen before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fakes.asked import Asked

_BLOCK = 256
"""Characters, about 64 tokens: the implicit cache remembers prefixes in steps of this length."""
_LIFE = 300.0
_LOOK_BACK = 20


@dataclass(slots=True)
class PromptCache:
    """Implicit without markers, explicit (``cache_control``) with them, never both in one request.

    Four characters are a token. An implicit prefix counts from 256 tokens on, an explicit one from 1,024;
    an explicit one lives five minutes and longer with each hit. ``delay`` seconds after a request its prefix
    can be found, since it is written when the answer ends: calls made at once all miss.
    """

    implicit_from: int = 256
    explicit_from: int = 1024
    delay: float = 0.0
    _seen: dict[bytes, float] = field(default_factory=dict)
    _kept: dict[bytes, float] = field(default_factory=dict)

    def use(self, asked: Asked, now: float) -> tuple[int, int]:
        """(cached, created) tokens of a request, which is remembered."""
        return self._explicit(asked, now) if asked.marks else (self._implicit(asked, now), 0)

    def _implicit(self, asked: Asked, now: float) -> int:
        text = f"{asked['model']}\0{asked.words}"
        known, unbroken = 0, True
        for end, mark in _prefixes(text, range(_BLOCK, len(text) + 1, _BLOCK)):
            unbroken = unbroken and self._seen.get(mark, now + 1) <= now
            if unbroken:
                known = end
            self._seen.setdefault(mark, now + self.delay)
        tokens = known // 4
        return tokens if tokens >= self.implicit_from else 0

    def _explicit(self, asked: Asked, now: float) -> tuple[int, int]:
        """The longest written prefix that ends at a marked block or at most 20 blocks before it."""
        words, model = asked.words, asked["model"]
        near = {at for mark in asked.marks for at in range(max(0, mark - _LOOK_BACK), mark + 1)}
        ends = {asked.blocks[at] for at in near}
        prefixes = dict(_prefixes(f"{model}\0{words}", sorted(end + len(model) + 1 for end in ends)))
        marks = {end: prefixes[end + len(model) + 1] for end in ends}
        alive = [end for end, mark in marks.items() if self._kept.get(mark, now) > now and self._written(mark, now)]
        hit = max((end for end in alive if end // 4 >= self.explicit_from), default=0)
        last = max(asked.blocks[at] for at in asked.marks)
        made = last - hit if last // 4 >= self.explicit_from else 0
        for end in {asked.blocks[at] for at in asked.marks} | ({hit} if hit else set()):
            if end // 4 >= self.explicit_from:
                self._seen.setdefault(marks[end] + b"x", now + self.delay)
                self._kept[marks[end]] = now + _LIFE
        return hit // 4, made // 4

    def _written(self, mark: bytes, now: float) -> bool:
        return self._seen.get(mark + b"x", now + 1) <= now


def _prefixes(text: str, ends: range | list[int]) -> Iterator[tuple[int, bytes]]:
    """(end, digest of the text up to there) for rising ends."""
    digest = hashlib.blake2b(digest_size=12)
    start = 0
    for end in ends:
        digest.update(text[start:end].encode("utf-8", "surrogatepass"))
        start = end
        yield end, digest.digest()
