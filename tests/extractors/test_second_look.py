"""The second look, strings that a grammar cut off, and evidence that could never be found."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, model_validator

from extractors.errors import SchemaError
from extractors.extraction import Extraction
from extractors.images import ImageLimits, Pictures
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Image, Mode, Purpose
from extractors.recipe import ModelPolicy, compile_recipe
from schemas.evidence import Match
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from schemas.verbatim import Verbatim

LIMITS = ImageLimits(most=1, max_bytes=1000, min_side=10, max_pixels=1000)
PICTURE = Image("image/png", b"...", width=20, height=20)


class Kind(StrEnum):
    BILL = "bill"
    SLIP = "slip"


class Slip(BaseModel):
    shop: str | None = None
    total: float | None = Field(default=None, ge=0)
    tip: float | None = Field(default=None, ge=0)
    kind: Kind | None = None
    paid: bool = False

    @model_validator(mode="after")
    def _tip_is_small(self) -> Slip:
        if self.tip is not None and self.total is not None and self.tip > self.total:
            raise ValueError("the tip is larger than the total")
        return self


def drive(
    answers: list[Any],
    *,
    text: str = "",
    pictures: bool = True,
    mode: Mode = Mode.PROMPTED,
    model: Any = Slip,
    **options: Any,
) -> tuple[Any, list[ChatRequest]]:
    policy = ModelPolicy("vl", mode, None, 9000, 8000, images=LIMITS if pictures else None)
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    loaded = Pictures((PICTURE,) if pictures else ())
    extraction = Extraction(compile_recipe(job, model, policy), Record("r", text, content_fingerprint(text)), loaded)
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        if not isinstance(answer, CallError):
            words = answer if isinstance(answer, str) else json.dumps(answer)
            answer = ChatReply(words, "stop", Usage(1, 100, 10), model="vl")
        extraction.receive(answer)
    assert extraction.next_request() is None, extraction.next_request()
    return extraction.outcome, asked


WHOLE = {"shop": "Blu", "total": 9, "tip": 1, "kind": "slip", "paid": True}


def test_an_answer_that_leaves_nothing_out_costs_one_call() -> None:
    outcome, asked = drive([WHOLE])
    assert isinstance(outcome, Extracted)
    assert outcome.usage.calls == 1
    assert asked[0].messages[1].images == (PICTURE,)
    assert asked[0].messages[0].images == ()


def test_what_is_missing_is_asked_again_with_the_picture_and_nothing_else_is() -> None:
    outcome, asked = drive([{**WHOLE, "total": None, "tip": None}, {"total": 9.5, "tip": None, "shop": "Red"}])
    assert isinstance(outcome, Extracted)
    assert (outcome.value.total, outcome.value.tip, outcome.value.shop) == (9.5, None, "Blu")
    assert outcome.corrected == ("total",)
    assert asked[1].purpose is Purpose.LOOK
    assert list(asked[1].shape.schema["properties"]) == ["total", "tip"]
    assert asked[1].messages[1].images == (PICTURE,)
    assert asked[1].messages[1].content.startswith(asked[0].messages[1].content)


def test_a_value_that_does_not_validate_is_not_taken_and_the_others_are() -> None:
    outcome, _ = drive([{**WHOLE, "total": None, "tip": None}, {"total": 2, "tip": 5}])
    assert isinstance(outcome, Extracted)
    assert (outcome.value.total, outcome.value.tip) == (2, None)
    outcome, _ = drive([{**WHOLE, "total": None}, {"total": "much"}])
    assert isinstance(outcome, Extracted)
    assert outcome.value.total is None


@pytest.mark.parametrize("second", ["no json", CallError(ErrorKind.TIMED_OUT, "too slow", "vl"), '{"total": 9'])
def test_the_first_answer_stands_whatever_the_second_look_brings(second: Any) -> None:
    outcome, _ = drive([{**WHOLE, "total": None}, second])
    assert isinstance(outcome, Extracted)
    assert outcome.value.shop == "Blu"
    assert outcome.corrected == ()
    assert outcome.attempts[1].error


def test_it_is_never_looked_at_a_third_time_and_not_past_the_attempts() -> None:
    outcome, _ = drive([{**WHOLE, "total": None}, {"total": None}])
    assert isinstance(outcome, Extracted)
    outcome, _ = drive([{**WHOLE, "total": None}], max_attempts=1)
    assert isinstance(outcome, Extracted)


def test_text_is_looked_at_twice_only_when_asked() -> None:
    outcome, _ = drive([{**WHOLE, "total": None}], text="Blu, tip 1", pictures=False)
    assert outcome.usage.calls == 1
    outcome, _ = drive([{**WHOLE, "total": None}, {"total": 3}], text="Blu, 3", pictures=False, second_look="always")
    assert outcome.value.total == 3
    outcome, _ = drive([{**WHOLE, "total": None}], second_look="never")
    assert outcome.usage.calls == 1


def test_a_value_that_stands_nowhere_is_replaced_only_by_one_that_does() -> None:
    text = "Blue Shop. Total 12.50, tip 1."
    outcome, asked = drive([{**WHOLE, "shop": "Blue Shop", "total": 77}, {"total": 12.5}], text=text)
    assert list(asked[1].shape.schema["properties"]) == ["total"], "choices are rarely printed and not asked for"
    assert outcome.value.total == 12.5
    outcome, _ = drive([{**WHOLE, "shop": "Blue Shop", "total": 77}, {"total": 78}], text=text)
    assert outcome.value.total == 77


class Exact(BaseModel):
    shop: Annotated[str | None, Verbatim()] = None
    total: float | None = None


@pytest.mark.parametrize(("model", "options"), [(Slip, {"require_evidence": ["shop"]}), (Exact, {})])
def test_what_a_second_look_brings_is_held_to_the_rules_of_a_first_answer(model: Any, options: Any) -> None:
    given = {"text": "Blu, tip 1", "pictures": False, "second_look": "always", "model": model, **options}
    outcome, _ = drive([{"shop": None, "total": None}, {"shop": "Rot", "total": 1}], **given)
    assert (outcome.value.shop, outcome.value.total) == (None, 1), "nothing of a record says Rot"
    outcome, _ = drive([{"shop": None, "total": None}, {"shop": "Blu", "total": None}], **given)
    assert outcome.value.shop == "Blu"


@pytest.mark.parametrize("second", [{"shop": None}, CallError(ErrorKind.OVERLOADED, "busy", "vl")])
def test_what_was_dropped_before_a_second_look_is_named_in_the_row_after_it(second: Any) -> None:
    given = {"second_look": "always", "require_evidence": ["*"], "evidence_policy": "drop", "model": Exact}
    outcome, asked = drive([{"shop": "Rot", "total": 9}, second], text="total 9", pictures=False, **given)
    assert (outcome.value.shop, outcome.nulled, len(asked)) == (None, ("shop",), 2)


def test_values_of_a_picture_alone_are_marked_so() -> None:
    outcome, _ = drive([WHOLE], require_evidence=["shop"])
    assert {one.match for one in outcome.evidence} == {Match.IMAGE}
    outcome, _ = drive([WHOLE], text="Blu 9 1 slip", second_look="never")
    assert next(one for one in outcome.evidence if one.path == "shop").match is Match.EXACT


class Note(BaseModel):
    title: str
    body: str
    lines: list[str] = []


def test_a_string_cut_by_the_grammar_is_asked_again_without_it() -> None:
    whole = "word " * 500
    first = {"title": "t", "body": whole[:2000], "lines": []}
    outcome, asked = drive([first, {"body": whole}], text=whole, pictures=False, mode=Mode.GRAMMAR, model=Note)
    assert isinstance(outcome, Extracted)
    assert outcome.value.body == whole
    assert outcome.corrected == ("body",)
    assert [one.shape.mode for one in asked] == [Mode.GRAMMAR, Mode.JSON_SCHEMA]


def test_a_string_that_truly_has_two_thousand_characters_is_believed_the_second_time() -> None:
    exact = "x" * 2000
    answers = [{"title": "t", "body": exact, "lines": []}, {"body": exact}]
    outcome, _ = drive(answers, text=exact, pictures=False, mode=Mode.GRAMMAR, model=Note)
    assert isinstance(outcome, Extracted)
    outcome, asked = drive(answers[:1], text=exact, pictures=False, mode=Mode.PROMPTED, model=Note)
    assert len(asked) == 1, "without a grammar nothing cuts"


def test_a_cut_string_without_attempts_left_is_truncated_not_a_row() -> None:
    first = {"title": "t", "body": "x" * 2000, "lines": []}
    outcome, _ = drive([first], text="x" * 3000, pictures=False, mode=Mode.GRAMMAR, model=Note, max_attempts=1)
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.TRUNCATED
    assert "body" in outcome.message and "2,000 characters" in outcome.message


class Item(BaseModel):
    name: str
    new: bool = False


class Order(BaseModel):
    number: str
    kind: Kind | None = None
    paid: bool | None = None
    items: list[Item] = []


@pytest.mark.parametrize(
    ("required", "named"),
    [("kind", "kind"), ("paid", "paid"), ("items", "items/\\*/new"), ("items/*/new", "items/\\*/new")],
)
def test_evidence_of_a_choice_is_refused_before_the_first_call(required: str, named: str) -> None:
    with pytest.raises(SchemaError, match=named):
        drive([], model=Order, require_evidence=[required])


def test_evidence_of_what_is_copied_is_not() -> None:
    answer = {"number": "7", "items": [{"name": "cup"}]}
    outcome, _ = drive([answer], model=Order, text="7 cup", pictures=False, require_evidence=["number", "items/*/name"])
    assert isinstance(outcome, Extracted)
