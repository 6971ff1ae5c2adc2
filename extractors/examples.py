"""Few-shot examples: labelled records that are shown with their answers before the record itself.

They come from a golden set (``extractors.example_files``). ``fixed`` shows the same first ones to every record, which keeps
the prefix the same; ``similar`` shows each record those that share its rare words, by Okapi BM25 (Robertson and Zaragoza
2009, k1 = 1.5, b = 0.75): of the forty most similar ones those that cover its words best together, since the three most
similar ones may all share the same word (Gupta, Gardner and Singh 2023, "Coverage-based Example Selection for In-Context
Learning", with BM25's weights), the most similar one last. Before them may come some that are common to all records, those
that best stand for all answers (``representatives``): they show what the answers of the set are like, and a prompt cache has
them read already. A record is never its own example: neither its own label, by id, nor the same text, nor nearly the same
(95 of 100 by rapidfuzz) that says the same values. A record's own and the common ones each take no more tokens together than
there is room for: one that does not fit beside those before it gives way to the next.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from rapidfuzz import fuzz

from extractors.example_answers import in_schema_order, in_text_order
from extractors.grounding import ground
from extractors.grounding.folding import fold, squeeze
from extractors.parsing import dumps_exact, loads_exact
from extractors.prompting import fence
from extractors.qwen.requests import Message
from extractors.representatives import features, representatives
from extractors.tokens import estimate_tokens
from schemas.evidence import Match
from schemas.pointers import unescape
from schemas.records import Record, content_fingerprint

Choice = Literal["similar", "fixed"]

_K1, _B = 1.5, 0.75
_TOO_CLOSE = 95.0
_NEAREST = 40
"""The most similar examples, of which those are shown that cover a record's words best together."""
_LOOKED_AT = 500
"""Examples among which common ones are looked for: so many show what the answers are like, and comparing all costs their
square."""
_TURNS = 30
"""Tokens around an example's text and answer, about: the fence and the chat template."""
_NEAR_LENGTH = 0.9
"""Texts whose lengths differ by more than this ratio are not nearly the same."""
_INSIDE = 0.85
"""Of two texts one of which holds the other, they are nearly the same if so much of it is the other."""
_LEAST_LENGTH = 0.7
"""Texts whose lengths differ by more than this ratio are not looked at: signs and spaces are less than that."""
_USUAL = 0.1
"""A value that at least two labels have, and this share of those that have the field, is a usual one of the field."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff]")


@dataclass(frozen=True)
class Example:
    """A labelled record. ``answer`` is its JSON, compact. ``printed`` are the answer's values that stand in its own text, each
    with its field and as ``copied_form`` has it: what stands in an example and not in a record was copied from the example.
    ``unprinted`` are those that do not; ``quotes`` is what the text says in the place of the former, its letters and
    digits. ``spans`` counts the values, of ``leaves``, that stand in it as they are but for case, spaces and punctuation."""

    text: str
    answer: str
    fingerprint: str
    printed: frozenset[tuple[str, str]]
    unprinted: frozenset[tuple[str, str]] = frozenset()
    quotes: frozenset[str] = frozenset()
    spans: int = 0
    leaves: int = 0
    record_id: str | None = None

    @cached_property
    def copies(self) -> frozenset[str]:
        """The forms of the values that it prints."""
        return frozenset(form for _, form in self.printed)

    @cached_property
    def folded(self) -> str:
        """The text as it is compared with a record's."""
        return fold(self.text)

    @cached_property
    def squeezed(self) -> str:
        """The letters and digits of that."""
        return squeeze(self.folded)

    @cached_property
    def tokens(self) -> int:
        """About how many tokens it adds to a request."""
        return estimate_tokens(self.text) + estimate_tokens(self.answer) + _TURNS

    def turns(self, *, coded: bool = False) -> tuple[Message, Message]:
        """The example as a question and its answer; ``coded`` as ``fence`` has it."""
        question = fence(self.text, code=self.fingerprint, coded=coded)
        return Message("user", question), Message("assistant", self.answer)


class ExampleBank:
    """The examples of a recipe, and which of them a record is shown: at most ``shown``, of at most ``room`` tokens
    together, estimated. ``common`` of them, in as much room again, are shown to every record before those that are chosen
    for it."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        shown: int,
        choice: Choice,
        room: int | None = None,
        common: int = 0,
        made_up: bool = False,
    ) -> None:
        self.made_up = made_up
        self.share_copied = sum(one.spans for one in examples) / (sum(one.leaves for one in examples) or 1)
        """The share of the labels' values that are spans of their texts."""
        self._room = math.inf if room is None else room
        self._examples = tuple(examples) if made_up else _without_usual(examples)
        examples = self._examples
        self._shown = shown
        self._choice = choice
        self._common_wanted = common
        self._common = _representative(examples, common, room=self._room)
        self._in_common = frozenset(one.fingerprint for one in self._common)
        self._index = _Index([example.text for example in examples]) if choice == "similar" else None

    def of(self, record: Record) -> tuple[Example, ...]:
        """What a record is shown, in order. The same for the same record."""
        if self.made_up:
            return self._examples
        own, left = _Own(record), self._room

        def fits(place: int) -> bool:
            return self._examples[place].tokens <= left

        def able(places: Iterable[int]) -> Iterator[int]:
            for place in places:
                example = self._examples[place]
                if (
                    example.tokens <= self._room
                    and example.fingerprint not in self._in_common
                    and not own.is_in(example)
                ):
                    yield place

        common = tuple(example for example in self._common if not own.is_in(example))
        if self._index is None:
            order: Iterable[int] = able(range(len(self._examples)))
        else:
            nearest = list(islice(able(self._index.ranked(record.text)), _NEAREST))
            order = self._index.covering(record.text, nearest, fits)
        found: list[int] = []
        for place in order:
            if len(found) == self._shown:
                break
            if fits(place):
                found.append(place)
                left -= self._examples[place].tokens
        if self._index is not None:
            found.sort(key=nearest.index, reverse=True)
        return (*common, *(self._examples[place] for place in found))

    @cached_property
    def tokens(self) -> int:
        """About how many tokens the examples add to a request."""
        rest = [one for one in self._examples if one.fingerprint not in self._in_common]
        each = [one.tokens for one in rest[:200] if one.tokens <= self._room]
        chosen = min(self._room, min(self._shown, len(each)) * sum(each) / len(each)) if each else 0
        return sum(one.tokens for one in self._common) + round(chosen)

    def as_dict(self) -> dict[str, Any]:
        """What the recipe says of them."""
        digest = hashlib.sha256()
        for example in self._examples:
            named = [] if example.record_id is None else [example.record_id]
            digest.update(orjson.dumps([example.fingerprint, example.answer, *named]))
        if self.made_up:
            return {"made_up": True, "sha256": digest.hexdigest()}
        return {
            "choice": self._choice,
            **({"similar_choice": "covering"} if self._index is not None else {}),
            "shown": self._shown,
            "of": len(self._examples),
            **({"common": self._common_wanted, "common_choice": "representative"} if self._common_wanted else {}),
            "sha256": digest.hexdigest(),
        }


def example_of(
    text: str,
    expected: Any,
    value: BaseModel,
    schema: Mapping[str, Any],
    *,
    omit_nulls: bool,
    text_order: bool = False,
    record_id: str | None = None,
) -> Example:
    """A text and the answer that is ``expected`` of it, which is ``value`` when validated, in the form a model writes."""
    evidence = ground(value, text)
    ordered = in_schema_order(expected, schema, omit_nulls=omit_nulls)
    if text_order:
        ordered = in_text_order(ordered, schema, evidence)
    answer = dumps_exact(ordered)
    told = loads_exact(answer)
    leaves = [(one, leaf) for one in evidence if (leaf := _leaf(told, one.path)) is not None]
    return Example(
        text,
        answer,
        content_fingerprint(text),
        printed=frozenset(
            (_pattern(one.path), copied_form(leaf)) for one, leaf in leaves if one.match is not Match.UNGROUNDED
        ),
        unprinted=frozenset(
            (_pattern(one.path), copied_form(leaf)) for one, leaf in leaves if one.match is Match.UNGROUNDED
        ),
        quotes=frozenset(squeeze(fold(one.quote)) for one, _ in leaves if one.quote),
        spans=sum(one.match in (Match.EXACT, Match.NORMALISED) for one, _ in leaves),
        leaves=len(leaves),
        record_id=record_id,
    )


def fewer(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Half of them: of those that a record is shown the first, which stand best for all answers, and the last, which are most
    like it."""
    kept = len(examples) // 2
    first = kept // 2
    return (*examples[:first], *examples[len(examples) - (kept - first) :])


def copied_form(value: Any) -> str:
    """A leaf as it is compared with other examples' leaves, however it is spelt: a number by its value, a text by its letters
    and digits."""
    if isinstance(value, str):
        number = _NUMBER.fullmatch(value.strip())
        if number is None:
            folded = fold(value)
            return squeeze(folded) or folded
        value = orjson.Fragment(number[0])
    text = dumps_exact(value)
    try:
        return f"{Decimal(text).normalize():f}"
    except ArithmeticError:
        return text


def _without_usual(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples without what is no copy though another record does not print it: a field's usual values, such as a
    currency's code where the record has its sign, and what an example has itself that its text does not print."""
    having: Counter[str] = Counter()
    held: Counter[tuple[str, str]] = Counter()
    unprinted: set[str] = set()
    for one in {each.fingerprint: each for each in examples}.values():
        held.update(one.printed | one.unprinted)
        having.update({field for field, _ in one.printed | one.unprinted})
        unprinted |= {form for _, form in one.unprinted}
    usual = {form for (field, form), count in held.items() if count > 1 and count >= _USUAL * having[field]}
    no_copies = usual | unprinted
    return tuple(
        replace(one, printed=frozenset(each for each in one.printed if each[1] not in no_copies)) for one in examples
    )


def _pattern(path: str) -> str:
    return "/".join("*" if step.isdigit() else step for step in path.split("/"))


def _representative(examples: Sequence[Example], most: int, *, room: float) -> tuple[Example, ...]:
    """At most so many different examples of at most ``room`` tokens together, whatever the order of the file, whose answers
    stand for those of all."""
    different = {one.fingerprint: one for one in examples if one.tokens <= room} if most else {}
    # By fingerprint, so that those of equal worth are as good as drawn at random.
    pool = [different[fingerprint] for fingerprint in sorted(different)][:_LOOKED_AT]
    places = representatives(
        [features(json.loads(one.answer)) for one in pool], most, [one.tokens for one in pool], room
    )
    return tuple(pool[place] for place in places)


class _Index:
    """BM25 over words; the scripts written without spaces count by the character."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(_words(text)) for text in texts]
        lengths = [counts.total() for counts in counted]
        mean = (sum(lengths) / len(lengths) if lengths else 0.0) or 1.0
        self._count = len(texts)
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for place, counts in enumerate(counted):
            norm = _K1 * (1 - _B + _B * lengths[place] / mean)
            for word, count in counts.items():
                self._postings.setdefault(word, []).append((place, count * (_K1 + 1) / (count + norm)))

    def ranked(self, text: str) -> list[int]:
        """Places by falling similarity; those alike in their order, those with no word in common last."""
        scores = [0.0] * self._count
        for word in sorted(set(_words(text))):
            for place, weight in self._weighed(word):
                scores[place] += weight
        return sorted(range(self._count), key=lambda place: (-scores[place], place))

    def covering(self, text: str, places: Sequence[int], fits: Callable[[int], bool]) -> Iterator[int]:
        """Those of the places that still fit, each next one adding most to what those before it have of the text's words: to
        the sum of each word's greatest weight among them. Of those that add the same, the first."""
        weights: dict[int, dict[str, float]] = {place: {} for place in places}
        for word in sorted(set(_words(text))):
            for place, weight in self._weighed(word):
                if place in weights:
                    weights[place][word] = weight
        reached: dict[str, float] = {}
        left = list(places)
        while left := [place for place in left if fits(place)]:
            # Rounded, so that equals are equal.
            gains = [
                round(sum(max(0.0, weight - reached.get(word, 0.0)) for word, weight in weights[place].items()), 9)
                for place in left
            ]
            best = left.pop(gains.index(max(gains)))
            yield best
            for word, weight in weights[best].items():
                reached[word] = max(weight, reached.get(word, 0.0))

    def _weighed(self, word: str) -> Iterator[tuple[int, float]]:
        """The places that have a word, and what it is worth to them."""
        held = self._postings.get(word, ())
        rarity = math.log(1 + (self._count - len(held) + 0.5) / (len(held) + 0.5))
        return ((place, rarity * weight) for place, weight in held)


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in _WORD.findall(fold(text)):
        if _UNSPACED.search(word):
            words.extend(word)
        else:
            words.append(word)
    return words


class _Own:
    """Which examples are a record itself: by its id or its text, or nearly its text and no other values."""

    def __init__(self, record: Record) -> None:
        self._fingerprint = record.fingerprint
        # An id that was made of a text says no more than that.
        self._id = None if record.record_id.startswith("c-") else record.record_id
        self._folded = fold(record.text)
        self._squeezed = squeeze(self._folded)

    def is_in(self, example: Example) -> bool:
        """Whether the example is the record."""
        if example.fingerprint == self._fingerprint or (self._id is not None and example.record_id == self._id):
            return True
        return self._nearly(example) and all(quote in self._squeezed for quote in example.quotes)

    def _nearly(self, example: Example) -> bool:
        if example.folded == self._folded:
            return True
        if not _within_ratio(len(example.folded), len(self._folded), _LEAST_LENGTH):
            return False
        if _within_ratio(len(example.folded), len(self._folded), _NEAR_LENGTH) and (
            fuzz.ratio(example.folded, self._folded, score_cutoff=_TOO_CLOSE) > 0
        ):
            return True
        # The same words with other signs between them, or a little before or behind them.
        mine, others = sorted((self._squeezed, example.squeezed), key=len)
        return _within_ratio(len(mine), len(others), _INSIDE) and mine in others


def _within_ratio(one: int, other: int, least: float) -> bool:
    """Whether the shorter of two lengths is at least so much of the longer."""
    return min(one, other) >= least * max(one, other)


def _leaf(data: Any, path: str) -> Any:
    for step in path.split("/"):
        key = unescape(step)
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data if not isinstance(data, Mapping | list) else None
