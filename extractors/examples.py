"""Few-shot examples: labelled records that are shown with their answers before the record itself.

They come from a golden set: JSONL or Parquet with ``text`` and ``expected``, the answer as an object. ``fixed`` shows
the same first ones to every record, which keeps the prefix the same; ``similar`` shows each record those that share
its rare words, by Okapi BM25 (Robertson and Zaragoza 2009, k1 = 1.5, b = 0.75): of the forty most similar ones those that
cover its words best together, since the three most similar ones may all share the same word (Gupta, Gardner and Singh 2023,
"Coverage-based Example Selection for In-Context Learning", with BM25's weights), the most similar one last. Before
them may come some that are common to all records, those that best stand for all answers (``representatives``): they show
what the answers of the set are like, and a prompt cache has them read already. A record is never its own example: neither
the same text nor nearly the same (95 of 100 by rapidfuzz). A record's own and the common ones each take no more tokens
together than there is room for: one that does not fit beside those before it gives way to the next.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ValidationError
from rapidfuzz import fuzz

from extractors.errors import JobError
from extractors.example_answers import in_schema_order, in_text_order
from extractors.grounding import ground
from extractors.grounding.folding import fold
from extractors.prompting import fence
from extractors.qwen.requests import Message
from extractors.representatives import features, representatives
from extractors.tokens import estimate_tokens
from schemas.evidence import Match
from schemas.jsonschema import answer_schema
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
_WORD = re.compile(r"[^\W\d_]+|\d+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff]")


@dataclass(frozen=True)
class Example:
    """A labelled record. ``answer`` is its JSON, compact; ``printed`` are the answer's values that stand in its own
    text, folded: what stands in an example and not in a record was copied from the example."""

    text: str
    answer: str
    fingerprint: str
    printed: frozenset[str]

    @cached_property
    def folded(self) -> str:
        """The text as it is compared with a record's."""
        return fold(self.text)

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
        self._room = math.inf if room is None else room
        self._examples = tuple(examples)
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
        folded, left = fold(record.text), self._room

        def its_own(example: Example) -> bool:
            return example.fingerprint == record.fingerprint or _nearly_the_same(example.folded, folded)

        def fits(place: int) -> bool:
            return self._examples[place].tokens <= left

        def able(places: Iterable[int]) -> Iterator[int]:
            for place in places:
                example = self._examples[place]
                if example.tokens <= self._room and example.fingerprint not in self._in_common and not its_own(example):
                    yield place

        common = tuple(example for example in self._common if not its_own(example))
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
            digest.update(orjson.dumps([example.fingerprint, example.answer]))
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


def load_examples(
    path: Path,
    model: type[BaseModel],
    *,
    shown: int,
    choice: Choice,
    omit_nulls: bool = False,
    text_order: bool = False,
    room: int | None = None,
    common: int = 0,
) -> ExampleBank:
    """The examples of a golden set, ``read_examples``; ``room`` is how many tokens a record's own examples may have together,
    and as many those that are ``common`` to all. Raises ``JobError`` as that does, and where none is short enough."""
    examples = read_examples(path, model, omit_nulls=omit_nulls, text_order=text_order)
    shortest = min(one.tokens for one in examples)
    if room is not None and shortest > room:
        raise JobError(
            f"the shortest example of {path} has about {shortest:,} tokens, and beside a record there is room for "
            f"{room:,}, a quarter of what the model reads: give shorter ones, or leave --examples out"
        )
    return ExampleBank(examples, shown=shown, choice=choice, room=room, common=common)


def read_examples(
    path: Path, model: type[BaseModel], *, omit_nulls: bool = False, text_order: bool = False
) -> list[Example]:
    """Read a golden set. ``omit_nulls`` leaves out of the answers what the model is told to leave out, ``text_order`` has
    the rest of that in the order in which the text has it. Raises ``JobError`` naming the line that is no example of the
    schema, and where there is none."""
    examples = []
    schema = answer_schema(model)
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path}, row {number}"
        text, expected = row.get("text"), row.get("expected")
        if row.get("draft"):
            raise JobError(f"{where}: this is a draft, whose values nobody has put right: do so, and take `draft` out")
        if not isinstance(text, str) or expected is None:
            raise JobError(
                f"{where}: an example has a text and an expected answer; this has {', '.join(row) or 'none'}"
            )
        try:
            expected = json.loads(expected) if isinstance(expected, str) else expected
            value = model.model_validate_json(json.dumps(expected, default=str))
        except json.JSONDecodeError as error:
            raise JobError(f"{where}: expected is not JSON ({error.msg})") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = "/".join(map(str, first["loc"])) or "the whole"
            raise JobError(f"{where}: expected is not an answer of the schema: {field}: {first['msg']}") from error
        examples.append(example_of(text, expected, value, schema, omit_nulls=omit_nulls, text_order=text_order))
    if not examples:
        raise JobError(f"{path} holds no examples")
    return examples


def example_of(
    text: str, expected: Any, value: BaseModel, schema: Mapping[str, Any], *, omit_nulls: bool, text_order: bool = False
) -> Example:
    """A text and the answer that is ``expected`` of it, which is ``value`` when validated, in the form a model writes."""
    evidence = ground(value, text)
    ordered = in_schema_order(expected, schema, omit_nulls=omit_nulls)
    if text_order:
        ordered = in_text_order(ordered, schema, evidence)
    answer = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), default=str)
    printed = frozenset(
        folded_value(leaf)
        for one in evidence
        if one.match is not Match.UNGROUNDED and (leaf := _leaf(json.loads(answer), one.path)) is not None
    )
    return Example(text, answer, content_fingerprint(text), printed)


def fewer(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Half of them: of those that a record is shown the first, which stand best for all answers, and the last, which are most
    like it."""
    kept = len(examples) // 2
    first = kept // 2
    return (*examples[:first], *examples[len(examples) - (kept - first) :])


def folded_value(value: Any) -> str:
    """A leaf's text as it is compared with other examples' leaves."""
    return fold(value) if isinstance(value, str) else json.dumps(value)


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


def _nearly_the_same(one: str, other: str) -> bool:
    if one == other:
        return True
    short, long = sorted((len(one), len(other)))
    return short >= _NEAR_LENGTH * long and fuzz.ratio(one, other, score_cutoff=_TOO_CLOSE) > 0


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


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of the file. Raises ``JobError``."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            import pyarrow.parquet as pq

            yield from pq.read_table(path).to_pylist()
            return
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise JobError(f"{path}, line {number} is not JSON ({error.msg})") from error
                if not isinstance(row, dict):
                    raise JobError(f"{path}, line {number} is not a JSON object")
                yield row
    except (OSError, ValueError) as error:  # pyarrow's too
        raise JobError(f"the examples {path} cannot be read ({error}); give a JSONL or Parquet file") from error
