from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extractors.qwen.json_end import JsonEnd


def end(*pieces: str) -> JsonEnd:
    scan = JsonEnd()
    for piece in pieces:
        scan.feed(piece)
    return scan


def test_the_end_is_the_closing_of_the_first_bracket() -> None:
    assert end('{"a": {"b": [1]}}').complete
    assert not end('{"a": {"b": [1]}').complete


def test_brackets_and_quotes_inside_of_strings_do_not_count() -> None:
    assert not end(r'{"a": "}\"}').complete
    assert not end('{"a": "\\', '"}').complete
    assert end('{"a": "\\', '"}"', "}").complete


def test_an_escaped_backslash_does_not_escape_the_quote() -> None:
    assert end('{"a": "\\\\', '"}').complete
    assert end('{"a": "\\', "\\", '"}').complete


def test_text_that_is_not_bare_json_has_no_end_that_is_known() -> None:
    for text in ('```json\n{"a":1}\n```', 'Here: {"a":1}', "<think>{}</think>", "]"):
        scan = end(text)
        assert (scan.complete, scan.readable) == (False, False)


def test_a_bracket_that_closes_another_makes_the_text_unreadable() -> None:
    scan = end('{"a": [1}}')
    assert (scan.complete, scan.readable) == (False, False)


def test_what_comes_after_the_value_is_counted() -> None:
    scan = end(' {"a":1} ', "\n\n")
    assert (scan.complete, scan.extra) == (True, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON), st.booleans(), st.lists(st.integers(0, 300), max_size=8))
def test_any_object_is_complete_with_its_last_character_and_not_before(
    value: dict[str, Any], plain: bool, cuts: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=plain, indent=None if plain else 1)
    places = sorted({0, len(text) - 1, *(cut for cut in cuts if cut < len(text))})
    scan = end(*(text[a:b] for a, b in pairwise(places)))
    assert not scan.complete
    scan.feed(text[-1:])
    assert scan.complete
    assert scan.extra == 0


@given(st.lists(st.text(alphabet='{}[]"\\ a,:')))
def test_no_text_makes_it_raise(pieces: list[str]) -> None:
    end(*pieces)
