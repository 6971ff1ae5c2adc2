"""A model that reads a list: it gives the numbered lines of the record that it is shown, forgets some, and is cut off at its
output limit. What it forgets depends on a seed and on the line, so that a run can be repeated."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.told import Reply

_RECORD = re.compile(r"=== RECORD(?: \w+)?\n(.*)\n=== END", re.DOTALL)
_LINE = re.compile(r"^(\d+)\. (?P<name>[^,\n]+), (?P<price>\d+\.\d\d) EUR\.$", re.MULTILINE)
_DONE = re.compile(r"was cut off\. (\d+) items of")


def catalogue(count: int, *, words: str = "sturdy, zinc-plated, in a box of its own") -> str:
    """A text of so many numbered items."""
    return "".join(f"{n}. {name_of(n)}, {price_of(n)} EUR.\nIt is {words}.\n" for n in range(1, count + 1))


def name_of(number: int) -> str:
    """The name of an item, which only it has."""
    return f"Hinge type {number * 7919 % 100_003}-{number}"


def price_of(number: int) -> str:
    """Its price, which many others have too."""
    return f"{number % 13}.{number % 7}0"


@dataclass(slots=True)
class ListingModel:
    """``forgets`` is the share of items that a first answer leaves out, ``forgets_again`` that of an answer for missing ones.
    ``name`` is the list's name. ``counts`` may lie."""

    forgets: float = 0.0
    forgets_again: float = 0.0
    seed: int = 0
    name: str = "items"
    counts: Callable[[int], int] = lambda found: found
    read: Callable[[str], Sequence[dict[str, Any]]] | None = None
    characters: int = 4
    """Of a token."""
    windows: list[str] = field(default_factory=list)

    def answer(self, words: str, asked: str, most_tokens: int) -> tuple[str, str]:
        """The answer's text and why it ended. ``words`` are those of the system message, ``asked`` the user's."""
        match = _RECORD.search(asked)
        assert match is not None
        shown = match[1]
        self.windows.append(shown)
        there = list(self.read(shown)) if self.read is not None else _items(shown)
        gap = "An answer about this record has" in asked
        if gap:
            known = asked.split("of each the beginning:\n")[1].split("\nRead the record again")[0]
            labels = set(known.splitlines())
            items = [item for item in there if f"- {item['name']} | {item['price']}" not in labels]
            items = [item for item in items if not self._is_forgotten(item, shown, self.forgets_again, "again")]
        else:
            items = [item for item in there if not self._is_forgotten(item, shown, self.forgets, "first")]
        done = _DONE.search(asked)
        head: dict[str, Any] = {}
        if done is not None:
            items = items[int(done[1]) :]
        elif f"{self.name}_count" in words and not gap:
            head = {f"{self.name}_count": self.counts(len(there))}
        if '"title"' in words:
            head["title"] = "Catalogue"
        text = json.dumps({**head, self.name: items}, separators=(",", ":"))
        if f'"{self.name}"' not in words:
            text = json.dumps(head)
        most = most_tokens * self.characters
        return (text, "stop") if len(text) <= most else (text[:most], "length")

    def __call__(self, body: Any) -> Reply:
        """As an answer function of the simulator."""
        words, asked = body["messages"][0]["content"], body["messages"][-1]["content"]
        return Reply(*self.answer(words, asked, int(body["max_tokens"])))

    def _is_forgotten(self, item: dict[str, Any], shown: str, share: float, when: str) -> bool:
        return random.Random(f"{self.seed} {when} {item['name']} {shown[:40]}").random() < share


def _items(shown: str) -> list[dict[str, Any]]:
    return [{"name": match["name"], "price": float(match["price"])} for match in _LINE.finditer(shown)]
