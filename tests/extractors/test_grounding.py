"""Evidence of whole objects: paths, kinds of match, choice among places, bounds on work."""

from __future__ import annotations

import time as clock
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from extractors.grounding import Haystack, ground, is_classification, ungrounded_paths
from extractors.grounding.edges import at_edges, is_span
from extractors.grounding.spans import _overlapping, _starts
from schemas.evidence import Evidence, Match


class Item(BaseModel):
    name: str
    quantity: int
    price: Decimal


class Receipt(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    shop: str
    day: date | None = None
    items: list[Item] = []
    total_due: float | None = Field(default=None, alias="total")
    paid: bool | None = None


RECEIPT = """99 SPEED MART S/B (519537-X)
LOT P.T. 2811, JALAN ANGSA,
TAMAN BERKELEY
41150 KLANG, SELANGOR
07-02-18  03:16PM
LYCHEES IN SYRUP   3   RM 3.38   10.14
CSR GULA           1   RM 35.20  35.20
TOTAL RM 45.34
"""


def one(value: object, text: str) -> Evidence:
    (evidence,) = ground({"field": value}, text)
    if evidence.match is Match.UNGROUNDED:
        assert (evidence.quote, evidence.start, evidence.end) == (None, None, None)
    else:
        assert text[evidence.start : evidence.end] == evidence.quote
    return evidence


def test_every_leaf_that_is_not_null_has_evidence_under_its_json_path() -> None:
    receipt = Receipt(
        shop="99 SPEED MART S/B",
        day=date(2018, 2, 7),
        items=[Item(name="CSR GULA", quantity=1, price=Decimal("35.20"))],
        total=45.34,
    )
    evidence = ground(receipt, RECEIPT)
    assert [(each.path, each.match) for each in evidence] == [
        ("shop", Match.EXACT),
        ("day", Match.VALUE),
        ("items/0/name", Match.EXACT),
        ("items/0/quantity", Match.EXACT),
        ("items/0/price", Match.EXACT),
        ("total", Match.EXACT),
    ]
    assert all(RECEIPT[each.start : each.end] == each.quote for each in evidence)


def test_map_keys_are_escaped_as_in_a_json_pointer() -> None:
    assert [each.path for each in ground({"a/b": {"~c": "x"}, "m~n": ["y"]}, "x y")] == ["a~1b/~0c", "m~0n/0"]


def test_extra_fields_and_root_models_are_walked() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Names(RootModel[list[str]]):
        pass

    assert [each.path for each in ground(Open.model_validate({"more": "x"}), "x")] == ["more"]
    assert [each.path for each in ground(Names(["x", "y"]), "x y")] == ["0", "1"]


def test_skipped_fields_have_no_evidence() -> None:
    value = {"a": "x", "b": [{"c": "x", "d": "x"}]}
    assert [each.path for each in ground(value, "x", skip=["a", "b/*/d"])] == ["b/0/c"]


def test_a_value_printed_twice_is_taken_near_its_siblings() -> None:
    evidence = {each.path: each for each in ground({"name": "CSR GULA", "quantity": 1, "price": 35.2}, RECEIPT)}
    name_at = RECEIPT.index("CSR GULA")
    assert name_at < (evidence["quantity"].start or 0) < (evidence["price"].start or 0) < RECEIPT.index("TOTAL")


def test_without_siblings_the_first_place_is_taken() -> None:
    assert one("ab", "xy ab ab").start == 3


def test_a_whole_word_comes_before_an_earlier_place_inside_a_word() -> None:
    assert one("art", "smart art").start == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [("cat", "category " * 300 + "a cat"), ("7", "row 17 " * 300 + "and 7 "), ("é", "té " * 300 + "é")],
)
def test_a_whole_word_is_found_behind_hundreds_of_places_inside_words(value: str, text: str) -> None:
    assert (one(value, text).match, one(value, text).start) == (Match.EXACT, text.rindex(value))


@pytest.mark.parametrize("value", ["a", "a" * 300, "a" * 5_000, "a" * 75_000])
def test_a_value_that_overlaps_itself_all_along_the_text_is_found_at_its_edge(value: str) -> None:
    hostile = "a" * 150_000
    start = clock.process_time()
    assert one(value, f"{hostile} {value} b").start == len(hostile) + 1
    # A tenth of a second when the machine is free.
    assert clock.process_time() - start < 2


@given(st.text(st.sampled_from("ab "), max_size=40), st.text(st.sampled_from("ab "), min_size=1, max_size=6))
def test_every_whole_word_is_found_however_often_it_overlaps_itself(text: str, value: str) -> None:
    whole = [at for at in range(len(text)) if text.startswith(value, at) and at_edges(text, at, at + len(value))]
    assert [*_starts(text, value)] == [at for at in range(len(text)) if text.startswith(value, at)]
    assert [*_overlapping(text, value, 0)] == [*_starts(text, value)]
    found = [at for at, end in Haystack(text).exact(value) if at_edges(text, at, end)]
    assert bool(found) == bool(whole) and set(found) <= set(whole)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("Jose", "Jose\u0301 Diaz"),
        ("हिन", "हिन्दी भाषा"),
        ("ह", "हिन्दी भाषा"),
        ("م", "مُحَمَّد"),
        ("کتاب", "کتاب\u200cها"),
        ("👩", "👩\u200d👩\u200d👧 here"),
        ("👧", "👩\u200d👩\u200d👧 here"),
        ("👍", "👍🏽 here"),
        ("1", "1\ufe0f\u20e3 here"),
        ("\u0301", "Jose\u0301 Diaz"),
        ("a", "a" + "\u0301" * 40 + "b"),
        ("b", "a" + "\u0301" * 40 + "b"),
        ("か", "か\u3099く"),
    ],
)
def test_a_character_is_not_cut_from_its_marks_nor_a_word_behind_one(part: str, text: str) -> None:
    at = text.index(part)
    assert not at_edges(text, at, at + len(part))
    assert is_span(text, 0, len(text))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("Jose\u0301", "Jose\u0301 Diaz"),
        ("हिन्दी", "हिन्दी, भाषा"),
        ("love", "❤\ufe0flove"),
        ("abc", "abc\u200c def"),
        ("abc", "\u0301abc"),
        ("กั", "กันข"),
        ("iPhone", "购买iPhone手机"),
        ("手机", "购买iPhone手机"),
        ("公司", "Apple公司"),
    ],
)
def test_a_word_ends_with_its_marks_and_where_another_script_begins(word: str, text: str) -> None:
    at = text.index(word)
    assert is_span(text, at, at + len(word))


def test_a_place_inside_a_word_counts_when_there_is_no_other_but_not_for_one_letter() -> None:
    assert one("phone", "a smartphone").match is Match.EXACT
    assert one("m", "smartphone").match is Match.UNGROUNDED


@pytest.mark.parametrize(
    ("value", "text", "quote"),
    [
        ("acme corp", "By ACME\u00a0 \n Corp today", "ACME\u00a0 \n Corp"),
        ("Straße", "HAUPT STRASSE 5", "STRASSE"),
        ("STRASSE", "die Straße da", "Straße"),
        ("istanbul", "in İSTANBUL", "İSTANBUL"),
        ("DIYARBAKIR", "diyarbakır'da", "diyarbakır"),
        ("office file", "the oﬃce ﬁle.", "oﬃce ﬁle"),
        ("ABC 123", "ＡＢＣ　１２３", "ＡＢＣ　１２３"),
        ('it\'s "so" - yes', "it’s “so” — yes", "it’s “so” — yes"),
        ("café", "a CAFE\u0301 b", "CAFE\u0301"),
        ("CAFE\u0301", "a café b", "café"),
        ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("ガム", "ｶﾞﾑ", "ｶﾞﾑ"),
        ("soft hyphen", "SOFT hy\u00adphen", "SOFT hy\u00adphen"),
        ("שלום עולם", "\u200fשלום\u00a0עולם", "שלום\u00a0עולם"),
        ("Family 👨‍👩‍👧", "family 👨‍👩‍👧!", "family 👨‍👩‍👧"),
        ("株式会社", "㍿ テスト", "㍿"),
        ("99 SPEED MART S.B.", "at 99 Speed Mart S/B (519537-X)", "99 Speed Mart S/B"),
        ("LOT 2811, JALAN ANGSA, TAMAN", "LOT 2811, JALAN ANGSA,\nTAMAN B", "LOT 2811, JALAN ANGSA,\nTAMAN"),
        ("in_stock", "Now: In Stock.", "In Stock"),
    ],
)
def test_case_width_space_and_punctuation_do_not_matter(value: str, text: str, quote: str) -> None:
    evidence = one(value, text)
    assert (evidence.match, evidence.quote, evidence.score) == (Match.NORMALISED, quote, 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cafe", "a café b"),
        ("1.5 kg", "15 kg"),
        ("C++", "made in C"),
        ("C#", "made in C"),
        ("45", "145 450 45.30 3.45"),
        ("New York City Council", "York"),
        ("", "anything"),
        ("  ", "any thing"),
        ("INV-2024-001", "INV-2024-007"),
        ("Paragraph 12 of the law", "Paragraph 13 of the law"),
    ],
)
def test_what_only_looks_alike_is_ungrounded(value: str, text: str) -> None:
    assert one(value, text).match is Match.UNGROUNDED


def test_a_misspelt_value_is_fuzzy_with_its_score() -> None:
    text = "RECEIPT\nRESTORAN WAN SHENG SDN BHD\nJALAN 5"
    evidence = one("Restoran Wan Seng Sdn. Bhd", text)
    assert evidence.match is Match.FUZZY
    assert evidence.quote == "RESTORAN WAN SHENG SDN BHD"
    assert 0.85 <= evidence.score < 1


def test_a_long_misspelt_value_is_found_in_a_long_text() -> None:
    words = [f"word{number}" for number in range(20_000)]
    text = " ".join(words)
    value = " ".join(words[15_000:15_040]).replace("word", "wort", 3)
    evidence = one(value, text)
    assert (evidence.match, evidence.quote) == (Match.FUZZY, " ".join(words[15_000:15_040]))


def test_an_enum_member_is_sought_by_its_value_and_a_bool_never() -> None:
    class Stock(Enum):
        IN = "in stock"
        OUT = "sold out"

    assert one(Stock.IN, "Now IN STOCK").match is Match.NORMALISED
    assert one(Stock.OUT, "Now in stock").match is Match.UNGROUNDED
    assert one(True, "true").match is Match.UNGROUNDED
    assert [is_classification(each) for each in (Stock.IN, False, 1, "a")] == [True, True, False, False]


def test_identifiers_and_bytes_are_strings() -> None:
    assert one(UUID(int=5), "id 00000000-0000-0000-0000-000000000005").match is Match.EXACT
    assert one("zoë".encode(), "Zoë").match is Match.NORMALISED
    assert one(b"\xff", "x").match is Match.UNGROUNDED


def test_strings_that_are_numbers_or_dates_fall_back_to_their_value() -> None:
    assert one("RM21.85", "TOTAL 21,85").quote == "21,85"
    assert one("2018-03-12", "on March 12, 2018").quote == "March 12, 2018"
    assert one("5 apples", "5").match is Match.UNGROUNDED


def test_a_datetime_needs_its_time_unless_that_is_midnight() -> None:
    assert one(datetime(2018, 2, 7, 15, 16), RECEIPT).quote == "07-02-18  03:16PM"
    assert one(datetime(2018, 2, 7), RECEIPT).quote == "07-02-18"
    assert one(datetime(2018, 2, 7, 15, 17), RECEIPT).match is Match.UNGROUNDED
    assert one(time(15, 16), RECEIPT).quote == "03:16PM"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), pytest.param(10**5000, id="huge"), 1e300]
)
def test_numbers_that_cannot_be_printed_are_ungrounded(value: object) -> None:
    assert one(value, "nan inf 1e300x 12").match is Match.UNGROUNDED


def test_ungrounded_paths_follow_names_pointers_and_stars() -> None:
    text = "a"
    evidence = ground({"x": "a", "y": "QQ", "list": [{"p": "QQ", "q": "a"}, {"p": "a", "q": "QQ"}]}, text)
    assert ungrounded_paths(evidence, ["x", "y"]) == ["y"]
    assert ungrounded_paths(evidence, ["list"]) == ["list/0/p", "list/1/q"]
    assert ungrounded_paths(evidence, ["list/*/q", "/list/0"]) == ["list/0/p", "list/1/q"]
    assert ungrounded_paths(evidence, ["list/*/none", "lis"]) == []


def test_a_haystack_gives_the_same_evidence_every_time() -> None:
    hay = Haystack(RECEIPT)
    value = {
        "shop": "99 speed mart",
        "address": "Taman Berkley, 41150 Klang",
        "total": "45,34",
        "day": date(2018, 7, 2),
    }
    assert ground(value, hay) == ground(value, hay) == ground(value, RECEIPT)


@pytest.mark.parametrize(
    "unit", ["12 ", "a", "a\u200b", "e\u0301\u0301", "1.", "\n\n", "中国（集团）", "Total 1,234.50 on 5 March 2018 x "]
)
def test_a_five_megabyte_text_takes_bounded_time(unit: str) -> None:
    text = unit * (5_000_000 // len(unit))
    value = {"a": "Some Company Ltd, Somewhere", "b": 123.75, "c": date(2031, 5, 6), "d": "x" * 3000, "e": "2031-05-06"}
    start = clock.process_time()
    evidence = ground(value, text)
    # About a second when the machine is free; the rest is for slow machines.
    assert clock.process_time() - start < 5
    assert {each.match for each in evidence} == {Match.UNGROUNDED}


def test_exact_finds_reach_past_what_is_prepared() -> None:
    text = "word " * 400_000 + "needle 4711"
    assert [each.match for each in ground({"a": "needle", "b": 4711}, text)] == [Match.EXACT, Match.EXACT]
