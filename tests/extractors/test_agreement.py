"""Agreement: the first question asked twice, what is compared, and what becomes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from extractors.agreement import Agreement, compared
from extractors.calibration import Calibration
from extractors.errors import JobError
from extractors.extraction import Extraction
from extractors.images import ImageLimits, Pictures
from extractors.longtext.begin import begin
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Image, Logprobs, Mode, Purpose
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Line(BaseModel):
    name: str
    price: float | None = None


class Place(BaseModel):
    city: str | None = None
    zip: str | None = None


class Offer(BaseModel):
    title: str
    price: float | None = None
    color: str | None = None
    kind: Literal["new", "used", "<10", ">10"] = "new"
    place: Place | None = None
    lines: list[Line] = []
    notes: dict[str, str] = {}


SCHEMA = answer_schema(Offer)
TEXT = "Blue Kettle with a lid and a cord, blue, now 19.90, was 25.00, used"
GOOD = {"title": "Blue Kettle", "price": 19.9, "kind": "used", "lines": [{"name": "lid"}]}
FINAL = ModelPolicy("strong", Mode.JSON_OBJECT, None, max_input_tokens=8000, max_output_tokens=4000)


def recipe(final: ModelPolicy | None = None, *, logprobs: bool = False, model: Any = Offer, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate(
        {"source": "x.csv", "schema": "x", "out": "out", "agreement": "always", **options}
    )
    policy = ModelPolicy(
        "cheap", Mode.PROMPTED, None, max_input_tokens=8000, max_output_tokens=4000, final=final, logprobs=logprobs
    )
    return compile_recipe(job, model, policy)


def drive(
    answers: list[Any], using: Recipe | None = None, *, text: str = TEXT, **options: Any
) -> tuple[Extracted, list[ChatRequest]]:
    extraction = begin(using or recipe(**options), Record("r", text, content_fingerprint(text)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert isinstance(request, ChatRequest), extraction.outcome
        asked.append(request)
        if not isinstance(answer, CallError | ChatReply):
            words = answer if isinstance(answer, str) else json.dumps(answer)
            answer = ChatReply(words, "stop", Usage(1, 10, 10), model=request.model)
        extraction.receive(answer)
    assert extraction.next_request() is None, extraction.next_request()
    assert isinstance(extraction.outcome, Extracted), extraction.outcome
    return extraction.outcome, asked


def purposes(asked: list[ChatRequest]) -> list[Purpose]:
    return [one.purpose for one in asked]


# What is asked ---------------------------------------------------------------------------------------


def test_the_same_question_is_sampled_once_more_and_is_another_one_in_the_journal() -> None:
    outcome, [first, second] = drive([GOOD, GOOD])
    assert (second.messages, second.shape) == (first.messages, first.shape)
    assert (first.purpose, second.purpose, second.attempt) == (Purpose.EXTRACT, Purpose.AGREE, 2)
    assert (first.temperature, first.seed, second.temperature, second.seed) == (0.0, None, 0.7, 1)
    assert first.digest() != second.digest()
    assert [one.purpose for one in outcome.attempts] == ["extract", "agree"] and outcome.usage.calls == 2


def test_a_recipe_with_seed_and_temperature_has_others_for_the_second_answer() -> None:
    _, asked = drive([GOOD, GOOD], seed=2**31 - 1, temperature=0.9)
    assert [(one.temperature, one.seed) for one in asked] == [(0.9, 2**31 - 1), (0.9, 0)]


def test_the_first_answer_is_put_right_before_it_is_compared() -> None:
    outcome, asked = drive([{**GOOD, "price": "cheap"}, {"price": 19.9}, GOOD])
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.CORRECT, Purpose.AGREE]
    assert asked[2].messages == asked[0].messages
    assert outcome.confidence["price"] == pytest.approx(0.9474, abs=1e-4)


def test_where_attempts_or_tokens_leave_no_call_nothing_is_compared() -> None:
    plain, _ = drive([GOOD], recipe(agreement="never"))
    late, asked = drive([{**GOOD, "price": "cheap"}, {"price": 19.9}], recipe(max_attempts=2))
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.CORRECT]
    dear, asked = drive([GOOD], recipe(max_record_tokens=20))
    assert len(asked) == 1 and dear.confidence == late.confidence == plain.confidence


@pytest.mark.parametrize(
    "second",
    [
        "I would rather not",
        '{"title": "Blue Ke',
        {**GOOD, "price": "cheap"},
        CallError(ErrorKind.TIMED_OUT, "too slow", "cheap"),
        CallError(ErrorKind.TOO_LONG, "too long", "cheap"),
        ChatReply("", "content_filter", Usage(1, 10, 0), "cheap"),
    ],
)
def test_a_second_answer_that_is_not_right_tells_nothing(second: Any) -> None:
    plain, _ = drive([GOOD], recipe(agreement="never"))
    outcome, asked = drive([GOOD, second])
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.AGREE]
    assert (outcome.value, outcome.confidence) == (plain.value, plain.confidence)


def test_an_answer_of_the_final_model_is_never_asked_twice() -> None:
    outcome, asked = drive(["What?", "What do you mean?", GOOD], final=FINAL)
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.REASK, Purpose.ROUTE] and outcome.model == "strong"


def test_a_long_record_is_not_asked_twice() -> None:
    text = TEXT + "\n\n" + "\n\n".join(f"Paragraph {n} says nothing of kettles. " * 8 for n in range(40))

    class Plain(BaseModel):
        title: str

    _, asked = drive([{"title": "Blue Kettle"}], recipe(long_text="chunks", model=Plain), text=text)
    assert len(asked) == 1 and len(asked[0].messages[-1].content) < len(text)
    counted = recipe(count_lists="always")
    _, asked = drive([{**GOOD, "lines_count": 1}], counted)
    assert len(asked) == 1, "its lists are counted and read by themselves"


# What it is worth ------------------------------------------------------------------------------------


def test_without_token_probabilities_agreement_tells_values_and_nulls_apart() -> None:
    second = {**GOOD, "title": "blue kettle!", "price": 25, "color": "blue"}
    outcome, _ = drive([GOOD, second])
    assert outcome.value.model_dump(include={"title", "price", "color"}) == {
        "title": "Blue Kettle",
        "price": 19.9,
        "color": None,
    }
    sure = outcome.confidence
    assert sure["title"] == pytest.approx(2 * 0.9 / 1.9, abs=1e-4), "spelt otherwise is the same"
    assert sure["price"] == pytest.approx(0.3, abs=1e-4)
    assert sure["kind"] == sure["title"]
    assert (sure["color"], sure["place"]) == (0.3, 0.8), "a null that the second answer fills, and one that it has too"
    assert sure["lines/0/name"] > 0.9


def test_what_both_made_up_stays_doubtful() -> None:
    outcome, _ = drive([{**GOOD, "color": "mauve"}] * 2)
    assert 0.1 < outcome.confidence["color"] < 0.5


def test_with_token_probabilities_a_disagreement_halves_the_score_and_agreement_leaves_it() -> None:
    words = json.dumps({"title": "Blue Kettle", "price": 19.9, "color": None})
    spots = [words.index(",", words.index("title")), words.index(", ", words.index("price")), len(words)]
    tokens = Logprobs(tuple(spots), (-0.1, -0.2, -0.3))
    told = ChatReply(words, "stop", Usage(1, 10, 10), "cheap", logprobs=tokens)
    plain, _ = drive([told], recipe(agreement="never", logprobs=True))
    second = {"title": "Blue Kettle", "price": 25, "color": "blue"}
    outcome, asked = drive([told, second], recipe(logprobs=True))
    assert (asked[0].logprobs, asked[1].logprobs) == (True, False)
    assert outcome.confidence["title"] == plain.confidence["title"] == round(math.exp(-0.1), 4)
    for path in ("price", "color"):
        assert outcome.confidence[path] == pytest.approx(plain.confidence[path] / 2, abs=1e-4)


def test_what_only_the_second_look_found_is_not_held_against_an_answer_without_it() -> None:
    limits = ImageLimits(most=1, max_bytes=1000, min_side=10, max_pixels=1000)
    policy = ModelPolicy("vl", Mode.PROMPTED, None, 9000, 8000, images=limits)
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", "agreement": "always"})
    pictures = Pictures((Image("image/png", b"...", width=20, height=20),))
    extraction = Extraction(
        compile_recipe(job, Place, policy), Record("r", "", content_fingerprint("picture")), pictures
    )
    asked = []
    for answer in ({"city": "Bern"}, {"zip": "3011"}, {"city": "Bern"}):
        request = extraction.next_request()
        assert isinstance(request, ChatRequest)
        asked.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), "vl"))
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.LOOK, Purpose.AGREE]
    assert asked[2].messages[1].images == pictures.images
    assert isinstance(extraction.outcome, Extracted)
    assert extraction.outcome.confidence == {"city": 0.6667, "zip": 0.5}


# What is routed --------------------------------------------------------------------------------------


def test_only_what_the_draft_disagrees_on_is_routed_whatever_the_threshold() -> None:
    second = {**GOOD, "title": "BLUE KETTLE", "price": 25}
    final = {"price": 25.0}
    outcome, asked = drive([GOOD, second, final], final=FINAL, route_below=0.0)
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.AGREE, Purpose.ROUTE]
    assert list(asked[2].shape.schema["properties"]) == ["price"]
    assert (asked[2].model, asked[2].attempt, asked[2].temperature, asked[2].seed) == ("strong", 3, 0.0, None)
    assert (outcome.value.model_dump()["price"], outcome.routed) == (25.0, ("price",))
    assert outcome.confidence["price"] == 0.9, "the final's value is none of those that disagreed"


def test_a_null_and_a_list_of_the_draft_are_doubted_too() -> None:
    second = {**GOOD, "color": "blue", "lines": [{"name": "lid"}, {"name": "cord"}]}
    outcome, asked = drive([GOOD, second, {"color": "blue", "lines": second["lines"]}], final=FINAL)
    assert list(asked[2].shape.schema["properties"]) == ["lines", "color"]
    assert outcome.value.model_dump()["color"] == "blue" and outcome.routed == ("lines", "color")


def test_where_the_final_says_what_the_draft_said_first_the_doubt_is_gone() -> None:
    outcome, _ = drive([GOOD, {**GOOD, "price": 25}, {"price": 19.9}], final=FINAL)
    assert outcome.confidence["price"] > 0.9
    silent, _ = drive([GOOD, {**GOOD, "price": 25}, CallError(ErrorKind.TIMED_OUT, "", "strong")], final=FINAL)
    assert silent.confidence["price"] < 0.5 and silent.value.model_dump()["price"] == 19.9


def test_a_draft_that_agrees_with_itself_is_not_routed() -> None:
    outcome, asked = drive([GOOD, GOOD], final=FINAL)
    assert purposes(asked) == [Purpose.EXTRACT, Purpose.AGREE] and outcome.routed == ()


# What is compared ------------------------------------------------------------------------------------


def same(first: Any, second: Any, **more: Any) -> Agreement:
    told = {"title": "t", **first}, {"title": "t", **second}
    return compared(*told, SCHEMA, **more)


@pytest.mark.parametrize(
    ("first", "second", "disagreed"),
    [
        ({"color": "dark blue"}, {"color": "Dark-Blue."}, ()),
        ({"color": "12.50"}, {"color": "12.5"}, ()),
        ({"kind": "<10"}, {"kind": ">10"}, ("kind",)),
        ({"color": None}, {"color": "null"}, ("color",)),
        ({"color": None}, {}, ()),
        ({"lines": [{"name": "a"}, {"name": "b"}]}, {"lines": [{"name": "B", "price": None}, {"name": "a"}]}, ()),
        ({"lines": [{"name": "a"}, {"name": "a"}]}, {"lines": [{"name": "a"}]}, ("lines",)),
        ({"lines": []}, {}, ()),
        ({"place": {"city": "Bern", "zip": None}}, {"place": {"city": "Basel", "zip": "4001"}}, ("place/city", "place/zip")),
        ({"place": {"city": "Bern", "zip": None}}, {"place": None}, ("place/city",)),
        ({"place": None}, {"place": {"city": "Bern"}}, ("place",)),
        ({"place": None}, {"place": {"city": None, "zip": None}}, ()),
        ({"notes": {"a": "x"}}, {"notes": {"a": "X"}}, ()),
        ({"notes": {"a": "x"}}, {"notes": {"a": "x", "b": "y"}}, ("notes",)),
        ({"more": 1}, {"more": 2}, ()),
    ],
)  # fmt: skip
def test_values_are_compared_by_what_they_say(first: Any, second: Any, disagreed: tuple[str, ...]) -> None:
    assert same(first, second).disagreed == disagreed


def test_what_the_model_did_not_say_is_not_compared() -> None:
    assert "color" not in same({"color": None}, {"color": "red"}, lost=["color"]).known
    assert same({"color": "red"}, {"color": None}, lost=["color"]).disagreed == ("color",)
    assert "color" not in same({"color": "red"}, {"color": None}, found_later=["color"]).known
    assert same({"color": "red"}, {"color": "blue"}, found_later=["color"]).disagreed == ("color",)
    assert "lines" not in same({"lines": [{"name": "a"}]}, {}, apart=["lines/0/name"]).known


def test_a_value_is_as_agreed_as_the_list_that_holds_it() -> None:
    found = same({"lines": [{"name": "a"}]}, {"lines": [{"name": "b"}]})
    assert (found.at("lines/0/name"), found.at("title"), found.at("other")) == (False, True, None)


# What it is part of ----------------------------------------------------------------------------------


def test_agreement_is_part_of_the_recipe_only_where_it_is_on() -> None:
    told = {"source": "x.csv", "schema": "x", "out": "out"}
    policy = ModelPolicy("cheap", Mode.PROMPTED, None, max_input_tokens=8000, max_output_tokens=4000)
    plain = compile_recipe(ExtractionJob.model_validate(told), Offer, policy)
    off, on = recipe(agreement="never"), recipe()
    assert plain.id == off.id != on.id
    assert "agreement" not in plain.document and on.document["agreement"] == {"of": "always", "temperature": 0.7}


def test_a_calibration_of_scores_without_agreement_does_not_fit_those_with_it(tmp_path: Path) -> None:
    Calibration("isotonic", ((0.0, 0.25), (1.0, 0.25)), 40).save(tmp_path / "without.json")
    Calibration("isotonic", ((0.0, 0.25), (1.0, 0.25)), 40, agreement=True).save(tmp_path / "with.json")
    with pytest.raises(JobError, match=r"without\.json: it was fitted on scores without agreement"):
        recipe(calibration=str(tmp_path / "without.json"))
    with pytest.raises(JobError, match=r"with\.json: it was fitted on scores with agreement"):
        recipe(calibration=str(tmp_path / "with.json"), agreement="never")
    outcome, _ = drive([GOOD, {**GOOD, "price": 25}], recipe(calibration=str(tmp_path / "with.json")))
    assert set(outcome.confidence.values()) == {0.25}
    assert recipe(calibration=str(tmp_path / "without.json"), agreement="never").document["calibration"] == {
        "kind": "isotonic",
        "points": [[0.0, 0.25], [1.0, 0.25]],
        "pairs": 40,
    }


@pytest.mark.parametrize(
    ("options", "said"), [({"max_attempts": 1}, "max_attempts"), ({"confidence": "never"}, "final model")]
)
def test_a_job_in_which_agreement_could_tell_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(**options)
