"""Long texts are cut on their natural borders, without gaps."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.longtext.chunks import cut
from extractors.tokens import estimate_tokens

PARAGRAPH = "The parties agree to keep what they learn of each other to themselves. " * 3


@given(st.text(alphabet="aB1 \n\f.。第一条éa\u0301👩\u200d🔬#", max_size=400), st.integers(8, 40))
def test_chunks_cover_any_text_without_gaps_and_are_short_enough(text: str, most: int) -> None:
    chunks = cut(text, most_tokens=most)

    assert "".join(chunk.of(text) for chunk in chunks) == text
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert all(estimate_tokens(chunk.of(text)) <= most + 1 or chunk.end - chunk.start < 2 for chunk in chunks)


def test_an_empty_text_has_no_chunks() -> None:
    assert cut("") == ()


def test_a_page_begins_a_chunk() -> None:
    text = f"{PARAGRAPH}\n\n{PARAGRAPH}\f{PARAGRAPH}"

    starts = [chunk.start for chunk in cut(text, most_tokens=140)]

    assert text.index("\f") in starts


def test_a_heading_begins_a_chunk_and_stays_with_what_it_heads() -> None:
    text = f"{PARAGRAPH}\n\n{PARAGRAPH}\nARTICLE IV\n{PARAGRAPH}\n"

    shown = [chunk.of(text) for chunk in cut(text, most_tokens=140)]

    assert shown[1].startswith("ARTICLE IV\nThe parties")


def test_chinese_is_cut_at_the_end_of_a_sentence_and_before_a_clause() -> None:
    text = "甲方应当在收到货物后三十日内付款。" * 8 + "\n第二条 保密\n" + "乙方应当保守秘密,不得泄露。" * 8

    shown = [chunk.of(text) for chunk in cut(text, most_tokens=130)]

    assert all(each.rstrip().endswith("。") for each in shown)
    assert any(each.startswith("第二条") for each in shown)


def test_a_line_longer_than_a_chunk_is_cut_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(400))

    shown = [chunk.of(text) for chunk in cut(text, most_tokens=64)]

    assert len(shown) > 10
    assert all(each.endswith(" ") for each in shown[:-1])


def test_the_number_of_a_line_is_not_cut_from_what_it_numbers() -> None:
    text = "".join(f"{number}. brass screw, {number} euros\n" for number in range(1, 40))
    text += "  a. one more of them. And another\n\f12.3. the last\n"

    borders = {chunk.start for most in range(8, 80) for chunk in cut(text, most_tokens=most)}

    assert not [at for at in borders if re.search(r"(?m)^[^\S\n]*[\w.]+\.\s$", text[:at])]
    assert text.index("And another") in borders


@pytest.mark.parametrize("run", [" ", "\t", ".", "!?", "a\u0301", "\u0301", "\u200d"])
def test_a_long_run_of_what_has_no_border_is_cut_in_time_that_grows_with_it(run: str) -> None:
    text = run * (60_000 // len(run))

    begun = time.process_time()
    chunks = cut(text)

    assert "".join(chunk.of(text) for chunk in chunks) == text
    assert time.process_time() - begun < 5
