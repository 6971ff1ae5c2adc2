"""What a list has twice and its record once is there once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from extractors.extraction import Extraction
from extractors.grounding import ground
from extractors.qwen.requests import ChatReply, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.repeats import repeats
from schemas.evidence import Evidence, Match
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Dose(BaseModel):
    drug: str
    dose: str | None = None


class Report(BaseModel):
    doses: list[Dose] = []
    places: list[str] = []
    people: list[str] = []
    levels: list[int] = []


def told_again(answer: dict[str, Any], text: str) -> list[str]:
    report = Report.model_validate(answer)
    return repeats(json.loads(report.model_dump_json()), ground(report, text), text)


ARA = {"drug": "Ara-C", "dose": "100 mg"}


@pytest.mark.parametrize(
    ("answer", "text", "gone"),
    [
        ({"doses": [ARA, ARA, ARA]}, "Ara-C, 100 mg a day", ["doses/1", "doses/2"]),
        ({"doses": [ARA, {**ARA, "dose": "5 g"}, ARA]}, "Ara-C, 100 mg, then 5 g", ["doses/2"]),
        ({"doses": [ARA, ARA]}, "ara-c 100 mg; Ara-C 100 mg", []),
        ({"doses": [ARA, ARA, ARA]}, "Ara-C: 100 mg and again 100 mg", ["doses/2"]),
        ({"doses": [ARA, ARA]}, "cytarabine, a low dose", []),
        ({"doses": [{"drug": "Ara-C"}, {"drug": "Ara-C"}]}, "Ara-C", ["doses/1"]),
        ({"places": ["Bonn", "Bonn", "Ulm"]}, "From Bonn to Ulm", ["places/1"]),
        ({"places": ["Bonn", "Bonn"]}, "From Bonn to Bonn", []),
        ({"places": ["Bonn", "Bonn"], "people": ["Ada", "Eve"]}, "Ada and Eve of Bonn", []),
        ({"places": ["Bonn", "Bonn"], "people": ["Ada"]}, "Ada of Bonn", ["places/1"]),
        ({"levels": [7, 7]}, "seven, 7", []),
        ({"doses": [], "places": []}, "nothing", []),
    ],
)
def test_what_the_record_does_not_bear_out_is_told_again(answer: dict[str, Any], text: str, gone: list[str]) -> None:
    assert told_again(answer, text) == gone


@pytest.mark.parametrize("match", [Match.FUZZY, Match.IMAGE, Match.TOOL])
def test_what_comes_from_elsewhere_or_is_spelt_otherwise_may_be_there_twice(match: Match) -> None:
    evidence = [Evidence("places/0", match, "Bon" if match is Match.FUZZY else None)]
    assert repeats({"places": ["Bonn", "Bonn"]}, evidence, "Bon") == []


WORDS = st.sampled_from(["ulm", "bonn", "jena"])


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6))
def test_of_what_the_record_has_as_many_stay_as_it_has_and_the_first_ones(said: list[str], there: list[str]) -> None:
    gone = {int(path.split("/")[1]) for path in told_again({"places": said}, " ".join(there))}
    kept = [word for place, word in enumerate(said) if place not in gone]
    for word in set(said):
        times = there.count(word)
        assert kept.count(word) == (min(said.count(word), times) if times else said.count(word))
    assert [said.index(word) not in gone for word in set(said)] == [True] * len(set(said))


def recipe(model: type[BaseModel] = Report, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", **options})
    policy = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1000, max_output_tokens=4000)
    return compile_recipe(job, model, policy)


def outcome(using: Recipe, answer: Any, text: str) -> Extracted:
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    assert extraction.next_request() is not None
    extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is None and isinstance(extraction.outcome, Extracted)
    return extraction.outcome


def test_a_row_has_it_once_with_its_evidence_and_says_that_it_was_mended() -> None:
    answer = {"doses": [ARA, ARA, {"drug": "naloxone", "dose": None}]}
    got = outcome(recipe(), answer, "Ara-C, 100 mg; then naloxone")
    assert isinstance(got.value, Report)
    assert [one.drug for one in got.value.doses] == ["Ara-C", "naloxone"]
    assert (got.repaired, got.nulled) == (True, ())
    assert [one.path for one in got.evidence if one.match is not Match.UNGROUNDED] == [
        "doses/0/drug",
        "doses/0/dose",
        "doses/1/drug",
    ]
    kept = outcome(recipe(repeated_items="keep"), answer, "Ara-C, 100 mg; then naloxone")
    assert isinstance(kept.value, Report)
    assert (len(kept.value.doses), kept.repaired) == (3, False)


def test_a_list_that_may_not_be_shorter_stays_as_it_is() -> None:
    class Pair(BaseModel):
        doses: list[Dose] = Field(min_length=2)

    got = outcome(recipe(Pair), {"doses": [ARA, ARA]}, "Ara-C, 100 mg")
    assert isinstance(got.value, Pair)
    assert (len(got.value.doses), got.repaired) == (2, False)


def test_it_is_part_of_the_recipe_where_the_schema_has_lists() -> None:
    class Plain(BaseModel):
        items: str

    assert recipe().id != recipe(repeated_items="keep").id
    assert recipe(Plain).id == recipe(Plain, repeated_items="keep").id
