"""The switches that save tokens: nulls left out, compact answers, what stands nowhere made null without a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from extractors.extraction import Extraction
from extractors.qwen.grammar import compact_grammar
from extractors.qwen.requests import ChatReply, ChatRequest, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

TEXT = "Blue Kettle with a lid"


class Part(BaseModel):
    name: str
    size: str | None = None


class Offer(BaseModel):
    title: str
    price: float | None = None
    color: str | None
    kind: Literal["new", "used"] | None = None
    parts: list[Part] = []


def recipe(mode: Mode = Mode.GRAMMAR, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", **options})
    return compile_recipe(job, Offer, ModelPolicy("fake", mode, None, max_input_tokens=1000, max_output_tokens=4000))


def drive(using: Recipe, *answers: Any) -> tuple[Any, list[ChatRequest]]:
    extraction = Extraction(using, Record("r", TEXT, content_fingerprint(TEXT)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


# Nulls left out --------------------------------------------------------------------------------------


def test_a_grammar_lets_what_may_be_null_be_left_out_and_nothing_else() -> None:
    root = recipe(omit_nulls=True, field_order="schema").shape.wire["grammar"].split("\n")
    [body] = [line for line in root if '\\"title\\"' in line]
    assert '("," " "? "\\"price\\"" ' in body and '("," " "? "\\"parts\\"" ' in body
    assert '("," " "? "\\"color\\"" ' in body, "null is filled in, though the model has no default for it"
    assert recipe().shape.wire["grammar"] != recipe(omit_nulls=True).shape.wire["grammar"]


def test_what_is_left_out_is_null_in_the_row() -> None:
    outcome, _ = drive(recipe(omit_nulls=True), {"title": "Blue Kettle"})
    assert isinstance(outcome, Extracted) and outcome.usage.calls == 1
    assert outcome.value == Offer(title="Blue Kettle", color=None)


def test_what_may_not_be_left_out_is_asked_again() -> None:
    outcome, asked = drive(recipe(omit_nulls=True), {"price": None}, {"title": "Blue Kettle"})
    assert isinstance(outcome, Extracted) and list(asked[1].shape.schema["properties"]) == ["title"]


def test_the_prompt_says_so_in_the_place_of_the_rule_for_nulls() -> None:
    plain, omitting = recipe().prompter.system.content, recipe(omit_nulls=True).prompter.system.content
    assert "What the record does not say is null" in plain and "Leave out every field" not in plain
    assert "What the record does not say is null" not in omitting and "Leave out every field" in omitting


def test_a_strict_schema_still_wants_every_property() -> None:
    wire = recipe(Mode.JSON_SCHEMA, omit_nulls=True).shape.wire["response_format"]["json_schema"]["schema"]
    assert wire["required"] == ["title", "price", "color", "kind", "parts"]


def test_examples_leave_out_the_same(tmp_path: Path) -> None:
    answer = {"title": "Pan", "price": None, "color": None, "parts": [{"name": "lid", "size": None}]}
    (tmp_path / "g.jsonl").write_text(json.dumps({"text": "Pan with lid", "expected": answer}))
    _, [request] = drive(
        recipe(omit_nulls=True, examples=str(tmp_path / "g.jsonl")), {"title": "Kettle", "color": None}
    )
    assert request.messages[2].content == '{"title":"Pan","parts":[{"name":"lid"}]}'


# Made null at once -----------------------------------------------------------------------------------


def test_what_stands_nowhere_is_dropped_without_a_call() -> None:
    using = recipe(require_evidence=["*"], evidence_policy="drop")
    outcome, _ = drive(using, {"title": "Kettle", "price": 7, "color": "red", "kind": "used"})
    assert isinstance(outcome, Extracted) and outcome.usage.calls == 1
    assert (outcome.value.price, outcome.value.color, outcome.nulled) == (None, None, ("price", "color"))
    assert outcome.value.kind == "used", "a choice is not printed"


def test_it_is_asked_again_where_null_is_not_allowed() -> None:
    using = recipe(require_evidence=["*"], evidence_policy="drop")
    outcome, _ = drive(using, {"title": "Red Pan", "color": None}, {"title": "Blue Kettle"})
    assert isinstance(outcome, Extracted) and outcome.value.title == "Blue Kettle"
    outcome, _ = drive(using, {"title": "Red Pan", "color": None}, {"title": "Pan"})
    assert isinstance(outcome, Failed) and outcome.reason is Reason.UNGROUNDED


# The recipe ------------------------------------------------------------------------------------------


def test_each_switch_is_another_recipe_and_their_defaults_are_the_old_one() -> None:
    ids = {
        recipe(**options).id
        for options in (
            {},
            {"omit_nulls": True},
            {"compact": True},
            {"require_evidence": ["*"]},
            {"evidence_policy": "drop"},
        )
    }
    assert len(ids) == 5
    assert "no space and no line break" in recipe(compact=True).prompter.system.content


@pytest.mark.parametrize("omitting", [False, True])
def test_a_grammar_is_one_line_without_indentation(omitting: bool) -> None:
    assert "\\n" not in compact_grammar({"type": "object", "properties": {"a": {"type": "null"}}})
    assert recipe(omit_nulls=omitting).shape.mode is Mode.GRAMMAR


def test_nulls_are_left_out_by_default_only_after_similar_examples_of_it_in_a_grammar(tmp_path: Path) -> None:
    """Without examples, or with the same for all, small models left out values too."""
    golden = tmp_path / "g.jsonl"
    golden.write_text(json.dumps({"text": "Red pan", "expected": {"title": "Red pan", "price": None, "color": None}}))
    similar = recipe(examples=str(golden))
    assert similar.shape.omit_nulls and similar.document["omit_nulls"] == "after examples"
    assert not similar.omits_unshown, "windows of a long record are asked without examples"
    told = recipe(examples=str(golden), omit_nulls=True)
    assert told.shape == similar.shape and told.omits_unshown and told.id != similar.id
    for other in (
        recipe(),
        recipe(examples=str(golden), examples_choice="fixed"),
        recipe(Mode.JSON_OBJECT, examples=str(golden)),
        recipe(examples=str(golden), omit_nulls=False),
    ):
        assert not other.shape.omit_nulls and "omit_nulls" not in other.document
