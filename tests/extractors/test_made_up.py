"""Made-up examples: the schema's own form as records that nobody wrote."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field

from extractors.extraction import Extraction
from extractors.made_up import made_up_examples
from extractors.qwen.requests import ChatReply, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.invoice import Invoice
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted
from schemas.product import Product
from schemas.receipt import Receipt
from schemas.records import Record, content_fingerprint
from schemas.ticket import Ticket
from schemas.usage import Usage


class Offer(BaseModel):
    name: str
    price: Decimal | None = Field(default=None, max_digits=10, decimal_places=2)
    colours: list[str] = []
    size: str | None = None


def shown(model: type[BaseModel], **options: Any) -> list[tuple[str, dict[str, Any]]]:
    bank = made_up_examples(model, **options)
    assert bank is not None
    return [(one.text, json.loads(one.answer)) for one in bank.of(Record("r", "anything", "f"))]


def test_two_examples_fill_every_other_field_so_that_each_is_seen_full_and_empty() -> None:
    assert shown(Offer) == [
        (
            "Name: alpha. Price: 731.50. Size: beta gamma.",
            {"name": "alpha", "price": 731.5, "colours": [], "size": "beta gamma"},
        ),
        ("Name: delta. Colours: epsilon.", {"name": "delta", "price": None, "colours": ["epsilon"], "size": None}),
    ]


def test_nulls_are_left_out_where_the_model_may_leave_them_out() -> None:
    assert [answer for _, answer in shown(Offer, omit_nulls=True)] == [
        {"name": "alpha", "price": 731.5, "size": "beta gamma"},
        {"name": "delta", "colours": ["epsilon"]},
    ]


@pytest.mark.parametrize("model", [Product, Receipt, Ticket, Invoice])
def test_each_is_an_answer_of_its_schema_whose_values_stand_in_its_text(model: type[BaseModel]) -> None:
    for text, answer in shown(model):
        value = model.model_validate_json(json.dumps(answer))
        assert value.model_dump(exclude_none=True)
        for leaf in (one for one in answer.values() if isinstance(one, str)):
            assert leaf in text


def test_choices_take_turns() -> None:
    class Order(BaseModel):
        state: Literal["open", "paid"]
        note: str | None
        urgent: bool | None

    assert [answer["state"] for _, answer in shown(Order)] == ["open", "paid"]


def _capital(value: str | None) -> str | None:
    if value is not None and not value.isupper():
        raise ValueError("capital letters")
    return value


def test_what_cannot_be_made_up_stays_empty_where_it_may() -> None:
    class Flight(BaseModel):
        day: date | None
        code: Annotated[str | None, AfterValidator(_capital)]
        number: str | None = Field(pattern="^[A-Z]{2}[0-9]+$")

    [(text, answer)] = shown(Flight)
    assert (text, answer) == ("Day: 2001-02-03.", {"day": "2001-02-03", "code": None, "number": None})


def test_a_schema_that_demands_what_cannot_be_made_up_has_none() -> None:
    class Flight(BaseModel):
        number: str = Field(pattern="^[A-Z]{2}[0-9]+$")

    class Code(BaseModel):
        code: Annotated[str, AfterValidator(_capital)]

    assert made_up_examples(Flight) is None
    assert made_up_examples(Code) is None


def recipe(mode: Mode = Mode.GRAMMAR, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", **options})
    return compile_recipe(job, Offer, ModelPolicy("fake", mode, None, max_input_tokens=1000, max_output_tokens=4000))


def test_they_are_shown_where_decoding_is_held_to_a_grammar_and_nothing_is_labelled(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"text": "Red pan", "expected": {"name": "Red pan"}}))
    labelled = recipe(examples=str(golden)).examples
    assert labelled is not None and not labelled.made_up
    auto, never, hosted = recipe(), recipe(made_up_examples="never"), recipe(Mode.JSON_SCHEMA)
    assert auto.examples is not None and auto.examples.made_up
    assert (never.examples, hosted.examples) == (None, None)
    always = recipe(Mode.JSON_SCHEMA, made_up_examples="always").examples
    assert always is not None and always.made_up
    assert auto.id != never.id
    assert auto.document["examples"]["made_up"] is True


def test_a_value_that_was_copied_from_one_is_taken_out_without_a_question() -> None:
    extraction = Extraction(recipe(), Record("r", "Red pan", content_fingerprint("Red pan")))
    request = extraction.next_request()
    assert request is not None
    assert [message.role for message in request.messages] == ["system", *["user", "assistant"] * 2, "user"]
    answer = {"name": "Red pan", "price": 731.5, "colours": ["epsilon"], "size": None}
    extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is None
    outcome = extraction.outcome
    assert isinstance(outcome, Extracted)
    assert outcome.value.model_dump() == {"name": "Red pan", "price": None, "colours": [], "size": None}
    assert sorted(outcome.nulled) == ["colours", "price"]
