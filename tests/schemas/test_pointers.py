from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.pointers import below, escape, split, unescape


@given(st.lists(st.text(), max_size=4))
def test_keys_come_back_from_their_pointer(keys: list[str]) -> None:
    # "" is the whole, so that one empty key alone has no pointer here.
    path = "/".join(map(escape, keys))
    assert split(path) == ([] if keys == [""] else keys)


@given(st.text())
def test_a_step_has_no_slash_and_means_its_key(key: str) -> None:
    assert "/" not in escape(key) and unescape(escape(key)) == key


@pytest.mark.parametrize(
    ("key", "step"),
    [("a/b", "a~1b"), ("m~n", "m~0n"), ("~1", "~01"), ("~/", "~0~1"), (" ", " "), ('k"l', 'k"l')],
)
def test_the_examples_of_the_rfc(key: str, step: str) -> None:
    assert (escape(key), unescape(step)) == (step, key)


def test_members() -> None:
    assert (below("", "a/b"), below("a~1b/0", "c")) == ("a~1b", "a~1b/0/c")
