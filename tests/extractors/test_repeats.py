"""An object of texts that a list has twice and its record once is there once; whatever else may be there twice stays."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from extractors.extraction import Extraction
from extractors.judging import Judge
from extractors.qwen.requests import ChatReply, Logprobs, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.repeats import repeats
from extractors.tools.evidence import Results
from schemas.evidence import Match
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Dose(BaseModel):
    drug: str
    dose: str | None = None


class Line(BaseModel):
    name: str
    unit: str | None = None
    price: float | None = None
    on: date | None = None
    state: Literal["new", "used"] | None = None


class Report(BaseModel):
    doses: list[Dose] = []
    lines: list[Line] = []
    places: list[str] = []
    nested: list[list[Dose]] = []
    by_name: dict[str, list[Dose]] = {}


ARA = {"drug": "Ara-C", "dose": "100 mg"}
TEA = {"name": "Tea", "unit": "cup", "price": None, "on": None, "state": None}


@pytest.mark.parametrize(
    ("answer", "text", "gone"),
    [
        ({"doses": [ARA, ARA, ARA]}, "Ara-C, 100 mg a day", ["doses/1", "doses/2"]),
        ({"doses": [ARA, {**ARA, "dose": "5 g"}, ARA]}, "Ara-C, 100 mg, then 5 g", ["doses/2"]),
        ({"nested": [[ARA, ARA]]}, "Ara-C, 100 mg", ["nested/0/1"]),
        ({"by_name": {"²/a": [ARA, ARA]}}, "Ara-C, 100 mg", ["by_name/²~1a/1"]),
        ({"lines": [TEA, TEA]}, "a cup of tea", ["lines/1"]),
        # Twice in the record, in whatever spelling.
        ({"doses": [ARA, ARA]}, "ara-c 100 mg; Ara-C 100 mg", []),
        ({"doses": [ARA, ARA]}, "Ara-C on day 1, Ara C on day 8, 100 mg each", []),
        ({"doses": [ARA, ARA, ARA]}, "Ara-C: 100 mg and again 100 mg", ["doses/2"]),
        # Not all of it in the record.
        ({"doses": [ARA, ARA]}, "Ara-C, a low dose", []),
        # One text is little to go by: "2 x Ara-C".
        ({"doses": [{"drug": "Ara-C", "dose": None}] * 2}, "Ara-C", []),
        # What may be printed in many ways, or hardly at all.
        ({"lines": [{**TEA, "price": 2.5}] * 2}, "2 cups of Tea, 2.5 each", []),
        ({"lines": [{**TEA, "on": "2024-01-05"}] * 2}, "cup, Tea, 2024-01-05, and on 5 January 2024", []),
        ({"lines": [{**TEA, "state": "used"}] * 2}, "Tea, both cups used", []),
        # Single texts may belong to another list by their places.
        ({"places": ["Bonn", "Bonn"]}, "Ada and Eve of Bonn", []),
    ],
)
def test_only_what_is_surely_told_again_is(answer: dict[str, Any], text: str, gone: list[str]) -> None:
    assert repeats(answer, answer_schema(Report), text) == gone


WORDS = st.sampled_from(["ulm", "bonn", "jena"])


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6))
def test_as_many_stay_as_the_record_has_and_the_first_ones(said: list[str], there: list[str]) -> None:
    answer = {"doses": [{"drug": word, "dose": "low"} for word in said]}
    gone = {int(path.split("/")[1]) for path in repeats(answer, answer_schema(Report), "low " + " ".join(there))}
    kept = [word for place, word in enumerate(said) if place not in gone]
    for word in set(said):
        times = there.count(word)
        assert kept.count(word) == (min(said.count(word), times) if times else said.count(word))
        assert said.index(word) not in gone


def recipe(model: type[BaseModel] = Report, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", **options})
    policies = [ModelPolicy(name, Mode.PROMPTED, None, 1000, 4000, logprobs=True) for name in ("cheap", "strong")]
    policy = policies[0]
    if "route_below" in options:
        policy = ModelPolicy("cheap", Mode.PROMPTED, None, 1000, 4000, logprobs=True, final=policies[1])
    return compile_recipe(job, model, policy)


def play(using: Recipe, text: str, *answers: Any) -> Extracted:
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    for answer in answers:
        assert extraction.next_request() is not None, extraction.outcome
        said, sure = answer if isinstance(answer, tuple) else (answer, {})
        body, ends, probabilities = "", [], []
        for piece in _pieces(json.dumps(said)):
            body += piece
            ends.append(len(body))
            probabilities.append(sure.get(piece, -0.01))
        told = Logprobs(tuple(ends), tuple(probabilities))
        extraction.receive(ChatReply(body, "stop", Usage(1, 10, 10), model="fake", logprobs=told))
    assert extraction.next_request() is None and isinstance(extraction.outcome, Extracted)
    return extraction.outcome


def _pieces(text: str) -> list[str]:
    """As a tokenizer might, the quotation marks apart."""
    return [piece for part in text.split('"') for piece in (part, '"')][:-1]


NALOXONE = {"drug": "naloxone", "dose": "low"}
TEXT = "Ara-C, 100 mg; then naloxone, low"


def test_a_row_has_it_once_with_its_evidence_and_confidence_and_says_that_it_was_mended() -> None:
    answer = {"doses": [ARA, ARA, NALOXONE]}
    got = play(recipe(), TEXT, (answer, {"naloxone": -1.2}))
    assert isinstance(got.value, Report)
    assert [one.drug for one in got.value.doses] == ["Ara-C", "naloxone"]
    assert (got.repaired, got.nulled) == (True, ())
    assert [one.path for one in got.evidence if one.match is not Match.UNGROUNDED] == [
        f"doses/{place}/{name}" for place in (0, 1) for name in ("drug", "dose")
    ]
    assert got.confidence["doses/1/drug"] < 0.5 < got.confidence["doses/0/drug"]
    assert "doses/2/drug" not in got.confidence
    kept = play(recipe(repeated_items="keep"), TEXT, answer)
    assert isinstance(kept.value, Report)
    assert (len(kept.value.doses), kept.repaired) == (3, False)


def test_a_list_that_may_not_be_shorter_stays_as_it_is_and_the_others_do_not() -> None:
    class Pair(Report):
        pair: list[Dose] = Field(min_length=2)

    got = play(recipe(Pair), TEXT, {"pair": [ARA, ARA], "doses": [ARA, ARA]})
    assert isinstance(got.value, Pair)
    assert (len(got.value.pair), len(got.value.doses), got.repaired) == (2, 1, True)


def test_corrected_paths_move_up_with_their_items() -> None:
    wrong = {"doses": [ARA, {"drug": "Ara-C", "dose": "7777 kg"}, {"drug": "naloxone", "dose": "8888 kg"}]}
    said = {"doses/1/dose": "100 mg", "doses/2/dose": "low"}
    got = play(recipe(require_evidence=["doses"]), TEXT, wrong, said)
    assert isinstance(got.value, Report)
    assert [one.dose for one in got.value.doses] == ["100 mg", "low"]
    assert (got.corrected, got.repaired) == (("doses/1/dose",), True)


def test_a_second_look_says_that_it_mended_too() -> None:
    first = {"doses": [ARA, {"drug": "Ara-C", "dose": None}, {"drug": "naloxone", "dose": None}]}
    said = {"doses/1/dose": "100 mg", "doses/2/dose": "low"}
    got = play(recipe(second_look="always"), TEXT, {**first, "places": ["x"]}, said)
    assert isinstance(got.value, Report)
    assert [one.dose for one in got.value.doses] == ["100 mg", "low"]
    assert (got.corrected, got.repaired) == (("doses/1/dose",), True)


def test_a_final_models_list_has_its_own_confidence_where_it_told_something_again() -> None:
    draft = {"doses": [{"drug": "Ara", "dose": "100"}, {"drug": "?", "dose": "low"}]}
    final = {"doses": [ARA, ARA, NALOXONE]}
    got = play(recipe(route_below=1.01), TEXT, (draft, {"?": -3}), ({"doses": final["doses"]}, {"naloxone": -1.2}))
    assert isinstance(got.value, Report)
    assert [one.drug for one in got.value.doses] == ["Ara-C", "naloxone"]
    assert got.repaired
    assert got.confidence["doses/1/drug"] < 0.5 < got.confidence["doses/0/drug"]


@pytest.mark.parametrize("other", ["picture", "look-up"])
def test_how_often_a_thing_is_in_a_picture_or_a_look_up_the_text_does_not_say(other: str) -> None:
    record = Record("r", TEXT, content_fingerprint(TEXT))
    verdicts = []
    for pictured, results in ((False, None), (other == "picture", None if other == "picture" else Results([]))):
        judge = Judge(recipe(), record, pictured=pictured)
        judge.results = results
        verdicts.append(judge.data({"doses": [ARA, ARA]}))
    assert [len(one.data["doses"]) for one in verdicts] == [1, 2]


def test_it_is_part_of_the_recipe_where_the_schema_has_lists_of_objects() -> None:
    class Plain(BaseModel):
        items: list[str]

    class Named(BaseModel):
        doses: dict[str, list[Dose]]

    assert recipe().id != recipe(repeated_items="keep").id
    assert recipe(Named).id != recipe(Named, repeated_items="keep").id
    assert recipe(Plain).id == recipe(Plain, repeated_items="keep").id
