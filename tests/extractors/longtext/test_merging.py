"""Items of windows that overlap become one list: each item once, in the text's order."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from extractors.grounding import ground
from extractors.longtext.counting import numbered, unmet
from extractors.longtext.merging import Found, joined, keyed, placed, with_missing, without_repeats
from extractors.longtext.windows import Window, windows

LINE = re.compile(r"^\d+\. (?P<name>[^,\n]+), (?P<price>\d+)$", re.MULTILINE)


class Item(BaseModel):
    name: str
    price: int | None


class Items(BaseModel):
    items: list[Item]


def found(items: list[Item], text: str, window: Window, *, key: tuple[str, ...] = ()) -> list[Found]:
    """What an answer about a window gives."""
    evidence = ground(Items(items=items), window.of(text))
    made = []
    for at, item in enumerate(items):
        prefix = f"items/{at}/"
        own = []
        for one in evidence:
            if one.path.startswith(prefix):
                start = None if one.start is None else one.start + window.start
                end = None if one.end is None else one.end + window.start
                own.append(type(one)(one.path.removeprefix(prefix), one.match, one.quote, start, end, one.score))
        made.append(keyed(Found(item, item.model_dump_json(), tuple(own), window.number), key))
    return made


def read(text: str) -> list[Item]:
    return [Item(name=match["name"], price=int(match["price"])) for match in LINE.finditer(text)]


def merged(text: str, cut: tuple[Window, ...], *, key: tuple[str, ...] = ()) -> list[Item]:
    items: list[Found] = []
    for window in cut:
        here = placed(found(read(window.of(text)), text, window, key=key), text, window)
        items = joined(items, here, (window.start, cut[window.number - 2].end)) if items else here
    return [item.value for item in without_repeats(items)]  # type: ignore[misc]


names = st.sampled_from(["hinge", "brass screw", "nut and bolt", "a", "ab", "绳子", "door 77", "Ölkanne"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(names, st.integers(0, 12), st.booleans()), max_size=60),
    st.integers(60, 400),
    st.integers(20, 60),
)
def test_what_the_windows_hold_is_what_the_text_holds(
    items: list[tuple[str, int, bool]], most: int, overlap: int
) -> None:
    text = "".join(
        f"{n}. {name}, {price}\n" + ("It is sturdy. It is blue.\n" if more else "")
        for n, (name, price, more) in enumerate(items, start=1)
    )

    assert merged(text, windows(text, most_tokens=most, overlap_tokens=overlap)) == read(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=3_000), st.integers(32, 500), st.integers(0, 100))
def test_windows_cover_the_text_in_order_and_share_their_borders(text: str, most: int, overlap: int) -> None:
    cut = windows(text, most_tokens=most, overlap_tokens=overlap)

    assert [window.number for window in cut] == list(range(1, len(cut) + 1))
    assert (cut[0].start, cut[-1].end) == (0, len(text)) if cut else not text
    for one, other in pairwise(cut):
        assert one.start < other.start <= one.end < other.end


def window_of(text: str) -> Window:
    return Window(1, 0, len(text))


def test_of_an_item_that_a_border_cut_the_whole_one_is_kept() -> None:
    text = "Hinge No. 1 for 5 euros. Screw for 7 euros."
    left = placed(found([Item(name="Screw", price=None)], text, window_of(text)), text, window_of(text))
    right = placed(found([Item(name="Screw", price=7)], text, window_of(text)), text, window_of(text))

    assert [each.value for each in joined(left, right, (20, len(text)))] == [Item(name="Screw", price=7)]


def test_what_only_one_window_saw_of_the_overlap_is_put_in_its_place() -> None:
    text = "Alpha 1, Beta 2, Gamma 3, Delta 4."
    a, b, c, d = (Item(name=name, price=n) for n, name in enumerate(["Alpha", "Beta", "Gamma", "Delta"], start=1))
    left = placed(found([a, b, d], text, window_of(text)), text, window_of(text))
    right = placed(found([b, c, d], text, window_of(text)), text, window_of(text))

    assert [each.value for each in joined(left, right, (9, len(text)))] == [a, b, c, d]


def test_an_answer_that_repeats_itself_is_taken_once() -> None:
    text = "Alpha costs 1 and Beta costs 2."
    a, b = Item(name="Alpha", price=1), Item(name="Beta", price=2)

    assert [one.value for one in placed(found([a, b, a, b], text, window_of(text)), text, window_of(text))] == [a, b]


def test_a_missing_item_goes_before_the_first_that_stands_after_it() -> None:
    text = "Alpha costs 1, Beta costs 2, Gamma costs 3."
    a, b, c = (Item(name=name, price=n) for n, name in enumerate(["Alpha", "Beta", "Gamma"], start=1))
    [first, last, missing] = placed(found([a, c, b], text, window_of(text)), text, window_of(text))

    assert [each.value for each in with_missing([first, last], [missing])] == [a, b, c]


def test_items_of_one_key_fill_each_other() -> None:
    text = "Alpha. Beta costs 2. alpha costs 1."
    given_items = [Item(name="Alpha", price=None), Item(name="Beta", price=2), Item(name="alpha", price=1)]
    items = placed(found(given_items, text, window_of(text), key=("name",)), text, window_of(text))

    [first, second] = without_repeats(items)
    assert first.value == Item(name="Alpha", price=1) and second.value == Item(name="Beta", price=2)
    assert [one.quote for one in first.evidence] == ["Alpha", "1"]


def test_a_numbering_tells_what_is_missing_unless_its_lines_are_no_items() -> None:
    text = "".join(f"{n}. Alpha{n}, {n}\n" for n in range(1, 21))
    items = read(text)
    all_there = placed(found(items, text, window_of(text)), text, window_of(text))

    assert len(numbered(text)) == 20 and numbered("1. a\n2. b\n") == []
    assert unmet(all_there, text, window_of(text)) == 0
    assert unmet([one for one in all_there if one.value.price not in (4, 9)], text, window_of(text)) == 2  # type: ignore[attr-defined]
    assert unmet(all_there[:3], text, window_of(text)) == 0
