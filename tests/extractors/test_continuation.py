"""Answers that were cut off inside of a list: what is kept, what is asked, how the two are joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from extractors.continuation import Beginning, beginning, extended, goes_round, rest_schema, unwound
from extractors.extraction import Extraction
from extractors.parsing import dumps_exact
from extractors.qwen.requests import ChatReply, ChatRequest, Mode, Purpose
from extractors.recipe import ModelPolicy, compile_recipe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


def ends(text: str, values: list[Any], start: int) -> list[int]:
    """Where each item of a list that begins at ``start`` ends, by writing it down item by item."""
    found, at = [], start + 1
    for value in values:
        at = text.index(json.dumps(value), at) + len(json.dumps(value))
        found.append(at)
    return found


def test_the_words_that_end_thinking_may_stand_in_a_value() -> None:
    found = beginning('{"a": ["x", "y</think>z", "w')
    assert found is not None and found.value == {"a": ["x", "y</think>z"]}
    thought = beginning('<think>{"a": [1, 2</think>{"a": ["x", "y</think')
    assert thought is not None and thought.value == {"a": ["x"]}


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=3), st.lists(VALUES, min_size=1, max_size=6), st.data())
def test_the_items_kept_are_exactly_those_that_were_whole(
    before: dict[str, Any], items: list[Any], data: st.DataObject
) -> None:
    before.pop("items", None)
    whole = {**before, "items": items, "after": 1}
    text = json.dumps(whole)
    start = len(json.dumps(before)) - 1 + len('"items": ') + (2 if before else 0)
    cut = data.draw(st.integers(start, len(text)))
    closing = start + len(json.dumps(items))
    expected = []
    for value, end in zip(items, ends(text, items, start), strict=True):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # At the very end a number may have more digits to come.
        if end < cut or (end == cut and not number):
            expected.append(value)
    found = beginning(text[:cut])
    if cut >= closing or not expected:
        assert found is None or found.path != "items"
        return
    assert found is not None
    assert (found.path, found.done) == ("items", len(expected))
    assert json.loads(dumps_exact(found.value)) == {**before, "items": expected}


@settings(max_examples=300, deadline=None)
@given(VALUES, st.data())
def test_no_cut_of_any_json_breaks_it_and_what_is_kept_was_there(value: Any, data: st.DataObject) -> None:
    text = json.dumps({"a": value})
    found = beginning(text[: data.draw(st.integers(0, len(text)))])
    if found is not None:
        kept, source = found.value, {"a": value}
        for step in found.path.split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            kept, source = kept[step], source[step]
        assert json.loads(dumps_exact(kept)) == source[: found.done]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2",
        "no json",
        '{"a": 1',
        '{"a": [',
        '{"a": ["x',
        '{"a": [1, x',
        '{"a": [1, NaN, 2',
        '{"a": [1] "b"',
        '{"a" 1',
    ],
)
def test_where_there_is_no_list_to_go_on_from_there_is_none(text: str) -> None:
    assert beginning(text) is None


def test_a_list_inside_of_an_unfinished_item_is_not_gone_on_with() -> None:
    found = beginning('{"lines": [{"n": 1}, {"n": 2, "tags": ["a", "b"')
    assert found is not None
    assert (found.path, found.done, found.value) == ("lines", 1, {"lines": [{"n": 1}]})


def test_digits_are_kept_as_they_were_written() -> None:
    found = beginning('```json\n{"total": 1.10, "lines": [1.100, 2.0, 3')
    assert found is not None
    assert dumps_exact(found.value) == '{"total":1.10,"lines":[1.100,2.0]}'


class Line(BaseModel):
    name: str
    price: float | None = None


class Body(BaseModel):
    lines: list[Line]
    tax: float | None = None


class Bill(BaseModel):
    number: str
    body: Body
    total: float | None = None


def test_the_rest_is_the_list_and_what_comes_after_it() -> None:
    found = beginning('{"number": "7", "body": {"lines": [{"name": "a", "price": 1}, {"na')
    assert found is not None
    assert list(rest_schema(answer_schema(Bill), found)["properties"]) == ["body/lines", "body/tax", "total"]


def test_an_item_repeated_at_the_seam_is_taken_once() -> None:
    found = beginning('{"n": [1, 2, 3, 4,')
    assert found is not None
    assert extended(found, {"n": [3, 4, 5]}).value == {"n": [1, 2, 3, 4, 5]}
    assert extended(found, {"n": [5]}).value == {"n": [1, 2, 3, 4, 5]}
    assert extended(found, {"n": []}).value == {"n": [1, 2, 3, 4]}


POLICY = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=10_000, max_output_tokens=4000)
TEXT = "Bill 7. " + " ".join(f"item{n} {n}.00" for n in range(40))


def lines(numbers: range) -> list[dict[str, Any]]:
    return [{"name": f"item{n}", "price": float(n)} for n in numbers]


def drive(
    answers: list[tuple[str, str]], schema: type[BaseModel] = Bill, **options: Any
) -> tuple[Any, list[ChatRequest]]:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    extraction = Extraction(compile_recipe(job, schema, POLICY), Record("r", TEXT, content_fingerprint(TEXT)))
    asked = []
    for text, reason in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        extraction.receive(ChatReply(text, reason, Usage(1, 100, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


def cut_bill(numbers: range, *, end: str = ', {"name": "ite') -> str:
    whole = json.dumps({"number": "7", "body": {"lines": lines(numbers)}})
    return whole[:-3] + end


@pytest.mark.parametrize("reason", ["length", "cut"])
def test_only_the_rest_of_a_cut_list_is_asked_for(reason: str) -> None:
    rest = json.dumps({"body/lines": lines(range(25, 40)), "body/tax": 3, "total": 9})
    outcome, asked = drive([(cut_bill(range(25)), reason), (rest, "stop")])
    assert isinstance(outcome, Extracted)
    assert [line.name for line in outcome.value.body.lines] == [f"item{n}" for n in range(40)]
    assert (outcome.value.number, outcome.value.body.tax, outcome.value.total) == ("7", 3, 9)
    assert asked[1].purpose is Purpose.CONTINUE
    assert "25 items" in asked[1].messages[-1].content
    assert '{"name":"item24","price":24.0}' in asked[1].messages[-1].content
    assert '"item22"' not in asked[1].messages[-1].content
    assert [attempt.purpose for attempt in outcome.attempts] == ["extract", "continue"]


def test_the_rest_may_be_cut_off_as_well() -> None:
    second = json.dumps({"body/lines": lines(range(20, 30))})[:-2] + ', {"na'
    third = json.dumps({"body/lines": lines(range(29, 40)), "body/tax": None, "total": None})
    outcome, asked = drive([(cut_bill(range(20)), "length"), (second, "length"), (third, "stop")])
    assert isinstance(outcome, Extracted)
    assert len(outcome.value.body.lines) == 40, "the item that both answers have is there once"
    assert [one.max_output_tokens for one in asked] == [2048, 4000, 4000], "with more room each time"


def test_attempts_end_it_and_the_ledger_has_what_was_whole() -> None:
    outcome, _ = drive([(cut_bill(range(20)), "length")], max_attempts=1)
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.TRUNCATED
    assert len(outcome.partial["body"]["lines"]) == 20


def test_tokens_end_it_too() -> None:
    outcome, _ = drive([(cut_bill(range(20)), "length")], max_record_tokens=50)
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.BUDGET


def test_a_cut_correction_is_gone_on_with_too() -> None:
    wrong = json.dumps({"number": "7", "body": {"lines": "none", "tax": None}, "total": None})
    cut = json.dumps({"body/lines": lines(range(10))})[:-2] + ", {"
    rest = json.dumps({"body/lines": lines(range(10, 40))})
    outcome, asked = drive([(wrong, "stop"), (cut, "length"), (rest, "stop")])
    assert isinstance(outcome, Extracted)
    assert len(outcome.value.body.lines) == 40
    assert [one.purpose for one in asked] == [Purpose.EXTRACT, Purpose.CORRECT, Purpose.CONTINUE]
    assert outcome.corrected == ("body/lines",)


def test_what_is_joined_is_validated_as_a_whole() -> None:
    rest = json.dumps({"body/lines": [{"name": 5}], "body/tax": None, "total": None})
    fixed = json.dumps({"body/lines/20/name": "item20"})
    outcome, asked = drive([(cut_bill(range(20)), "length"), (rest, "stop"), (fixed, "stop")])
    assert isinstance(outcome, Extracted)
    assert asked[2].purpose is Purpose.CORRECT
    assert outcome.value.body.lines[20].name == "item20"


def test_a_lost_stream_without_a_list_is_asked_again_with_the_same_room() -> None:
    good = json.dumps({"number": "7", "body": {"lines": []}})
    outcome, asked = drive([('{"number": "7', "cut"), (good, "stop")])
    assert isinstance(outcome, Extracted)
    assert (asked[1].purpose, asked[1].max_output_tokens) == (Purpose.REASK, 2048)
    outcome, _ = drive([('{"number": "7', "cut"), ('{"number"', "cut")])
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.UNAVAILABLE


def test_an_answer_that_went_in_circles_is_asked_again_once() -> None:
    circles = '{"number": "7", "body": {"lines": [' + '{"name": "a"}, ' * 9
    outcome, asked = drive([(circles, "loop"), (circles, "loop")])
    assert isinstance(outcome, Failed)
    assert asked[1].purpose is Purpose.REASK
    assert "went in circles" in asked[1].messages[-1].content


def test_every_question_about_a_record_begins_with_the_record() -> None:
    wrong = json.dumps({"number": 7, "body": {"lines": lines(range(3)), "tax": None}, "total": None})
    for answers in (
        [(cut_bill(range(20)), "length"), (json.dumps({"body/lines": [], "body/tax": 1, "total": 1}), "stop")],
        [(wrong, "stop"), (json.dumps({"number": "7"}), "stop")],
        [("no", "stop"), (json.dumps({"number": "7", "body": {"lines": []}}), "stop")],
    ):
        _, asked = drive(answers)
        assert asked[1].messages[0] == asked[0].messages[0]
        assert asked[1].messages[1].content.startswith(asked[0].messages[1].content)


# Lists that go round in circles ---------------------------------------------------------------------


class Game(BaseModel):
    name: str
    platforms: list[str] = []
    year: int | None = None


GAME = "Rollcage of 1999 runs on PC only."
ROUND = ["PC", "PlayStation", "Xbox"]


def circling(items: list[Any], *, end: str = ', "Pla') -> str:
    return json.dumps({"name": "Rollcage", "platforms": items})[:-2] + end


def play(
    answers: list[tuple[str, str]], text: str = GAME, schema: type[BaseModel] = Game
) -> tuple[Any, list[ChatRequest]]:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o"})
    policy = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1000, max_output_tokens=4000)
    extraction = Extraction(compile_recipe(job, schema, policy), Record("r", text, content_fingerprint(text)))
    asked = []
    for said, reason in answers:
        request = extraction.next_request()
        assert isinstance(request, ChatRequest), extraction.outcome
        asked.append(request)
        extraction.receive(ChatReply(said, reason, Usage(1, 100, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


@pytest.mark.parametrize("reason", ["length", "cut", "loop"])
def test_a_list_that_went_round_until_it_was_cut_off_is_not_gone_on_with(reason: str) -> None:
    outcome, asked = play([(circling(ROUND * 12), reason), ('{"year": 1999}', "stop")])
    assert isinstance(outcome, Extracted)
    assert outcome.value.model_dump() == {"name": "Rollcage", "platforms": ["PC"], "year": 1999}
    assert outcome.repaired
    assert asked[1].purpose is Purpose.CONTINUE and list(asked[1].shape.schema["properties"]) == ["year"]


def test_of_a_circle_in_which_nothing_stands_in_the_record_each_item_is_kept_once() -> None:
    outcome, _ = play([(circling(["Amiga", *["DOS", "Mac", "DOS", "Wii"] * 9]), "length"), ('{"year": 1999}', "stop")])
    assert isinstance(outcome, Extracted) and outcome.value.platforms == ["Amiga", "DOS", "Mac", "Wii"]


def test_a_list_that_goes_round_only_in_its_rest_is_closed_too() -> None:
    rest = '{"platforms": [' + '"Wii", "PC", ' * 12 + '"Wi'
    outcome, asked = play([(circling(["Amiga", "DOS"]), "length"), (rest, "length"), ('{"year": 1999}', "stop")])
    assert isinstance(outcome, Extracted) and outcome.value.platforms == ["PC"]
    assert list(asked[2].shape.schema["properties"]) == ["year"]


def test_a_circle_in_the_last_field_needs_no_further_question() -> None:
    said = '{"year": 1999, "name": "Rollcage", "platforms": [' + '"PC", "Mac", ' * 12
    outcome, asked = play([(said, "length")])
    assert isinstance(outcome, Extracted) and len(asked) == 1
    assert outcome.value.model_dump() == {"name": "Rollcage", "platforms": ["PC"], "year": 1999}


class Shelf(BaseModel):
    platforms: list[str] = []
    genres: list[str] = []
    year: int | None = None


@pytest.mark.parametrize("reason", ["length", "loop"])
def test_a_second_list_that_goes_round_behind_a_closed_one_is_closed_too(reason: str) -> None:
    first = json.dumps({"platforms": ROUND * 12})[:-2] + ', "Pla'
    second = json.dumps({"genres": ["racing", "arcade"] * 12})[:-2] + ', "rac'
    answers = [(first, reason), (second, reason), ('{"year": 1999}', "stop")]
    outcome, asked = play(answers, "A racing game of 1999 for PC.", Shelf)
    assert isinstance(outcome, Extracted)
    assert outcome.value.model_dump() == {"platforms": ["PC"], "genres": ["racing"], "year": 1999}
    assert [list(one.shape.schema["properties"]) for one in asked[1:]] == [["genres", "year"], ["year"]]


def test_a_rest_that_is_cut_off_in_a_later_list_is_gone_on_with_there() -> None:
    rest = json.dumps({"body/lines": lines(range(20, 40)), "body/tax": 3, "notes": ["a", "b"]})[:-2] + ', "c'

    class Noted(Bill):
        notes: list[str] = []

    cut, last = cut_bill(range(20)), json.dumps({"notes": ["c"], "total": 9})
    outcome, asked = drive([(cut, "length"), (rest, "length"), (last, "stop")], Noted)
    assert isinstance(outcome, Extracted)
    assert (len(outcome.value.body.lines), outcome.value.notes, outcome.value.total) == (40, ["a", "b", "c"], 9)
    assert set(asked[2].shape.schema["properties"]) == {"notes", "total"}


def test_a_rest_that_goes_round_where_nothing_was_asked_is_asked_for_anew() -> None:
    odd = json.dumps({"colours": ["red"] * 30})[:-2]
    whole = json.dumps({"platforms": [], "genres": ["racing"], "year": 1999})
    outcome, asked = play(
        [(json.dumps({"platforms": ROUND * 12})[:-2], "loop"), (odd, "loop"), (whole, "stop")], GAME, Shelf
    )
    assert isinstance(outcome, Extracted) and outcome.value.genres == ["racing"]
    assert asked[2].purpose is Purpose.REASK


@pytest.mark.parametrize(
    ("text", "most"),
    [("PC", 10), ("PC " * 14, 14), ("Flags: " + "1 0 " * 7, 16), ("1" * 15, 15), ("是的" * 8, 16), ("✓✓ ✗ " * 13, 26)],
)
def test_a_record_may_say_the_same_as_often_as_it_has_words(text: str, most: int) -> None:
    # The first is no repetition of anything.
    assert not goes_round(circling(["PC"] * (most + 1)), text)
    assert goes_round(circling(["PC"] * (most + 2)), text)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_of_a_record_without_text_it_is_not_known_how_many_items_it_may_have(text: str) -> None:
    assert unwound(Beginning({"l": ["PC"] * 40}, "l", 40), text) is None
    assert not goes_round(circling(["PC"] * 40), text)


def test_a_circle_is_seen_while_it_is_written_and_an_honest_list_is_not() -> None:
    whole = circling(ROUND * 12)
    seen = [end for end in range(len(whole)) if goes_round(whole[:end], "PC " * 8)]
    assert seen and seen == list(range(seen[0], len(whole))), "from some place on, and on"
    assert beginning(whole[: seen[0]]).done == 12  # type: ignore[union-attr]
    assert not goes_round(circling(ROUND * 12), "PC " * 40)
    assert not goes_round(circling([f"p{n}" for n in range(40)]), "PC " * 8)
    assert not goes_round(json.dumps({"platforms": ROUND * 12}), "PC " * 8), "it has ended"


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (ROUND * 3, GAME),
        (["1"] * 16, "Flags: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
        (["on"] * 16, "Register 1111111111111111"),
        ([f"p{n}" for n in range(40)], GAME),
        ([*ROUND * 12, "Dreamcast"], GAME),
        (["yes", "no"] * 20, "Answers, in the order of the sheet: " + "yes no " * 40),
        (["PC"] * 30, "The shelf, from left to right: " + "PC, " * 30),
        (["red", "green", "amber"] * 5, "The log of the lights at the crossing says " + "R G A " * 5),
        (["up", "down"] * 8, "Levers, from the left to the right, as they were found: " + "↑↓" * 8),
        (["yes", "no"] * 8, "这些答案按照问卷上的顺序依次写下" + "是否" * 8),
        (
            ["on"] * 16,
            "All sixteen of the lamps in the long hall were on when the guard came by at a quarter past nine.",
        ),
    ],
)
def test_honest_lists_are_gone_on_with_where_they_were_cut_off(items: list[str], text: str) -> None:
    """Too few rounds, no rounds, no circle at the end, or as many items as the record has words for."""
    outcome, asked = play([(circling(items), "length"), ('{"platforms": ["Wii"], "year": null}', "stop")], text)
    assert isinstance(outcome, Extracted) and outcome.value.platforms == [*items, "Wii"]
    assert list(asked[1].shape.schema["properties"]) == ["platforms", "year"]


@given(
    st.lists(st.sampled_from("abcdef"), max_size=8),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5),
    st.integers(4, 9),
)
def test_what_a_circle_leaves_was_written_and_is_there_once(before: list[str], stretch: list[str], rounds: int) -> None:
    items = [*before, *stretch * max(rounds, 12)]
    found = unwound(Beginning({"l": items}, "l", len(items)), "?")
    assert found is not None
    start, gone = found
    left = start.value["l"]
    assert start.closed and len(left) == len(set(left)) == start.done and set(left) == set(items)
    assert left == [item for place, item in enumerate(items) if f"l/{place}" not in gone]
