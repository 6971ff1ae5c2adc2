"""What has no evidence goes: values to null, items out of their lists, and what is known of the rest moves with it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from extractors.corrections import value_at
from extractors.dropping import dropped, moved, nothings, without_items
from extractors.extraction import Extraction
from extractors.qwen.requests import ChatReply, Mode
from extractors.recipe import ModelPolicy, compile_recipe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted, Failed, Reason
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

TEXT = "Copper kettle with lid and spout, 12 mg"


class Dose(BaseModel):
    drug: str
    dose: str


class Offer(BaseModel):
    title: str
    color: str | None = None
    origin: str | None = Field(default=None, description="A country, or 'unknown'.")
    tags: list[str] = []
    notes: list[str | None] = []
    doses: list[Dose] = []


class Used(Offer):
    state: str | None = "unknown"


SCHEMA = answer_schema(Offer)


@given(st.lists(st.integers(0, 12), unique=True), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3))))
def test_what_is_kept_by_path_follows_its_item(gone: list[int], known: list[tuple[int, int]]) -> None:
    lists = [[(outer, inner) for inner in range(4)] for outer in range(13)]
    found = {f"rows/{outer}/{inner}": (outer, inner) for outer, inner in known} | {"rows": "all", "other/3": 3}
    data, _ = without_items({"rows": lists}, [f"rows/{place}" for place in gone])
    left = moved(found, [f"rows/{place}" for place in gone])
    assert left.pop("rows") == "all" and left.pop("other/3") == 3
    assert {path: value_at(data, path) for path in left} == left
    assert len(left) == len({each for each in known if each[0] not in gone})
    inner, _ = without_items({"rows": lists}, [f"rows/5/{place}" for place in {n % 4 for n in gone}])
    left = moved(found, [f"rows/5/{place}" for place in {n % 4 for n in gone}])
    assert all(value_at(inner, path) == value for path, value in left.items() if path.startswith("rows/"))


def test_what_was_lost_is_named_as_the_lists_are_afterwards() -> None:
    rows = [{"drug": "a", "dose": "1"}, {"drug": "b", "dose": "2"}, {"drug": "c", "dose": "3"}]
    schema = answer_schema(Offer)
    schema["properties"]["doses"]["items"]["properties"]["dose"] = {"type": ["string", "null"]}
    data, lost, items = dropped({"doses": rows}, ["doses/2/dose", "doses/0/drug"], schema, objects=True)
    assert data == {"doses": [{"drug": "b", "dose": "2"}, {"drug": "c", "dose": None}]}
    assert (lost, items) == (["doses/1/dose", "doses"], ["doses/0"])


def drive(*answers: Any, model: type[BaseModel] = Offer, **options: Any) -> Extracted | Failed:
    job = ExtractionJob.model_validate(
        {"source": "x", "schema": "x", "out": "o", **{"require_evidence": ["*"], **options}}
    )
    policy = ModelPolicy("fake", Mode.GRAMMAR, None, max_input_tokens=1000, max_output_tokens=4000, logprobs=True)
    extraction = Extraction(compile_recipe(job, model, policy), Record("r", TEXT, content_fingerprint(TEXT)))
    for answer in answers:
        assert extraction.next_request() is not None, extraction.outcome
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.outcome is not None
    return extraction.outcome


def test_an_item_that_stands_nowhere_leaves_its_list_without_a_call() -> None:
    found = drive({"title": "Copper kettle", "tags": ["lid", "blue", "spout"]}, evidence_policy="drop")
    assert isinstance(found, Extracted) and found.value.tags == ["lid", "spout"]
    assert (found.usage.calls, found.nulled) == (1, ("tags",))
    assert [one.path for one in found.evidence] == ["title", "tags/0", "tags/1"]


def test_an_invented_item_that_stays_after_corrections_costs_the_item_and_not_the_record() -> None:
    answer = {"title": "Copper kettle", "tags": ["lid", "blue"]}
    found = drive(answer, {"tags/1": "green"}, max_attempts=2)
    assert isinstance(found, Extracted) and found.value.tags == ["lid"]


def test_an_object_of_a_list_goes_with_the_value_that_it_may_not_be_without() -> None:
    doses = [{"drug": "kettle", "dose": "7 ml"}, {"drug": "spout", "dose": "12 mg"}]
    found = drive({"title": "Copper kettle", "doses": doses}, {"doses/0/dose": "7 ml"}, max_attempts=2)
    assert isinstance(found, Extracted) and found.value.doses == [Dose(drug="spout", dose="12 mg")]
    assert found.nulled == ("doses",)


def test_a_value_outside_of_a_list_that_may_not_be_null_still_fails_the_record() -> None:
    found = drive({"title": "Pan"}, max_attempts=1)
    assert isinstance(found, Failed) and found.reason is Reason.UNGROUNDED


def test_with_the_policy_fail_nothing_is_taken_out() -> None:
    found = drive({"title": "Copper kettle", "tags": ["blue"]}, max_attempts=1, evidence_policy="fail")
    assert isinstance(found, Failed)


def test_an_item_that_may_be_null_becomes_null() -> None:
    assert dropped({"notes": ["a", "b"]}, ["notes/1"], SCHEMA) == ({"notes": ["a", None]}, ["notes/1"], [])


def test_several_items_go_at_once() -> None:
    data, lost, items = dropped({"tags": list("abcdefghijkl")}, ["tags/2", "tags/0", "tags/10"], SCHEMA)
    assert (data, lost) == ({"tags": list("bdefghijl")}, ["tags"])
    assert items == ["tags/2", "tags/0", "tags/10"]


def test_what_is_known_of_the_other_items_moves_up() -> None:
    known = {"title": 1, "tags/0": 2, "tags/1": 3, "tags/12": 4, "doses/1/dose": 5, "doses/2/dose": 6}
    assert moved(known, ["tags/0", "tags/2", "doses/1"]) == {
        "title": 1,
        "tags/0": 3,
        "tags/10": 4,
        "doses/1/dose": 6,
    }


# Words for null --------------------------------------------------------------------------------------


def test_a_word_for_null_that_the_record_does_not_say_is_null_and_no_item() -> None:
    answer = {"title": "Copper kettle", "color": "Unknown", "tags": ["n/a", "lid"], "notes": ["未知"]}
    found = drive(answer, require_evidence=[])
    assert isinstance(found, Extracted) and found.usage.calls == 1 and found.repaired
    assert found.value == Offer(title="Copper kettle", tags=["lid"], notes=[None])
    assert "tags/0" in found.confidence and "tags/1" not in found.confidence


def test_it_stays_where_the_field_speaks_of_it_has_it_as_default_or_may_not_be_null() -> None:
    found = drive({"title": "unknown", "origin": "unknown", "state": "unknown"}, model=Used, require_evidence=[])
    assert isinstance(found, Extracted) and not found.repaired
    assert found.value == Used(title="unknown", origin="unknown", state="unknown")


def test_it_stays_where_the_record_says_it() -> None:
    data = {"title": "Copper kettle", "color": "lid"}
    assert nothings(data, ["color"], SCHEMA) == []
    assert nothings({**data, "color": " NONE "}, ["color"], SCHEMA) == ["color"]
