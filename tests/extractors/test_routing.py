"""Routing: what the final model is asked, what of its answer is taken, and thresholds with a stated error bound."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from extractors.calibration import Calibration
from extractors.endpoint import Settings, resolve_endpoint
from extractors.error_bounds import chance_of_so_few
from extractors.errors import JobError
from extractors.extraction import Extraction
from extractors.grounding import ground
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Logprobs, Mode, Purpose
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.routing import Draft, asked_whole, completed, merged, threshold_for
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Line(BaseModel):
    name: str


class Offer(BaseModel):
    title: str
    price: float | None = None
    kind: Literal["new", "used"] = "new"
    lines: list[Line] = []


TEXT = "Blue Kettle with a lid, now 19.90"
GOOD = {"title": "Blue Kettle", "price": 19.9, "kind": "used", "lines": []}
FINAL = ModelPolicy("strong", Mode.JSON_OBJECT, None, max_input_tokens=1000, max_output_tokens=4000)


def recipe(final: ModelPolicy | None = FINAL, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    policy = ModelPolicy("cheap", Mode.PROMPTED, None, max_input_tokens=1000, max_output_tokens=4000, final=final)
    return compile_recipe(job, Offer, policy)


def drive(answers: list[Any], **options: Any) -> tuple[Any, list[ChatRequest]]:
    extraction = Extraction(recipe(**options), Record("r", TEXT, content_fingerprint(TEXT)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        if not isinstance(answer, CallError):
            text = answer if isinstance(answer, str) else json.dumps(answer)
            answer = ChatReply(text, "stop", Usage(1, 10, 10), model=request.model)
        extraction.receive(answer)
    assert extraction.next_request() is None, extraction.next_request()
    return extraction.outcome, asked


def test_a_sure_draft_is_not_routed() -> None:
    outcome, asked = drive([GOOD])
    assert isinstance(outcome, Extracted) and outcome.routed == ()
    assert (outcome.model, asked[0].model) == ("cheap", "cheap")


def test_only_the_doubtful_field_goes_to_the_final_model_and_is_merged() -> None:
    outcome, asked = drive([{**GOOD, "price": 7}, {"price": 19.9}])
    assert isinstance(outcome, Extracted)
    assert (outcome.value.price, outcome.value.title) == (19.9, "Blue Kettle")
    assert (outcome.model, outcome.routed, outcome.corrected) == ("cheap+strong", ("price",), ("price",))
    assert (asked[1].model, asked[1].purpose, asked[1].shape.mode) == ("strong", Purpose.ROUTE, Mode.JSON_OBJECT)
    assert list(asked[1].shape.schema["properties"]) == ["price"]


def test_confidence_below_the_threshold_routes_too() -> None:
    outcome, asked = drive([GOOD, {"kind": "new"}], route_below=0.9)
    assert list(asked[1].shape.schema["properties"]) == ["kind"], "a choice without token probabilities has 0.85"
    assert isinstance(outcome, Extracted) and outcome.value.kind == "new"


@pytest.mark.parametrize(
    ("answers", "options", "calibrated"),
    [
        ([GOOD], {"route_below": 0.5}, {"title", "price", "kind"}),
        ([{**GOOD, "price": 7}, {"price": 19.9}], {"route_below": 0.5}, {"title", "kind"}),
        ([{**GOOD, "price": 7}, {"price": 7}], {"route_below": 0.5}, {"title", "kind"}),
        ([{**GOOD, "price": 7}, "no idea"], {"route_below": 0.5}, {"title", "price", "kind"}),
        ([{**GOOD, "price": "?"}, {"price": "?!"}, {"price": 19.9}], {"route_below": 0.5}, {"title", "kind"}),
        (["What?", "What do you mean?", GOOD], {"route_below": 0.5}, set()),
    ],
)
def test_a_draft_s_calibration_says_nothing_of_the_final_s_values(
    tmp_path: Path, answers: list[Any], options: dict[str, Any], calibrated: set[str]
) -> None:
    """Nor of those that both wrote; where the final brought nothing, the draft's stand with theirs."""
    Calibration("isotonic", ((0.0, 0.55), (1.0, 0.55)), 40).save(tmp_path / "c.json")
    outcome, _ = drive(answers, calibration=str(tmp_path / "c.json"), **options)
    assert isinstance(outcome, Extracted)
    assert {path for path, sure in outcome.confidence.items() if sure == 0.55} == calibrated
    assert len(outcome.confidence) == 3


def test_a_list_is_asked_as_a_whole() -> None:
    outcome, asked = drive([{**GOOD, "lines": [{"name": "lid"}, {"name": "pan"}]}, {"lines": [{"name": "lid"}]}])
    assert list(asked[1].shape.schema["properties"]) == ["lines"]
    assert isinstance(outcome, Extracted) and [line.name for line in outcome.value.lines] == ["lid"]


def test_a_value_that_stands_nowhere_does_not_replace_one_that_stands_in_the_record() -> None:
    outcome, _ = drive([GOOD, {"title": "Red Pan", "price": None, "kind": "new"}], route_below=0.95)
    assert isinstance(outcome, Extracted)
    assert (outcome.value.title, outcome.value.price, outcome.value.kind) == ("Blue Kettle", None, "new")


@pytest.mark.parametrize(
    "answer", ["no idea", {"price": "cheap"}, {}, CallError(ErrorKind.TIMED_OUT, "too slow", "strong")]
)
def test_the_draft_stands_where_the_final_brings_nothing(answer: Any) -> None:
    outcome, _ = drive([{**GOOD, "price": 7}, answer])
    assert isinstance(outcome, Extracted) and outcome.value.price == 7
    assert (outcome.model, outcome.routed) == ("cheap", ("price",)), "who gave nothing is not named"


def test_a_draft_that_cannot_be_put_right_is_handed_over_by_its_failing_paths() -> None:
    bad = {**GOOD, "price": "cheap"}
    outcome, asked = drive([bad, {"price": "cheap!"}, {"price": 19.9}])
    assert isinstance(outcome, Extracted) and outcome.value.price == 19.9
    assert [one.model for one in asked] == ["cheap", "cheap", "strong"]
    assert asked[2].purpose is Purpose.ROUTE and "cheap!" in asked[2].messages[-1].content


def test_a_draft_that_cannot_be_read_is_handed_over_whole() -> None:
    outcome, asked = drive(["What?", "What do you mean?", GOOD])
    assert isinstance(outcome, Extracted) and outcome.model == "strong"
    assert set(asked[2].shape.schema["properties"]) == {"title", "price", "kind", "lines"}


def test_the_final_model_has_attempts_of_its_own_and_fails_with_its_own_reason() -> None:
    bad = {**GOOD, "price": "cheap"}
    answers = [bad, {"price": 1, "title": 3}, {"price": "?"}, {"price": "??"}]
    outcome, asked = drive([bad, {"price": "cheap"}, {"price": "?"}, {"price": "?"}], max_attempts=2)
    assert isinstance(outcome, Failed) and outcome.reason is Reason.INVALID and len(answers) == len(asked)
    assert [one.model for one in asked] == ["cheap", "cheap", "strong", "strong"]
    assert [attempt.model for attempt in outcome.attempts] == ["cheap", "cheap", "strong", "strong"]


def test_what_the_final_model_cannot_ground_either_becomes_null() -> None:
    bad = {**GOOD, "price": 7}
    outcome, asked = drive([bad, {"price": 8}, {"price": 7}], require_evidence=["price"])
    assert isinstance(outcome, Extracted) and (outcome.value.price, outcome.nulled) == (None, ("price",))
    assert [one.model for one in asked] == ["cheap", "cheap", "strong"]


def test_what_is_doubtful_is_asked_beside_what_had_to_be_dropped() -> None:
    bad = {**GOOD, "price": 7}
    final = {"price": 19.9, "kind": "new"}
    outcome, asked = drive([bad, {"price": 8}, final], require_evidence=["price"], route_below=0.9)
    assert list(asked[2].shape.schema["properties"]) == ["kind", "price"]
    assert isinstance(outcome, Extracted) and outcome.nulled == ()
    assert (outcome.value.price, outcome.value.kind, outcome.routed) == (19.9, "new", ("kind", "price"))


def test_a_value_of_the_final_that_had_to_be_dropped_is_no_null_of_its_own(shown: str) -> None:
    options = {"examples": shown, "require_evidence": ["price"], "evidence_policy": "drop", "route_below": 0.95}
    outcome, asked = drive([GOOD, {**GOOD, "title": "Kettle", "price": 55}], **options)
    assert len(asked) == 2 and isinstance(outcome, Extracted)
    assert (outcome.value.title, outcome.value.price) == ("Kettle", 19.9), "55 stands nowhere"


def test_a_value_of_the_final_model_that_breaks_a_rule_costs_no_other_field_its_value() -> None:
    extraction = Extraction(recipe(require_evidence=["price"]), Record("r", TEXT, content_fingerprint(TEXT)))
    draft = json.dumps({"title": "Kettle", "price": None, "kind": "new", "lines": []})
    unsure = Logprobs((len(draft),), (-3.0,))
    extraction.receive(ChatReply(draft, "stop", Usage(1, 10, 10), "cheap", logprobs=unsure))
    final = extraction.next_request()
    assert isinstance(final, ChatRequest) and {"title", "price"} <= set(final.shape.schema["properties"])
    extraction.receive(ChatReply('{"title": "Blue Kettle", "price": 55}', "stop", Usage(1, 10, 10), "strong"))
    assert isinstance(extraction.outcome, Extracted)
    value = extraction.outcome.value
    assert isinstance(value, Offer) and (value.title, value.price) == ("Blue Kettle", None), "55 stands nowhere"


def test_a_second_look_that_fails_does_not_keep_the_final_model_from_what_is_doubtful() -> None:
    failed = CallError(ErrorKind.OVERLOADED, "busy", "cheap")
    outcome, asked = drive([{**GOOD, "price": 7}, failed, {"price": 19.9}], second_look="always")
    assert isinstance(outcome, Extracted) and outcome.value.price == 19.9
    assert [one.purpose for one in asked] == [Purpose.EXTRACT, Purpose.LOOK, Purpose.ROUTE]


EXAMPLE = {"text": "Red pan, used, 8.00", "expected": {"title": "Red pan", "price": 8, "kind": "used", "lines": []}}


@pytest.fixture
def shown(tmp_path: Path) -> str:
    (tmp_path / "golden.jsonl").write_text(json.dumps(EXAMPLE) + "\n")
    return str(tmp_path / "golden.jsonl")


def test_after_examples_the_final_is_asked_the_first_question_and_only_doubtful_fields_are_taken(shown: str) -> None:
    final = {"title": "Blue Kettle with a lid", "price": 19.9, "kind": "used", "lines": []}
    outcome, asked = drive([{**GOOD, "price": 7}, final], examples=shown)
    assert asked[1].messages == asked[0].messages and asked[1].model == "strong"
    assert set(asked[1].shape.schema["properties"]) == {"title", "price", "kind", "lines"}
    assert isinstance(outcome, Extracted)
    assert (outcome.value.price, outcome.value.title) == (19.9, "Blue Kettle"), "the title was not in doubt"
    assert (outcome.model, outcome.routed, outcome.corrected) == ("cheap+strong", ("price",), ("price",))


def test_what_the_draft_left_out_is_taken_of_a_whole_answer_where_it_stands_in_the_record(shown: str) -> None:
    draft = {"title": "Pan", "kind": "used"}
    final = {"title": "Blue Kettle", "price": 19.9, "lines": [{"name": "lid"}]}
    outcome, _ = drive([draft, final], examples=shown, omit_nulls=True)
    assert isinstance(outcome, Extracted)
    assert outcome.value.model_dump() == {**final, "kind": "used"}
    assert outcome.routed == ("title", "price", "lines")
    outcome, _ = drive([draft, {**final, "price": 55, "lines": [{"name": "pot"}]}], examples=shown, omit_nulls=True)
    assert isinstance(outcome, Extracted)
    assert outcome.value.model_dump() == {"title": "Blue Kettle", "price": None, "kind": "used", "lines": []}


def test_a_choice_that_the_draft_left_out_needs_not_stand_in_the_record() -> None:
    class Kettle(BaseModel):
        title: str
        used: bool | None = None
        color: str | None = None

    schema = answer_schema(Kettle)
    draft = {"title": "Pan"}
    whole = asked_whole(Draft(draft, Kettle(title="Pan"), (), ("title",)), schema, {})
    assert whole.left_out == ("used", "color") and whole.choices == {"used"}
    made = merged(
        whole,
        completed({"title": "Blue Kettle", "used": True, "color": "red"}, schema, whole.open),
        validated=lambda data: Kettle.model_validate(data),
        grounded=lambda value: ground(value, TEXT),
    )
    assert made.data == {"title": "Blue Kettle", "used": True} and set(made.changed) == {"title", "used"}


def test_a_value_that_the_final_left_out_is_gone_where_it_was_in_doubt(shown: str) -> None:
    outcome, _ = drive(
        [{**GOOD, "price": 7}, {"title": "Blue Kettle", "kind": "used"}], examples=shown, omit_nulls=True
    )
    assert isinstance(outcome, Extracted) and outcome.value.price is None


def test_a_null_of_which_the_draft_was_sure_stays(shown: str) -> None:
    extraction = Extraction(recipe(examples=shown), Record("r", TEXT, content_fingerprint(TEXT)))
    draft = '{"title":"Pan","price":null,"kind":"new","lines":[]}'
    sure = Logprobs((len(draft),), (-0.01,))
    extraction.receive(ChatReply(draft, "stop", Usage(1, 10, 10), "cheap", logprobs=sure))
    assert extraction.next_request() is not None
    extraction.receive(ChatReply(json.dumps(GOOD), "stop", Usage(1, 10, 10), "strong"))
    assert isinstance(extraction.outcome, Extracted)
    value = extraction.outcome.value
    assert isinstance(value, Offer) and (value.title, value.price) == ("Blue Kettle", None)


def test_a_long_answer_is_asked_by_its_doubtful_fields_after_examples_too(shown: str) -> None:
    long = {**GOOD, "price": 7, "lines": [{"name": "lid"}] * 60}
    outcome, asked = drive([long, {"price": 19.9}], examples=shown)
    assert list(asked[1].shape.schema["properties"]) == ["price"]
    assert isinstance(outcome, Extracted) and outcome.value.price == 19.9


@pytest.mark.parametrize("answer", ["no idea", CallError(ErrorKind.TIMED_OUT, "too slow", "strong")])
def test_the_draft_stands_where_no_whole_answer_comes(answer: Any, shown: str) -> None:
    outcome, _ = drive([{**GOOD, "price": 7}, answer], examples=shown)
    assert isinstance(outcome, Extracted) and outcome.value.price == 7


def test_two_models_that_agree_are_surer_than_one() -> None:
    outcome, _ = drive([GOOD, {"kind": "used"}], route_below=0.9)
    assert isinstance(outcome, Extracted) and outcome.corrected == ()


def test_routing_is_part_of_the_recipe_and_nothing_else_changes_it() -> None:
    assert len({recipe(None).id, recipe().id, recipe(route_below=0.6).id}) == 3
    assert recipe(None).id == recipe(None, route_below=0.6).id


# Who they are ----------------------------------------------------------------------------------------


def job(**options: Any) -> ExtractionJob:
    return ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ({"draft": "local-0.5b", "final": "local-1.5b"}, ("local-0.5b", "local-1.5b")),
        ({"final": "local-1.5b"}, ("local-0.5b", "local-1.5b")),
        ({"high_accuracy": True}, ("local-0.5b", "local-1.5b")),
        (
            {"model": "qwen-flash", "base_url": "http://127.0.0.1:1/v1", "high_accuracy": True},
            ("qwen-flash", "qwen-max"),
        ),
        ({}, ("local-1.5b", None)),
    ],
)
def test_the_models_of_a_job(options: dict[str, Any], models: tuple[str, str | None]) -> None:
    endpoint = resolve_endpoint(job(**options), Settings())
    assert (endpoint.model, endpoint.final and endpoint.final.model) == models
    assert (endpoint.policy.final and endpoint.policy.final.name) == models[1]


def test_the_environment_names_the_final_model_of_high_accuracy() -> None:
    endpoint = resolve_endpoint(job(model="local-0.5b", high_accuracy=True), Settings(final_model="local-1.5b"))
    assert endpoint.final is not None and endpoint.final.model == "local-1.5b"


def test_the_draft_of_an_embedded_final_that_the_environment_names_is_the_smaller_one() -> None:
    endpoint = resolve_endpoint(job(high_accuracy=True), Settings(final_model="local-1.5b"))
    assert (endpoint.model, endpoint.final and endpoint.final.model) == ("local-0.5b", "local-1.5b")


@pytest.mark.parametrize(
    "options",
    [
        {"model": "qwen-flash", "final": "qwen-flash", "base_url": "http://127.0.0.1:1/v1"},
        {"model": "qwen-max", "high_accuracy": True, "base_url": "http://127.0.0.1:1/v1"},
        {"model": "local-1.5b", "high_accuracy": True},
    ],
)
def test_a_draft_that_is_its_own_final_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=f"are both {options['model']}: give two models"):
        resolve_endpoint(job(**options), Settings())
    again = resolve_endpoint(job(**options), Settings(), model=options["model"])
    assert again.final is None, "a retry with another model has one alone"


@pytest.mark.parametrize("options", [{"draft": "a", "model": "b"}, {"draft": "a"}, {"final": "a", "lane": "batch"}])
def test_models_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"final|draft"):
        job(**options)


# Thresholds ------------------------------------------------------------------------------------------


def test_a_threshold_keeps_its_error_bound_on_fresh_values() -> None:
    draw = random.Random(7)

    def values(count: int) -> list[tuple[float, bool]]:
        return [(score, draw.random() < score) for score in (draw.random() ** 0.3 for _ in range(count))]

    broken = 0
    for _ in range(30):
        threshold = threshold_for(values(1500), max_error=0.1)
        kept = [right for score, right in values(4000) if score >= threshold]
        assert len(kept) > 400, "a good part is kept"
        broken += 1 - sum(kept) / len(kept) > 0.1
    assert broken <= 5, "5 % of the bounds may break, and chance on top"


def test_the_bound_by_hand() -> None:
    # 0.95 ** 59 < 0.05: it takes 59 right values to be sure of an error below 5 %.
    assert threshold_for([(0.9, True)] * 58, max_error=0.05) == 1.01
    assert threshold_for([(0.9, True)] * 59, max_error=0.05) == 0.9
    # Two thresholds are tested, so each has half of the uncertainty: 0.95 ** 72 < 0.025.
    assert threshold_for([(0.9, True)] * 72 + [(0.5, False)] * 20, max_error=0.05) == 0.9
    assert threshold_for([(0.9, True)] * 71 + [(0.5, False)] * 20, max_error=0.05) == 1.01


def test_a_bound_that_is_no_probability_is_refused() -> None:
    with pytest.raises(JobError, match="between 0 and 1"):
        threshold_for([], max_error=1.0)


def _clustered(draw: random.Random, rate: float, how: str) -> tuple[int, int]:
    """(wrong, values) of a record whose values are wrong at a rate."""
    count = draw.randint(1, 12) if how == "of all sizes" else 6
    if how == "independent":
        return sum(draw.random() < rate for _ in range(count)), count
    if how == "half of a record":
        bad = 0.5 if draw.random() < 2 * rate else 0.0
        return sum(draw.random() < bad for _ in range(count)), count
    if how == "both":
        alone = 0.3 * rate / (1 - 0.7 * rate)
        return (count if draw.random() < 0.7 * rate else sum(draw.random() < alone for _ in range(count))), count
    return count * (draw.random() < rate), count


@pytest.mark.parametrize("how", ["independent", "whole records", "half of a record", "both", "of all sizes"])
@pytest.mark.parametrize("count", [60, 150])
def test_a_stated_error_bound_holds_in_95_of_100_golden_sets(how: str, count: int) -> None:
    """Values of a record are wrong together, and a bound that took them one by one was false of up to three sets in ten."""
    stated = 0
    for seed in range(400):
        draw = random.Random(seed)
        pairs: list[tuple[float, bool]] = []
        records: list[int] = []
        for record in range(count):
            wrong, values = _clustered(draw, 0.0505, how)
            pairs += [(0.9, at >= wrong) for at in range(values)]
            records += [record] * values
        stated += threshold_for(pairs, max_error=0.05, records=records) <= 1
    assert stated <= 28, "5 % of 400 are 20, and chance on top"


def test_records_without_an_error_count_as_records_and_errors_by_how_they_cluster() -> None:
    def stated(records: int, wrong: int, *, together: bool = False) -> bool:
        """Six values a record, of which some are wrong: one a record, or all of as many records as it takes."""
        pairs = []
        for number in range(6 * records):
            hit = number < wrong if together else number % 6 == 0 and number < 6 * wrong
            pairs.append((0.9, not hit))
        return threshold_for(pairs, max_error=0.05, records=[number // 6 for number in range(6 * records)]) == 0.9

    assert not stated(58, 0) and stated(59, 0)
    assert stated(150, 18) and not stated(150, 18, together=True), "as three records of 150, or 2 % of 900 values"
    assert stated(150, 12, together=True)


@pytest.mark.parametrize(("wrong", "count"), [(0, 1), (3, 59), (59, 60), (12, 400), (40, 400)])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_the_binomial_tail_of_values_that_are_records_by_themselves_is_exact(
    wrong: int, count: int, rate: float
) -> None:
    exact = sum(
        math.comb(count, k) * Fraction(rate) ** k * (1 - Fraction(rate)) ** (count - k) for k in range(wrong + 1)
    )
    found = chance_of_so_few([(int(at < wrong), 1) for at in range(count)], rate)
    assert found == pytest.approx(float(exact), rel=1e-6, abs=1e-12)
    assert chance_of_so_few([(1, 1)] * 3, rate) == chance_of_so_few([], rate) == 1.0
