"""What holds of evidence for any text."""

from __future__ import annotations

import json
import os
import unicodedata
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.grounding import Haystack, ground
from extractors.grounding.folding import Folded, Squeezed, fold, squeeze
from schemas.evidence import Match

DATA = Path(os.environ.get("QUARRY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

NASTY = "eéE\u0301\u0323İıißẞﬁﬃ㍿ǅＡ１ ｶﾞ가\u1100\u1161\u11a8שלום\u200d\u200b\u200f\ufe0f👨👩👍🏽𝒜\ufffe\uffff\ud800¨´  \t\n“’—-.,1a中"
anything = st.text(st.one_of(st.sampled_from(NASTY), st.characters()), max_size=60)
values = st.one_of(
    anything,
    st.text(st.sampled_from("aB1 .,-éß"), max_size=8),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.booleans(),
    st.uuids(),
    st.binary(max_size=8),
)


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set QUARRY_DATA")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@given(anything, st.lists(values, max_size=6))
def test_every_quote_is_what_stands_at_its_offsets(text: str, leaves: list[object]) -> None:
    evidence = ground({"all": leaves}, text)
    assert [each.path for each in evidence] == [f"all/{index}" for index in range(len(leaves))]
    for each in evidence:
        if each.match is Match.UNGROUNDED:
            assert (each.quote, each.start, each.end) == (None, None, None)
        else:
            assert each.start is not None and each.end is not None
            assert 0 <= each.start < each.end <= len(text)
            assert text[each.start : each.end] == each.quote
            assert 0.85 <= each.score <= 1


@given(anything, st.data())
def test_folded_offsets_lead_back_to_what_was_folded(text: str, data: st.DataObject) -> None:
    folded = Folded(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    low, high = folded.span(start, end)
    assert 0 <= low < high <= len(text)
    assert folded.span(0, len(folded.text))[0] <= low
    # Folding the quote again gives what was sought, or more where one character folds to several.
    assert folded.text[start:end].strip() in Folded(text[low:high]).text


@given(st.text(st.characters(categories=["L", "N", "Sc", "Po"]), max_size=60))
def test_folding_agrees_with_unicode_for_letters_and_digits(text: str) -> None:
    if any(char in "İı" for char in text) or "\u0307" in unicodedata.normalize("NFKD", text):
        return
    expected = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    simplified = expected.translate(str.maketrans({"ʼ": "'", "`": "'", "′": "'", "＇": "'", "＂": '"', "″": '"'}))
    if " " in simplified or text != text.translate(str.maketrans({char: "" for char in "′″ʼ´`"})):
        return
    assert fold(text) == simplified


@given(anything)
def test_folding_is_stable_and_has_no_runs_of_space(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded or not folded.isascii()
    assert "\n" not in folded and "\t" not in folded


@given(anything, st.data())
def test_squeezed_offsets_lead_back_to_the_same_characters(text: str, data: st.DataObject) -> None:
    folded = Folded(text * data.draw(st.sampled_from([1, 20]))).text
    squeezed = Squeezed(folded)
    if not squeezed.text:
        return
    start = data.draw(st.integers(0, len(squeezed.text) - 1))
    end = data.draw(st.integers(start + 1, len(squeezed.text)))
    low, high = squeezed.span(start, end)
    assert squeeze(folded[low:high]) == squeezed.text[start:end]


words = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc"]), min_size=1, max_size=12)


@given(st.lists(words, max_size=8), words.filter(lambda word: not word.isspace()), st.lists(words, max_size=8))
def test_a_planted_string_is_found_exactly(before: list[str], value: str, after: list[str]) -> None:
    text = " ".join([*before, value, *after])
    (evidence,) = ground({"v": value}, text)
    assert (evidence.match, evidence.quote) == (Match.EXACT, value)


@given(
    st.lists(words, max_size=4), st.text("abcdefgh xyzäöüéñçß", min_size=4, max_size=30), st.lists(words, max_size=4)
)
def test_a_planted_string_is_found_in_other_case_and_spacing(before: list[str], value: str, after: list[str]) -> None:
    if not value.strip():
        return
    printed = unicodedata.normalize("NFD", value.strip().upper()).replace(" ", " \n ")
    text = " | ".join([*before, printed, *after])
    (evidence,) = ground({"v": value}, text)
    assert evidence.match in (Match.EXACT, Match.NORMALISED)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2), st.sampled_from([",.", ".,", "'.", " ,", "\u202f,"]))
def test_a_planted_number_is_found_in_any_convention(value: Decimal, marks: str) -> None:
    printed = f"{value:,.2f}".replace(",", "G").replace(".", marks[1]).replace("G", marks[0])
    (evidence,) = ground({"v": value}, f"Total: {printed} due")
    assert evidence.match in (Match.EXACT, Match.VALUE)
    assert evidence.quote == printed or value == 0


@given(
    st.dates(min_value=date(1930, 1, 1), max_value=date(2029, 12, 31)),
    st.sampled_from(
        ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%d %b %Y", "%B %d, %Y", "%Y年%m月%d日", "%d-%b-%y"]
    ),
)
def test_a_planted_date_is_found_in_any_order(value: date, form: str) -> None:
    printed = value.strftime(form)
    (evidence,) = ground({"v": value}, f"Dated {printed}; page 3")
    assert (evidence.match, evidence.quote) == (Match.VALUE, printed)


def test_naughty_strings_planted_in_a_text_are_found_where_they_stand() -> None:
    for row in rows("naughty_strings/records.jsonl"):
        value = row["text"]
        for text in (f"before {value} after", f"{value}", f"«{value}»\n中文 {value}"):
            (evidence,) = ground({"v": value}, Haystack(text))
            if not value or value.isspace():
                assert evidence.match is Match.UNGROUNDED
                continue
            assert evidence.match is Match.EXACT, row["id"]
            assert text[evidence.start : evidence.end] == evidence.quote == value


@pytest.mark.parametrize(
    ("name", "grounded", "false"), [("sroie", 0.98, 0.06), ("resume_zh", 0.99, 0.06), ("mit_restaurant", 0.99, 0.04)]
)
def test_labels_of_real_records_are_grounded_and_those_of_others_are_not(
    name: str, grounded: float, false: float
) -> None:
    records = rows(f"{name}/records.dev.jsonl")
    own = others = found = mistaken = 0
    for record, other in zip(records, records[1:] + records[:1], strict=True):
        for each in ground(record["expected"], record["text"]):
            own += 1
            if each.match is not Match.UNGROUNDED:
                found += 1
                assert record["text"][each.start : each.end] == each.quote
        for each in ground(other["expected"], record["text"]):
            others += 1
            mistaken += each.match is not Match.UNGROUNDED
    assert found / own >= grounded
    assert mistaken / others <= false
