from __future__ import annotations

import json
import random

import pytest

from extractors.qwen.loops import LoopWatch


def watch(text: str, *, piece: int = 4) -> str:
    loop = LoopWatch()
    for at in range(0, len(text), piece):
        loop.feed(text[at : at + piece])
        if loop.found:
            break
    return loop.found


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_whitespace_without_end_is_a_loop(piece: int) -> None:
    assert watch('{"a": 1' + " \n" * 300, piece=piece) == "whitespace"


def test_indentation_is_none() -> None:
    deep: object = 1
    for _ in range(60):
        deep = {"a": deep}
    assert watch(json.dumps(deep, indent=4)) == ""


@pytest.mark.parametrize("stretch", ["0", '{"name": "kettle", "price": 1.5}, ', "abc" * 90])
def test_the_same_stretch_over_and_over_is_a_loop(stretch: str) -> None:
    assert watch('{"items": [' + stretch * (4500 // len(stretch))) == "repetition"


def test_a_list_of_like_items_is_none_as_long_as_something_in_them_differs() -> None:
    items = [{"name": "kettle", "price": 1.5, "row": number} for number in range(400)]
    assert watch(json.dumps(items)) == ""


def test_a_long_list_of_few_equal_items_is_none() -> None:
    assert watch(json.dumps([{"name": "kettle", "price": 1.5}] * 60)) == ""


def test_text_without_a_pattern_is_none() -> None:
    draw = random.Random(1)
    assert watch("".join(draw.choice("abcdefgh ,{}") for _ in range(20_000))) == ""
