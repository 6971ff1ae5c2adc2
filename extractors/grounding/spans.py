"""Places of a string in a text: as it is, folded, without punctuation, and nearly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

from extractors.grounding.dates import DateIndex, Place
from extractors.grounding.edges import UNSPACED, at_edges, glued
from extractors.grounding.folding import Folded, Squeezed, fold, squeeze
from extractors.grounding.numbers import Hit, NumberIndex, is_whole_number, number_words

MOST_PLACES = 32
"""Occurrences of one value that are weighed against each other."""
_MOST_TRIES = 256
_REREADS = 4
"""A text's length of needles that are compared anew, before one that overlaps itself is read on."""
PREPARED = 1_000_000
"""Characters of a text that are folded and scanned for numbers and dates; beyond them only exact finds reach."""

FUZZY_SCORE = 0.85
SHORTEST_FUZZY = 5
_LONGEST_FUZZY = 4_000
_SLIDE_TEXT = 50_000
_SLIDE_VALUE = 128
"""Up to these lengths every window of the text is compared; beyond, only windows around shared seeds."""
_SEED = 5
_MOST_SEEDS = 16
_MOST_WINDOWS = 24
_FUZZY_WORK = 40_000_000
"""Characters that seeds may be searched in, and cells that alignments may fill in steps of 64, per record."""

_DIGITS = re.compile(r"\d+")


class Haystack:
    """A record's text, prepared at most once for all that is looked up in it, and only when needed.

    Holds up to three more copies of the text once a value was not found as it is, and where each value stands.
    Preparing stops after the first million characters, which bounds the time for any text at about a second.
    """

    __slots__ = ("_dates", "_exact", "_folded", "_in_folded", "_numbers", "_squeezed", "_work", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # A model that loops says one value hundreds of times.
        self._exact: dict[str, list[Place]] = {}
        self._in_folded: dict[str, list[Place]] = {}
        self._folded: Folded | None = None
        self._squeezed: Squeezed | None = None
        self._numbers: NumberIndex | None = None
        self._dates: DateIndex | None = None
        self._work = _FUZZY_WORK

    @property
    def folded(self) -> Folded:
        """The folded text."""
        if self._folded is None:
            self._folded = Folded(self.text[:PREPARED])
        return self._folded

    @property
    def squeezed(self) -> Squeezed:
        """The folded text without white space and punctuation."""
        if self._squeezed is None:
            self._squeezed = Squeezed(self.folded.text)
        return self._squeezed

    @property
    def dates(self) -> DateIndex:
        """The dates and times of the text."""
        if self._dates is None:
            self._dates = DateIndex(self.text[:PREPARED])
        return self._dates

    def exact(self, value: str) -> list[Place]:
        """Where ``value`` stands as it is: whole words if there are any, else the first place inside a word."""
        if value not in self._exact:
            self._exact[value] = occurrences(self.text, value)
        return self._exact[value]

    def normalised(self, value: str) -> list[Place]:
        """Where ``value`` stands but for case, width, white space and, if it holds a letter, punctuation."""
        needle = fold(value)
        if not needle:
            return []
        folded = self.folded
        places = self._folded_places(needle)
        if places:
            return [folded.span(start, end) for start, end in places]
        return self._unpunctuated(needle)

    def _folded_places(self, needle: str) -> list[Place]:
        if needle not in self._in_folded:
            self._in_folded[needle] = occurrences(self.folded.text, needle)
        return self._in_folded[needle]

    def _unpunctuated(self, needle: str) -> list[Place]:
        bare = squeeze(needle)
        letter = next((char for char in bare if char.isalpha()), "")
        if not letter or len(bare) < (2 if UNSPACED.match(letter) else 3):
            return []
        folded, squeezed = self.folded, self.squeezed
        digits = _DIGITS.findall(needle)
        places: list[Place] = []
        at = squeezed.text.find(bare)
        tries = 0
        while at >= 0 and len(places) < MOST_PLACES and tries < _MOST_TRIES:
            start, end = squeezed.span(at, at + len(bare))
            # "1.5 kg" must not meet "15 kg".
            if at_edges(folded.text, start, end) and _DIGITS.findall(folded.text, start, end) == digits:
                places.append(folded.span(start, end))
            at = squeezed.text.find(bare, at + 1)
            tries += 1
        return places

    def number(self, value: Decimal) -> list[Hit]:
        """Where a number equal to ``value`` is printed in digits or, from 1 to 12, as a word."""
        if self._numbers is None:
            self._numbers = NumberIndex(self.text[:PREPARED])
        hits = self._numbers.find(value)
        if not hits and 1 <= value <= 12 and value == int(value):
            folded = self.folded
            for word in number_words()[int(value)]:
                hits += [
                    (*folded.span(start, end), 0.9)
                    for start, end in self._folded_places(word)
                    if at_edges(folded.text, start, end)
                ]
        return hits

    def printed_number(self, printed: str) -> list[Place]:
        """Where exactly these characters stand as a number of their own."""
        text = self.text
        places: list[Place] = []
        at = text.find(printed)
        tries = 0
        while at >= 0 and len(places) < MOST_PLACES and tries < _MOST_TRIES:
            end = at + len(printed)
            if is_whole_number(text, at, end):
                places.append((at, end))
            at = text.find(printed, end)
            tries += 1
        return places

    def date(self, value: date) -> list[Place]:
        """Where a date that can be read as ``value`` is printed. ISO forms are looked for first: a scan of
        the whole text for dates costs more than all the rest of a record's evidence."""
        printed = value.isoformat()
        start = self.text.find(printed)
        while start >= 0:
            end = start + len(printed)
            if not (self.text[start - 1 : start].isalnum() or self.text[end : end + 1].isalnum()):
                return [(start, end)]
            start = self.text.find(printed, end)
        return self.dates.find(value)

    def time(self, value: time) -> list[Place]:
        """Where ``value`` is printed as wall-clock time."""
        return self.dates.find_time(value)

    def similar(self, value: str) -> Hit | None:
        """The stretch most like ``value`` if it scores at least 0.85 and agrees in every digit.

        Work per record is bounded, by counting and not by the clock, so the same text always gives the
        same answer: on long texts only the surroundings of shared five-character seeds are compared.
        """
        needle = fold(value)
        if not SHORTEST_FUZZY <= len(needle) <= _LONGEST_FUZZY or not any(char.isalpha() for char in needle):
            return None
        folded = self.folded
        text = folded.text
        if len(text) <= _SLIDE_TEXT and len(needle) <= min(_SLIDE_VALUE, len(text)):
            found = self._slide(needle)
        else:
            found = self._from_seeds(needle)
        if found is None:
            return None
        start, end = _to_edges(text, found[0], found[1])
        while start < end and not text[start].isalnum() and text[start] != needle[0]:
            start += 1
        while start < end and not text[end - 1].isalnum() and text[end - 1] != needle[-1]:
            end -= 1
        score = fuzz.ratio(needle, text[start:end]) / 100
        if score < FUZZY_SCORE or "".join(_DIGITS.findall(needle)) != "".join(_DIGITS.findall(text, start, end)):
            return None
        return (*folded.span(start, end), round(score, 4))

    def _spend(self, work: int) -> bool:
        self._work -= work
        return self._work >= 0

    def _slide(self, needle: str) -> Place | None:
        if not self._spend(len(self.folded.text) * (1 + len(needle) // 64) * 4):
            return None
        best = fuzz.partial_ratio_alignment(needle, self.folded.text, score_cutoff=100 * FUZZY_SCORE)
        return None if best is None else (best.dest_start, best.dest_end)

    def _from_seeds(self, needle: str) -> Place | None:
        text = self.folded.text
        count = min(max(len(needle) // _SEED, 1), _MOST_SEEDS)
        slack = max(len(needle) * 3 // 10, 4)
        weights: dict[int, float] = {}
        diagonals: dict[int, tuple[float, int]] = {}
        for index in range(count):
            if not self._spend(len(text)):
                break
            # Spread evenly but not at a constant step, which could fall in with the words' own rhythm.
            offset = index * (len(needle) - _SEED) // max(count - 1, 1)
            seed = needle[offset : offset + _SEED]
            places: list[int] = []
            at = text.find(seed)
            while at >= 0 and len(places) < _MOST_WINDOWS:
                places.append(at)
                at = text.find(seed, at + 1)
            # Windows that lie on top of each other are one. A rare seed tells more than a frequent one, and
            # a seed repeated within a window tells nothing more.
            weight = 1 / max(len(places), 1)
            for origin, diagonal in {(at - offset) // slack: max(at - offset, 0) for at in places}.items():
                weights[origin] = weights.get(origin, 0) + weight
                diagonals[origin] = max(diagonals.get(origin, (0.0, 0)), (weight, diagonal))
        best: tuple[float, int, int] | None = None
        for origin in sorted(weights, key=lambda each: (-weights[each], each))[:_MOST_WINDOWS]:
            low = max((origin - 1) * slack, 0)
            high = min((origin + 2) * slack + len(needle), len(text))
            if not self._spend((high - low) * (1 + len(needle) // 64)):
                break
            for start, end in self._candidates(needle, low, high, diagonals[origin][1]):
                score = fuzz.ratio(needle, text[start:end])
                if best is None or score > best[0]:
                    best = (score, start, end)
        # Moving the ends to whole words can still gain a little.
        return None if best is None or best[0] < 100 * FUZZY_SCORE - 10 else best[1:]

    def _candidates(self, needle: str, low: int, high: int, diagonal: int) -> list[Place]:
        """As long as the needle from where its rarest seed says, and from the first to the last agreement."""
        text = self.folded.text
        candidates = [(diagonal, min(diagonal + len(needle), len(text)))]
        blocks = [block for block in Indel.opcodes(needle, text[low:high]) if block.tag == "equal"]
        # Stray letters that agree far from the rest would stretch the quote.
        solid = [block for block in blocks if block.src_end - block.src_start >= 3] or blocks
        if solid:
            candidates.append((low + solid[0].dest_start, low + solid[-1].dest_end))
        return candidates


def occurrences(text: str, needle: str) -> list[Place]:
    """Places of ``needle`` that end at words' edges; failing those its first place inside a word.

    Inside a word counts only what can hardly be there by chance: three characters with a letter, or six digits.
    """
    length = len(needle)
    places: list[Place] = []
    first = -1
    beyond = 0
    for at in _starts(text, needle):
        first = at if first < 0 else first
        if at >= beyond and at_edges(text, at, at + length):
            beyond = at + length
            places.append((at, beyond))
            if len(places) == MOST_PLACES:
                break
    if places or first < 0:
        return places
    if length >= 3 and any(char.isalpha() for char in needle):
        return [(first, first + length)]
    if length >= 6 and sum(char.isdigit() for char in needle) >= 6:
        return [(first, first + length)]
    if not any(char.isalnum() for char in needle):
        return [(first, first + length)]
    return []


def _starts(text: str, needle: str) -> Iterator[int]:
    """Where ``needle`` begins, overlapping itself too. However often that is, the time grows only with the text."""
    length = len(needle)
    at = text.find(needle)
    # Each find reads the needle once more, which is its square where it overlaps itself all along the text.
    left = _REREADS * len(text)
    while at >= 0 and left > 0:
        yield at
        left -= length
        at = text.find(needle, at + 1)
    if at >= 0:
        yield from _overlapping(text, needle, at)


def _overlapping(text: str, needle: str, start: int) -> Iterator[int]:
    """The same from ``start`` on, reading each character once (Knuth, Morris and Pratt): slower, but for such a needle."""
    length = len(needle)
    borders = [0] * (length + 1)
    shared = 0
    for at in range(1, length):
        while shared and needle[at] != needle[shared]:
            shared = borders[shared]
        shared += needle[at] == needle[shared]
        borders[at + 1] = shared
    agreed = 0
    for at in range(start, len(text)):
        while agreed and (agreed == length or text[at] != needle[agreed]):
            agreed = borders[agreed]
        agreed += text[at] == needle[agreed]
        if agreed == length:
            yield at + 1 - length


def _to_edges(text: str, start: int, end: int) -> Place:
    """``start`` and ``end`` moved outwards to the next word's edge, if it is near."""
    for _ in range(3):
        if start and glued(text, start):
            start -= 1
        if end < len(text) and glued(text, end):
            end += 1
    return start, end
