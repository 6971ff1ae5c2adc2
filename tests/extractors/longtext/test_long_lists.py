"""Lists of many objects from a record that is longer than one call may show."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from extractors.extraction import Extraction
from extractors.longtext.begin import begin
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Mode, Purpose, ToolCall
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.tools.requests import ToolRequest, ToolResult
from schemas.job import ExtractionJob
from schemas.keys import Key
from schemas.outcomes import Extracted, Failed, Outcome, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from tests.fakes.listing import ListingModel, catalogue, name_of


class Item(BaseModel):
    name: str
    price: float


class Catalogue(BaseModel):
    title: str | None = None
    items: list[Item] = Field(description="The items for sale.")


class Bare(BaseModel):
    items: list[Item]


class Keyed(BaseModel):
    items: Annotated[list[Item], Key("name")]


POLICY = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=4_000, max_output_tokens=8_000)


def recipe(model: type[BaseModel] = Bare, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    return compile_recipe(job, model, POLICY)


def drive(
    model: ListingModel, text: str, schema: type[BaseModel] = Bare, **options: Any
) -> tuple[Outcome, list[ChatRequest]]:
    extraction = begin(recipe(schema, **options), Record("r1", text, content_fingerprint(text)))
    asked: list[ChatRequest] = []
    while (request := extraction.next_request()) is not None:
        assert request.digest() not in {one.digest() for one in asked[-3:]}
        asked.append(request)
        said, why = model.answer(request.messages[0].content, request.messages[-1].content, request.max_output_tokens)
        extraction.receive(ChatReply(said, why, Usage(1, 100, len(said) // 4), model="fake"))
        assert len(asked) < 2_000
    assert extraction.outcome is not None
    return extraction.outcome, asked


def names(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Extracted), outcome
    return [item.name for item in outcome.value.items]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [200, 1_000])
@pytest.mark.parametrize("schema", [Bare, Keyed, Catalogue])
def test_a_long_list_is_complete_in_order_and_without_repeats(count: int, schema: type[BaseModel]) -> None:
    model = ListingModel(forgets=0.1, seed=count)

    outcome, _ = drive(model, catalogue(count), schema, max_output_tokens=1_000)

    assert names(outcome) == [name_of(n) for n in range(1, count + 1)]
    assert isinstance(outcome, Extracted) and outcome.incomplete == ()


def test_the_fields_beside_the_list_are_asked_by_themselves() -> None:
    outcome, asked = drive(ListingModel(), f"Catalogue\n\n{catalogue(200)}", Catalogue)

    assert outcome.value.title == "Catalogue"  # type: ignore[union-attr]
    assert set(asked[0].shape.schema["properties"]) == {"title"}
    assert all(set(one.shape.schema["properties"]) <= {"items", "items_count"} for one in asked[1:])


class Worded(BaseModel):
    """Its title's words are counted: what the function makes is nothing that it takes."""

    title: Annotated[int | None, BeforeValidator(lambda said: None if said is None else len(said.split()))] = None
    code: Annotated[str | None, AfterValidator(lambda said: f"{said}!")] = "none"
    items: list[Item]

    @model_validator(mode="after")
    def has_items(self) -> Worded:
        assert self.items
        return self


def test_a_function_of_a_field_beside_the_list_is_called_once() -> None:
    outcome, _ = drive(ListingModel(), f"Catalogue\n\n{catalogue(200)}", Worded)

    assert type(outcome.value) is Worded  # type: ignore[union-attr]
    assert outcome.value.title == 1
    assert not (outcome.value.code or "").endswith("!!")
    assert names(outcome) == [name_of(n) for n in range(1, 201)]


def test_a_list_that_is_cut_off_in_a_window_is_continued() -> None:
    outcome, asked = drive(ListingModel(characters=1), catalogue(200), max_output_tokens=300)

    assert Purpose.CONTINUE in {request.purpose for request in asked}
    assert names(outcome) == [name_of(n) for n in range(1, 201)]


def test_a_record_that_fits_is_a_plain_extraction() -> None:
    assert type(begin(recipe(), Record("r1", catalogue(5), "f"))) is Extraction


def test_evidence_stands_in_the_whole_text_and_names_the_window() -> None:
    text = catalogue(300)
    outcome, _ = drive(ListingModel(forgets=0.05), text)

    assert isinstance(outcome, Extracted)
    found = {one.path: one for one in outcome.evidence}
    for at in range(300):
        one, price = found[f"items/{at}/name"], found[f"items/{at}/price"]
        assert one.start is not None and price.start is not None and one.chunk is not None
        assert text[one.start : one.end] == one.quote == name_of(at + 1)
        assert text[: one.start].endswith(f"{at + 1}. ")
        assert text[price.start : price.end] == price.quote and 0 < price.start - one.start < 60
    chunks = [found[f"items/{at}/name"].chunk or 0 for at in range(300)]
    assert chunks == sorted(chunks) and chunks[0] == 1 and chunks[-1] > 3


def test_evidence_has_the_pages_of_the_whole_text() -> None:
    text = "\f".join([catalogue(100), catalogue(120).partition("101. ")[2], "The end."])
    outcome, _ = drive(ListingModel(), text, Keyed)

    assert isinstance(outcome, Extracted)
    pages = [one.page for one in outcome.evidence if one.path.endswith("/name")]
    assert pages == [1] * 100 + [2] * 19


def test_attempts_and_usage_of_all_windows_add_up() -> None:
    outcome, asked = drive(ListingModel(forgets=0.1), catalogue(200))

    assert len(outcome.attempts) == len(asked) == outcome.usage.calls
    assert [one.number for one in outcome.attempts] == [one.attempt for one in asked] == list(range(1, len(asked) + 1))
    assert outcome.usage.input_tokens == 100 * len(asked)


def test_what_the_model_counted_and_did_not_give_is_asked_for_and_a_gap_that_stays_is_told() -> None:
    stubborn = ListingModel(forgets=0.1, forgets_again=1.0)
    outcome, asked = drive(stubborn, catalogue(200))

    assert Purpose.LOOK in {request.purpose for request in asked}
    assert isinstance(outcome, Extracted) and outcome.incomplete == ("items",)
    assert len(names(outcome)) < 200


def test_numbered_lines_without_an_item_are_asked_for_though_the_model_does_not_count_them() -> None:
    liar = ListingModel(forgets=0.1, counts=lambda there: 0)

    assert names(drive(liar, catalogue(200))[0]) == [name_of(n) for n in range(1, 201)]


def test_a_record_that_fits_is_counted_where_the_job_says_so() -> None:
    text = catalogue(30)
    lazy = ListingModel(forgets=0.2, seed=3)

    assert len(names(drive(lazy, text)[0])) < 30
    outcome, asked = drive(lazy, text, Catalogue, count_lists="always")
    assert names(outcome) == [name_of(n) for n in range(1, 31)]
    assert outcome.value.title == "Catalogue"  # type: ignore[union-attr]
    assert [request.purpose for request in asked] == [Purpose.EXTRACT, Purpose.LOOK]


def test_never_counting_asks_each_window_once() -> None:
    outcome, asked = drive(ListingModel(forgets=0.1), catalogue(200), count_lists="never")

    assert {request.purpose for request in asked} == {Purpose.EXTRACT}
    assert isinstance(outcome, Extracted) and outcome.incomplete == ()


def test_a_record_that_needs_too_many_windows_fails_before_any_call() -> None:
    outcome, asked = drive(ListingModel(), catalogue(300), max_windows=2)

    assert not asked
    assert isinstance(outcome, Failed) and outcome.reason is Reason.TOO_LONG
    assert "--max-windows is 2" in outcome.message


def test_the_tokens_of_a_record_are_those_of_all_its_windows() -> None:
    outcome, asked = drive(ListingModel(), catalogue(300), max_record_tokens=2_000)

    assert isinstance(outcome, Failed) and outcome.reason is Reason.BUDGET
    assert "2000 tokens" in outcome.message and "window" in outcome.message
    assert outcome.usage.total_tokens < 2_000 + 3_000 and len(asked) >= 1


def failing_in_the_second(**options: Any) -> Outcome:
    text = catalogue(300)
    extraction = begin(recipe(**options), Record("r1", text, content_fingerprint(text)))
    model, seen = ListingModel(), 0
    while (request := extraction.next_request()) is not None:
        seen += 1
        said, why = model.answer(request.messages[0].content, request.messages[-1].content, 9_999)
        error = CallError(ErrorKind.TIMED_OUT, "no answer in 300 s", "fake")
        extraction.receive(error if seen == 2 else ChatReply(said, why, Usage(1, 1, 1), model="fake"))
    assert extraction.outcome is not None
    return extraction.outcome


def test_a_window_that_fails_fails_the_record_and_is_named() -> None:
    outcome = failing_in_the_second()

    assert isinstance(outcome, Failed) and outcome.reason is Reason.TIMED_OUT and outcome.retryable
    assert outcome.message.startswith("window 2 of ") and "no answer in 300 s" in outcome.message
    assert outcome.partial["items"]


def test_a_window_that_fails_leaves_the_list_incomplete_where_the_job_says_so() -> None:
    outcome = failing_in_the_second(failed_windows="incomplete")

    assert isinstance(outcome, Extracted) and outcome.incomplete == ("items",)
    assert 100 < len(names(outcome)) < 300


def test_a_final_model_that_answers_no_window_is_not_named() -> None:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", "route_below": 1.0})
    final = ModelPolicy("strong", Mode.PROMPTED, None, max_input_tokens=4_000, max_output_tokens=8_000)
    text, model = catalogue(200), ListingModel()
    policy = replace(POLICY, final=final)
    extraction = begin(compile_recipe(job, Bare, policy), Record("r1", text, content_fingerprint(text)))
    routed = 0
    while (request := extraction.next_request()) is not None:
        said, why = model.answer(request.messages[0].content, request.messages[-1].content, 9_999)
        error = CallError(ErrorKind.OVERLOADED, "busy", "strong")
        routed += request.purpose is Purpose.ROUTE
        extraction.receive(
            error if request.model == "strong" else ChatReply(said, why, Usage(1, 1, 1), model=request.model)
        )

    assert isinstance(extraction.outcome, Extracted) and routed > 1
    assert extraction.outcome.model == "fake"


def test_items_with_one_key_are_one_item_wherever_they_stand() -> None:
    text = catalogue(150) + catalogue(150)

    assert names(drive(ListingModel(), text, Keyed)[0]) == [name_of(n) for n in range(1, 151)]
    assert len(names(drive(ListingModel(), text)[0])) == 300


def test_equal_items_at_different_places_are_as_many_items() -> None:
    line = "{}. Plain hinge, 2.00 EUR.\nIt is sturdy, zinc-plated, in a box of its own.\n"
    text = "".join(line.format(n) for n in range(1, 301))

    outcome, asked = drive(ListingModel(), text, count_lists="never")

    assert len(asked) > 3
    assert names(outcome) == ["Plain hinge"] * 300


def test_limits_of_the_whole_list_are_no_limits_of_a_window() -> None:
    class Exactly(BaseModel):
        items: list[Item] = Field(min_length=200, max_length=200)

    class TooFew(BaseModel):
        items: list[Item] = Field(max_length=50)

    assert len(names(drive(ListingModel(), catalogue(200), Exactly)[0])) == 200
    failed, _ = drive(ListingModel(), catalogue(200), TooFew)
    assert isinstance(failed, Failed) and failed.reason is Reason.INVALID
    assert "items" in failed.message


def test_the_same_record_asks_the_same_questions_again() -> None:
    asked = [[one.digest() for one in drive(ListingModel(forgets=0.1), catalogue(150))[1]] for _ in range(2)]

    assert asked[0] == asked[1] and len(set(asked[0])) == len(asked[0])


class Bought(BaseModel):
    name: str
    vendor_id: str | None = None


class Purchases(BaseModel):
    items: list[Bought]


def test_look_ups_are_made_for_each_window() -> None:
    text = "".join(f"{n}. {name_of(n)} by {'Globex' if n % 2 else 'Acme GmbH'}.\n" for n in range(1, 201))
    tools = ("tests.extractors.tools.vendors:find_vendor",)
    extraction = begin(
        recipe(Purchases, tools=tools, max_output_tokens=1_000), Record("r1", text, content_fingerprint(text))
    )
    made: list[ToolRequest] = []
    windows = 0
    while (request := extraction.next_request()) is not None:
        if isinstance(request, ToolRequest):
            made.append(request)
            extraction.receive(ToolResult('{"vendor_id": "V-0042"}'))
            continue
        said = request.messages[-1].content
        if request.purpose is Purpose.LOOKUP:
            calls = () if "V-0042" in str(request.messages) else (ToolCall("1", "find_vendor", '{"name": "Globex"}'),)
            extraction.receive(ChatReply("DONE", "stop", Usage(1, 1, 1), model="fake", tool_calls=calls))
            continue
        windows += 1
        there = [n for n in range(1, 201) if f"{name_of(n)} by" in said]
        answer = {"items": [{"name": name_of(n), "vendor_id": "V-0042" if n % 2 else None} for n in there]}
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 1, 1), model="fake"))

    assert extraction.outcome is not None and names(extraction.outcome) == [name_of(n) for n in range(1, 201)]
    assert len(made) == windows > 3
