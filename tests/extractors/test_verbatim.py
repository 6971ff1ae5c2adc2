"""Verbatim fields: what is marked, and that no value outside of the record passes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from extractors.extraction import Extraction
from extractors.judging import Judge
from extractors.qwen.requests import ChatReply, ChatRequest, Mode
from extractors.qwen.span_grammar import SPAN, span_rules
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.arrow_types import SchemaMappingError
from schemas.evidence import Match
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.loading import load_schema
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from schemas.verbatim import Verbatim
from tests.extractors.qwen.test_span_grammar import TEXTS, language

TEXT = "Sold by Corner  Bakery Ltd. of 12 Mill Lane.\nPaid: 1,250.75 EUR"


class Line(BaseModel):
    what: Annotated[str, Verbatim()]


class Sale(BaseModel):
    seller: Annotated[str, Verbatim()]
    place: Annotated[str, Verbatim()] | None = None
    lines: list[Line] = []
    note: str | None = None


def recipe(model: type[BaseModel] = Sale, mode: Mode = Mode.PROMPTED, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    return compile_recipe(job, model, ModelPolicy("fake", mode, None, max_input_tokens=1000, max_output_tokens=4000))


def drive(answers: list[Any], *, text: str = TEXT, using: Recipe | None = None) -> tuple[Any, list[ChatRequest]]:
    extraction = Extraction(using or recipe(), Record("r", text, content_fingerprint(text)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


# How a field is marked ------------------------------------------------------------------------------


def test_a_schema_of_each_kind_can_mark_a_field(tmp_path: Path) -> None:
    file = tmp_path / "sale.json"
    marked = {"type": "string", "x-verbatim": True}
    file.write_text(json.dumps({"type": "object", "properties": {"seller": marked}, "required": ["seller"]}))
    for model in (load_schema(str(file)), load_schema("seller: verbatim")):
        assert answer_schema(model)["properties"]["seller"] == marked
    assert answer_schema(Sale)["properties"]["place"] == {"anyOf": [marked, {"type": "null"}]}


def test_a_mark_on_a_list_is_a_mark_on_its_items_and_on_a_number_an_error() -> None:
    class Listed(BaseModel):
        names: Annotated[list[str], Verbatim()]

    class Counted(BaseModel):
        count: Annotated[int, Verbatim()]

    assert answer_schema(Listed)["properties"]["names"]["items"] == {"type": "string", "x-verbatim": True}
    with pytest.raises(SchemaMappingError, match="not for a field of the kind integer"):
        answer_schema(Counted)


def test_a_mark_on_a_format_with_a_type_of_its_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    day = {"type": "string", "format": "date", "x-verbatim": True}
    file.write_text(json.dumps({"type": "object", "properties": {"day": day}}))
    with pytest.raises(SchemaMappingError, match="#/properties/day: x-verbatim is for plain strings"):
        load_schema(str(file))


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ({"type": "string", "enum": ["red", "blue"]}, "enum names the values already"),
        ({"const": "red"}, "const names the values already"),
        ({"type": ["string", "integer"]}, "string or integer is none"),
        ({"type": "array", "items": {"type": "string"}}, "put it beside the type of its items"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer is none"),
        ({}, "a place of any type is none"),
    ],
)
def test_a_mark_that_could_not_be_held_to_is_refused(marked: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"type": "object", "properties": {"shade": {**marked, "x-verbatim": True}}}))
    with pytest.raises(
        SchemaMappingError, match=f"#/properties/shade.*: x-verbatim is for plain strings, and .*{said}"
    ):
        load_schema(str(file))


@pytest.mark.parametrize("mark", ["true", 1, None, {}])
def test_a_mark_that_is_neither_true_nor_false_is_refused(mark: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"type": "object", "properties": {"shade": {"type": "string", "x-verbatim": mark}}}))
    with pytest.raises(
        SchemaMappingError, match=f"#/properties/shade: x-verbatim is {json.dumps(mark)}, which is neither"
    ):
        load_schema(str(file))


def test_a_mark_makes_another_recipe_and_is_told_to_the_model() -> None:
    class Plain(BaseModel):
        seller: str

    class Sold(BaseModel):
        seller: Annotated[str, Verbatim()]

    Sold.__name__ = "Plain"
    assert recipe(Plain).id != recipe(Sold).id
    assert '"seller": string copied word for word' in recipe(Sold).prompter.system.content


# What holds the rule ---------------------------------------------------------------------------------


def test_a_value_outside_of_the_record_is_asked_again() -> None:
    outcome, asked = drive([{"seller": "Corner Shop"}, {"seller": "Corner  Bakery Ltd."}])
    assert isinstance(outcome, Extracted)
    assert outcome.value.seller == "Corner  Bakery Ltd."
    assert list(asked[1].shape.schema["properties"]) == ["seller"]


def test_another_spelling_is_written_as_the_record_does_without_a_call() -> None:
    outcome, asked = drive([{"seller": "CORNER BAKERY LTD", "lines": [{"what": "12 mill  lane"}]}])
    assert isinstance(outcome, Extracted) and len(asked) == 1
    assert outcome.value.seller == "Corner  Bakery Ltd"
    assert outcome.value.lines[0].what == "12 Mill Lane"


@pytest.mark.parametrize(("word", "text"), [("cat", "category " * 300 + "a cat"), ("7", "row 17 " * 300 + " and 7 ")])
def test_a_word_behind_hundreds_of_others_that_hold_it_is_taken_as_it_is(word: str, text: str) -> None:
    verdict = Judge(recipe(), Record("r", text, content_fingerprint(text)), pictured=False).data({"seller": word})
    assert (verdict.reason, [(one.match, one.start) for one in verdict.evidence]) == (
        None,
        [(Match.EXACT, text.rindex(word))],
    )


def test_space_around_a_span_is_taken_off_without_a_call() -> None:
    outcome, asked = drive([{"seller": " Corner ", "lines": [{"what": "Paid:\n"}, {"what": "\nPaid"}]}])
    assert isinstance(outcome, Extracted) and len(asked) == 1
    assert (outcome.value.seller, [line.what for line in outcome.value.lines]) == ("Corner", ["Paid:", "Paid"])


@pytest.mark.parametrize(
    ("part", "text"),
    [("Jose", "Jose\u0301 Diaz"), ("हिन", "हिन्दी भाषा"), ("م", "مُحَمَّد ذهب"), ("👩", "👩\u200d👩\u200d👧 here")],
)
def test_a_letter_without_its_marks_is_asked_again(part: str, text: str) -> None:
    whole = text.split()[0]
    outcome, asked = drive([{"seller": part}, {"seller": whole}], text=text)
    assert isinstance(outcome, Extracted) and len(asked) == 2
    assert outcome.value.seller == whole


def test_a_latin_word_in_chinese_text_is_a_span() -> None:
    outcome, asked = drive([{"seller": "iPhone"}], text="购买iPhone手机")
    assert isinstance(outcome, Extracted) and len(asked) == 1


@pytest.mark.parametrize("part", ["Corn", "akery", "25", "250", "1,250", "Mill Lan", "CORN"])
def test_a_part_of_a_word_or_a_number_is_asked_again(part: str) -> None:
    outcome, asked = drive([{"seller": part}, {"seller": "Corner"}])
    assert isinstance(outcome, Extracted) and len(asked) == 2
    assert outcome.value.seller == "Corner"


def test_a_word_that_is_a_part_of_another_too_is_no_part() -> None:
    text = "An international nation of 345678, not 1234567890"
    for whole in ("nation", "345678"):
        outcome, asked = drive([{"seller": whole}], text=text)
        assert isinstance(outcome, Extracted) and len(asked) == 1
        assert outcome.value.seller == whole


def test_what_stays_outside_becomes_null_where_the_schema_allows_it() -> None:
    outcome, _ = drive([{"seller": "Corner", "place": "Leeds"}, {"place": "Leeds, UK"}])
    assert isinstance(outcome, Extracted)
    assert (outcome.value.place, outcome.nulled) == (None, ("place",))


def test_what_stays_outside_fails_the_record_where_null_is_not_allowed() -> None:
    outcome, _ = drive([{"seller": "Corner Shop"}, {"seller": "The Shop"}])
    assert isinstance(outcome, Failed)
    assert (outcome.reason, [one.path for one in outcome.problems]) == (Reason.UNGROUNDED, ["seller"])


def test_a_field_that_is_not_marked_may_say_what_it_likes() -> None:
    outcome, _ = drive([{"seller": "Corner", "note": "a small shop"}])
    assert isinstance(outcome, Extracted)


class Copied(BaseModel):
    kind: Literal["copied"]
    said: Annotated[str, Verbatim()]


class Told(BaseModel):
    kind: Literal["told"]
    said: str


Saying = Annotated[Copied | Told, Field(discriminator="kind")]


class Sayings(BaseModel):
    first: Saying
    others: list[Saying] = []


def test_a_mark_holds_for_its_own_branch_of_a_union_alone() -> None:
    told = {"kind": "told", "said": "a small shop"}
    outcome, asked = drive(
        [{"first": told, "others": [{"kind": "copied", "said": "no such words"}, told]}, {"others/0/said": "Paid"}],
        using=recipe(Sayings),
    )
    assert isinstance(outcome, Extracted) and list(asked[1].shape.schema["properties"]) == ["others/0/said"]
    assert outcome.value.model_dump(mode="json") == {
        "first": told,
        "others": [{"kind": "copied", "said": "Paid"}, told],
    }


def test_a_mark_holds_where_each_branch_that_the_value_fits_has_it() -> None:
    class Named(BaseModel):
        who: Annotated[str, Verbatim()] | Literal["nobody"]

    outcome, asked = drive([{"who": "nobody"}], using=recipe(Named))
    assert isinstance(outcome, Extracted) and len(asked) == 1
    outcome, _ = drive([{"who": "somebody"}, {"who": "someone"}], using=recipe(Named))
    assert isinstance(outcome, Failed)


def test_a_field_under_its_own_name_is_held_to_its_mark_as_under_its_alias() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(populate_by_name=True)

        seller: Annotated[str, Verbatim()] = Field(alias="Seller")

    outcome, asked = drive([{"seller": "nobody"}, {"Seller": "Corner"}], using=recipe(Aliased))
    assert isinstance(outcome, Extracted) and len(asked) == 2
    assert outcome.value.seller == "Corner"


def test_what_a_validator_makes_of_a_span_is_held_to_it_too() -> None:
    class Shouted(BaseModel):
        seller: Annotated[str, Verbatim()]

        @field_validator("seller")
        @classmethod
        def _shout(cls, value: str) -> str:
            return value.upper()

    outcome, _ = drive([{"seller": "Corner"}, {"seller": "Bakery"}], using=recipe(Shouted))
    assert isinstance(outcome, Failed)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries({"seller": st.text(max_size=20), "place": st.none() | st.text(max_size=8)})))
def test_no_answer_gets_a_value_into_a_row_that_is_not_in_the_record(answers: list[dict[str, Any]]) -> None:
    extraction = Extraction(recipe(), Record("r", TEXT, content_fingerprint(TEXT)))
    for answer in [*answers, {"seller": "Corner"}, {"place": "?"}, {"place": "!"}]:
        if extraction.next_request() is None:
            break
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    outcome = extraction.outcome
    if isinstance(outcome, Extracted):
        for value in (outcome.value.seller, outcome.value.place):
            assert value is None or value in TEXT
        assert {one.match for one in outcome.evidence} == {Match.EXACT}


# What constrains the decoder --------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_what_the_grammar_can_write_is_what_the_check_takes_as_it_is(text: str) -> None:
    judge = Judge(recipe(), Record("r", text, content_fingerprint(text)), pictured=False)
    grammar = language(text) if span_rules(text) else re.compile("(?!)")
    pieces = {text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)}
    for piece in pieces:
        if re.search("[\ud800-\udfff]", piece):
            continue
        verdict = judge.data({"seller": piece})
        taken = verdict.reason is None and verdict.data["seller"] == piece
        assert taken == bool(grammar.fullmatch(json.dumps(piece, ensure_ascii=False))), piece


def test_the_grammar_of_a_record_holds_its_own_spans() -> None:
    using = recipe(mode=Mode.GRAMMAR)
    _, [one] = drive([{"seller": "Corner"}], using=using)
    _, [other] = drive([{"seller": "Someone"}], using=using, text="Someone else")
    grammar = one.shape.wire["grammar"]
    assert f"{SPAN} ::=" in grammar and "Mill" in grammar and "Mill" not in other.shape.wire["grammar"]
    assert one.messages[0] == other.messages[0], "the prefix stays the same"


def test_a_correction_is_constrained_too() -> None:
    using = recipe(mode=Mode.GRAMMAR)
    _, asked = drive([{"seller": "nobody"}, {"seller": "Corner"}], using=using)
    assert f"{SPAN} ::=" in asked[1].shape.wire["grammar"]


def test_recipes_without_a_mark_share_one_grammar() -> None:
    class Plain(BaseModel):
        seller: str

    using = recipe(Plain, mode=Mode.GRAMMAR)
    _, [one] = drive([{"seller": "Corner"}], using=using)
    assert one.shape is using.shape


def test_a_picture_alone_has_no_text_to_hold_a_value_to() -> None:
    judge = Judge(recipe(), Record("r", "", content_fingerprint("")), pictured=True)
    verdict = judge.reply('{"seller": "Corner"}', "stop")
    assert getattr(verdict, "reason", "") is None


def test_a_span_beyond_its_limits_which_the_grammar_does_not_hold_is_asked_again() -> None:
    class Short(BaseModel):
        seller: Annotated[str, Field(min_length=4, max_length=8), Verbatim()]

    outcome, asked = drive(
        [{"seller": "Corner  Bakery"}, {"seller": "of"}, {"seller": "Corner"}], using=recipe(Short, Mode.GRAMMAR)
    )
    assert isinstance(outcome, Extracted) and len(asked) == 3
    assert outcome.value.seller == "Corner"
