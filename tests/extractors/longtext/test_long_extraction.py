"""One object from a record that is longer than one call may show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

from pydantic import BaseModel, Field

from extractors.extraction import Extraction
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Mode, Purpose
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.evidence import Match
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

FILLER = (
    "The receiving side treats drawings, samples and price lists with care and gives them to nobody who does not need them. "
    "Copies are returned or destroyed on demand, and nothing here grants a licence of any kind to anybody.\n\n"
)


class Contract(BaseModel):
    party: str = Field(description="Who signs the contract.")
    governing_law: str | None = Field(default=None, description="The state whose law governs the contract.")
    term: str | None = Field(default=None, description="How long the contract lasts.")
    signed: date | None = Field(default=None, description="The date of signature.")
    products: list[str] = Field(default=[], description="The names of the products that are delivered.")


def contract(*, tail: str = "") -> str:
    law = "Governing law. This contract is governed by the law of the State of Nevada.\n\n"
    term = "Term. The contract lasts for three years and ends without notice.\n\n"
    return "CONTRACT between Heron Mills and others.\n\n" + FILLER * 20 + law + FILLER * 20 + term + FILLER * 20 + tail


POLICY = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1_400, max_output_tokens=4000)
NOTHING = {"party": "Heron Mills", "governing_law": None, "term": None, "signed": None, "products": []}
WHOLE = {**NOTHING, "governing_law": "Nevada", "term": "three years"}


def recipe(*, policy: ModelPolicy = POLICY, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    return compile_recipe(job, Contract, policy)


def drive(
    answers: list[Any], *, text: str | None = None, **options: Any
) -> tuple[Extracted | Failed | None, list[ChatRequest]]:
    """Feed the answers in order; fails if more are asked for or some are left over."""
    text = contract() if text is None else text
    extraction = Extraction(recipe(**options), Record("r1", text, content_fingerprint(text)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None
        asked.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 100, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


def said(request: ChatRequest) -> str:
    return request.messages[-1].content


def test_a_record_that_fits_is_asked_whole_and_without_chunks() -> None:
    _, (request,) = drive([NOTHING], text="CONTRACT with Heron Mills.")

    assert "[chunk" not in said(request)


def test_a_record_that_does_not_fit_is_shown_as_the_chunks_that_matter() -> None:
    outcome, asked = drive([WHOLE, {}], max_attempts=2)

    first = said(asked[0])
    assert len(first) < len(contract()) / 2
    assert "State of Nevada" in first and "lasts for three years" in first
    assert "[chunks 1 to " in first and first.index("Nevada") < first.index("three years")
    assert isinstance(outcome, Extracted)


def test_evidence_names_the_chunk_and_has_offsets_into_the_whole_text() -> None:
    outcome, _ = drive([WHOLE], max_attempts=1)

    assert isinstance(outcome, Extracted)
    law = next(one for one in outcome.evidence if one.path == "governing_law")
    assert law.start is not None and contract()[law.start : law.end] == "Nevada" == law.quote
    assert law.chunk is not None and law.chunk > 1


def test_a_value_that_was_not_shown_is_found_in_the_whole_record_without_a_chunk() -> None:
    text = contract()
    unseen = text[:5000] + "Ordinary mail is kept in drawer Zebra nine.\n\n" + text[5000:]
    outcome, asked = drive([{**WHOLE, "party": "drawer Zebra nine"}], text=unseen, max_attempts=1)

    assert "Zebra" not in said(asked[0])
    assert isinstance(outcome, Extracted)
    party = next(one for one in outcome.evidence if one.path == "party")
    assert (party.match, party.quote, party.chunk) == (Match.EXACT, "drawer Zebra nine", None)


def test_evidence_in_a_long_document_has_its_page_too() -> None:
    text = contract().replace("Governing law.", "\fGoverning law.")
    outcome, _ = drive([WHOLE], text=text, max_attempts=1)

    assert isinstance(outcome, Extracted)
    law = next(one for one in outcome.evidence if one.path == "governing_law")
    assert (law.page, law.chunk is not None) == (2, True)


def test_what_stays_empty_gets_another_look_in_other_chunks() -> None:
    outcome, asked = drive([{**WHOLE, "term": None}, {"term": "three years"}, {}], max_attempts=3)

    look = asked[1]
    assert look.purpose is Purpose.LOOK
    assert set(look.shape.schema["properties"]) == {"term", "signed", "products"}
    assert "[chunk" in said(look) and said(look) != said(asked[0])
    assert isinstance(outcome, Extracted) and outcome.corrected == ("term",)


def test_looks_show_chunks_that_were_not_shown_before_and_end_after_two() -> None:
    _, asked = drive([NOTHING, {}, {}], max_attempts=9)

    shown = [set(said(request).split("=== END")[0].split("\n")) for request in asked]
    labels = [{line for line in lines if line.startswith("[chunk")} for lines in shown]
    assert all(labels) and not labels[1] & labels[0] and not labels[2] & labels[1]


def test_an_empty_list_is_looked_for_and_taken() -> None:
    outcome, asked = drive([WHOLE, {"products": ["samples"]}, {}], max_attempts=3)

    assert "products" in asked[1].shape.schema["properties"]
    assert isinstance(outcome, Extracted) and outcome.value.products == ["samples"]  # type: ignore[attr-defined]


def test_a_model_that_takes_less_than_is_known_is_shown_less() -> None:
    text = contract()[:2500]
    extraction = Extraction(recipe(), Record("r1", text, content_fingerprint(text)))
    whole = extraction.next_request()
    assert whole is not None and "[chunk" not in said(whole)
    extraction.receive(CallError(ErrorKind.TOO_LONG, "at most 700 tokens", "fake"))
    less = extraction.next_request()

    assert less is not None and (less.purpose, less.attempt) == (Purpose.EXTRACT, 2)
    assert len(said(less)) < len(said(whole)) / 2 and "[chunk" in said(less)


def test_a_correction_shows_the_same_chunks() -> None:
    _, asked = drive([{**WHOLE, "signed": "soon"}, {"signed": None}], max_attempts=2)

    fence = said(asked[0])
    assert asked[1].purpose is Purpose.CORRECT
    assert said(asked[1]).startswith(fence)


def test_a_value_without_evidence_is_looked_for_elsewhere_before_it_is_null() -> None:
    lie = {**WHOLE, "governing_law": "Atlantis"}
    outcome, asked = drive(
        [lie, {"governing_law": "Atlantis"}, {"governing_law": "Lemuria"}],
        require_evidence=("governing_law",),
        max_attempts=3,
    )

    assert [request.purpose for request in asked] == [Purpose.EXTRACT, Purpose.CORRECT, Purpose.LOOK]
    assert isinstance(outcome, Extracted)
    assert outcome.nulled == ("governing_law",)
    assert outcome.value.governing_law is None  # type: ignore[attr-defined]


def test_the_final_model_sees_the_chunks_of_what_it_is_asked_about() -> None:
    final = ModelPolicy("strong", Mode.PROMPTED, None, max_input_tokens=1_400, max_output_tokens=4000)
    outcome, asked = drive(
        [{**WHOLE, "governing_law": "Atlantis"}, {"governing_law": "Nevada"}],
        max_attempts=1,
        policy=replace(POLICY, final=final),
    )

    assert (asked[1].model, asked[1].purpose) == ("strong", Purpose.ROUTE)
    assert set(asked[1].shape.schema["properties"]) == {"governing_law"}
    assert "State of Nevada" in said(asked[1]) and "[chunk" in said(asked[1])
    assert isinstance(outcome, Extracted) and outcome.value.governing_law == "Nevada"  # type: ignore[attr-defined]


def test_the_same_record_asks_the_same_questions_again() -> None:
    digests = [[request.digest() for request in drive([NOTHING, {}, {}])[1]] for _ in range(2)]

    assert digests[0] == digests[1]


def test_whole_sends_no_chunks_and_fails_what_is_too_long() -> None:
    extraction = Extraction(recipe(long_text="whole"), Record("r1", contract(), "f"))

    assert extraction.next_request() is None
    assert isinstance(extraction.outcome, Failed) and extraction.outcome.reason is Reason.TOO_LONG


def test_context_tokens_bound_what_one_call_shows() -> None:
    _, (small,) = drive([WHOLE], context_tokens=300, max_attempts=1)
    _, (usual,) = drive([WHOLE], max_attempts=1)

    assert len(said(small)) < len(said(usual)) / 2


def test_the_way_of_long_texts_is_part_of_the_recipe_only_where_it_was_chosen() -> None:
    assert recipe().id == recipe(long_text="auto").id
    assert len({recipe().id, recipe(long_text="chunks").id, recipe(context_tokens=500).id}) == 3
    assert "long_text" not in recipe().document
