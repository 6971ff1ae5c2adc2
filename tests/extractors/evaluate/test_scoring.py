"""Verdicts: values, sets and lists of objects against their labels."""

from __future__ import annotations

import time
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import UUID4, AnyUrl, BaseModel, Field, HttpUrl

from extractors.errors import JobError
from extractors.evaluate.fields import compared_fields
from extractors.evaluate.golden import Labelled
from extractors.evaluate.scoring import Cell, score_record
from schemas.compare import Compare
from schemas.json_models import model_of


class Line(BaseModel):
    text: str
    price: Annotated[float | None, Compare("number:0.05")] = None


class Seller(BaseModel):
    name: Annotated[str, Compare("fuzzy:0.8")]
    city: str | None = None


class Bill(BaseModel):
    number: str | None = None
    seller: Seller | None = None
    tags: list[str] = Field(default_factory=list)
    lines: list[Line] = Field(default_factory=list)


def verdicts(expected: dict[str, Any], got: dict[str, Any] | None, *, rules: dict[str, str] | None = None,
             accept: dict[str, Any] | None = None, model: type[BaseModel] = Bill) -> list[tuple[str, str]]:  # fmt: skip
    return [(cell.path, cell.verdict.value) for cell in cells(expected, got, rules=rules, accept=accept, model=model)]


def cells(expected: dict[str, Any], got: dict[str, Any] | None, *, rules: dict[str, str] | None = None,
          accept: dict[str, Any] | None = None, model: type[BaseModel] = Bill) -> list[Cell]:  # fmt: skip
    return score_record(compared_fields(model, rules), Labelled("r", expected, accept or {}), got)


class Contact(BaseModel):
    site: AnyUrl | None = None
    home: HttpUrl | UUID | None = None
    links: list[AnyUrl] = Field(default_factory=list)
    key: UUID4 | None = None
    email: Annotated[str | None, Field(json_schema_extra={"format": "email"})] = None
    server: IPv4Address | None = None
    folder: Path | None = None
    site_or_name: AnyUrl | str | None = None
    free: Annotated[AnyUrl | None, Compare("text")] = None


def test_an_address_keeps_its_punctuation_by_itself() -> None:
    rules = {one.path: one.comparator.rule for one in compared_fields(Contact).fields()}
    assert rules == {
        "site": "address",
        "home": "address",
        "links": "set:address",
        "key": "address",
        "email": "address",
        "server": "exact",
        "folder": "exact",
        "site_or_name": "text",
        "free": "text",
    }
    assert verdicts({"email": "john.doe@x.com"}, {"email": "johndoe@x.com"}, model=Contact) == [("email", "wrong")]


def test_an_address_of_a_json_schema_does_too_where_nothing_else_is_said() -> None:
    properties = {
        "email": {"type": "string", "format": "email", "maxLength": 90},
        "site": {"type": ["string", "null"], "format": "uri"},
        "links": {"type": "array", "items": {"type": "string", "format": "uri"}},
        "free": {"type": "string", "format": "email", "x-compare": "alnum"},
        "name": {"type": "string"},
    }
    model = model_of({"type": "object", "properties": properties}, name="Contact")

    def rules(given: dict[str, str] | None = None) -> list[str]:
        return [one.comparator.rule for one in compared_fields(model, given).fields()]

    assert rules() == ["address", "address", "set:address", "alnum", "text"]
    assert rules({"*": "fuzzy"}) == ["fuzzy", "fuzzy", "set:fuzzy", "alnum", "fuzzy"]


def test_the_rule_of_a_field_comes_from_its_type_or_its_annotation() -> None:
    rules = {one.path: one.comparator.rule for one in compared_fields(Bill).fields()}
    assert rules == {
        "number": "text",
        "seller/name": "fuzzy:0.8",
        "seller/city": "text",
        "tags": "set:text",
        "lines/*/text": "text",
        "lines/*/price": "number:0.05",
    }


def test_a_given_rule_overrides_and_star_is_for_the_rest() -> None:
    rules = {
        one.path: one.comparator.rule for one in compared_fields(Bill, {"*": "alnum", "seller/city": "exact"}).fields()
    }
    assert rules["seller/city"] == "exact"
    assert (rules["number"], rules["tags"]) == ("alnum", "set:alnum")
    assert rules["seller/name"] == "fuzzy:0.8", "an annotation is a rule of its own"


def test_a_json_schema_says_how_to_compare() -> None:
    document = {"type": "object", "properties": {"town": {"type": "string", "x-compare": "fuzzy:0.7"}}}
    [field] = compared_fields(model_of(document, name="Place")).fields()
    assert field.comparator.rule == "fuzzy:0.7"


@pytest.mark.parametrize("rules", [{"nubmer": "text"}, {"number": "set"}, {"tags": "objects"}, {"lines": "fuzzy"}])
def test_a_rule_that_does_not_fit_is_refused(rules: dict[str, str]) -> None:
    with pytest.raises(JobError):
        compared_fields(Bill, rules)


@pytest.mark.parametrize(
    ("expected", "got", "verdict"),
    [
        ("A-1", "a1", "right"),
        ("A-1", "A-2", "wrong"),
        ("A-1", None, "missing"),
        ("A-1", "  ", "missing"),
        (None, "A-1", "extra"),
        (None, "", "absent"),
        (None, None, "absent"),
    ],
)
def test_a_value(expected: Any, got: Any, verdict: str) -> None:
    assert verdicts({"number": expected}, {"number": got}) == [("number", verdict)]


def test_a_record_without_a_row_misses_all_that_is_expected() -> None:
    found = verdicts({"number": "A", "tags": ["x", "y"], "seller": {"name": "B", "city": None}}, None)
    assert Counter(verdict for _, verdict in found) == {"missing": 4, "absent": 1}


def test_a_set_pairs_its_items_whatever_their_order() -> None:
    found = verdicts({"tags": ["red", "green", "blue"]}, {"tags": ["Blue", "yellow", "RED"]})
    assert sorted(found) == [("tags", "missing"), ("tags/0", "right"), ("tags/1", "extra"), ("tags/2", "right")]


def test_an_item_given_twice_is_right_once() -> None:
    found = verdicts({"tags": ["red"]}, {"tags": ["red", "red"]})
    assert sorted(verdict for _, verdict in found) == ["extra", "right"]


def test_any_accepted_value_is_right_also_item_by_item() -> None:
    assert verdicts({"number": "1"}, {"number": "one"}, accept={"number": ["one"]}) == [("number", "right")]
    accept = {"tags": [["crimson"], []]}
    found = verdicts({"tags": ["red", "blue"]}, {"tags": ["blue", "crimson"]}, accept=accept)
    assert {verdict for _, verdict in found} == {"right"}


def test_objects_are_aligned_before_they_are_compared() -> None:
    expected = [{"text": "apple", "price": 1.0}, {"text": "pear", "price": 2.0}]
    got = [{"text": "plum", "price": 3.0}, {"text": "Pear", "price": 2.04}, {"text": "apple", "price": 9.0}]
    assert verdicts({"lines": expected}, {"lines": got}) == [
        ("lines/2/text", "right"),
        ("lines/2/price", "wrong"),
        ("lines/1/text", "right"),
        ("lines/1/price", "right"),
        ("lines/0/text", "extra"),
        ("lines/0/price", "extra"),
    ]


def test_an_object_that_is_missing_has_the_place_of_no_other() -> None:
    expected = [{"text": "apple", "price": 1.0}, {"text": "pear", "price": 2.0}, {"text": "plum", "price": 3.0}]
    found = verdicts({"lines": expected}, {"lines": [{"text": "pear", "price": 2.0}]})
    assert found == [
        ("lines/1/text", "missing"),
        ("lines/1/price", "missing"),
        ("lines/0/text", "right"),
        ("lines/0/price", "right"),
        ("lines/2/text", "missing"),
        ("lines/2/price", "missing"),
    ]


@pytest.mark.parametrize("rule", ["objects", "whole"])
def test_an_accepted_object_or_what_is_other_in_it_is_right_too(rule: str) -> None:
    expected = [{"text": "apple", "price": 1.0}, {"text": "pear", "price": 2.0}]
    got = [{"text": "poire", "price": 2.5}, {"text": "apple", "price": 1.2}]
    accept = {"lines": [[{"price": 1.2}], [{"text": "birne", "price": 2.0}, {"text": "poire", "price": 2.5}]]}
    found = verdicts({"lines": expected}, {"lines": got}, accept=accept, rules={"lines": rule})
    assert {verdict for _, verdict in found} == {"right"}
    swapped = verdicts({"lines": expected}, {"lines": [{**got[0], "price": 1.2}]}, accept=accept)
    assert Counter(verdict for _, verdict in swapped) == {"right": 1, "wrong": 1, "missing": 2}


def test_a_long_list_of_which_most_is_right_is_aligned_at_once() -> None:
    lines = [{"text": f"part {number}", "price": number} for number in range(1500)]
    shown = [{**line, "price": -1} if line["price"] in range(7, 1500, 100) else line for line in reversed(lines)]
    start = time.process_time()
    found = Counter(verdict for _, verdict in verdicts({"lines": lines}, {"lines": shown}))
    assert time.process_time() - start < 5, "2,250,000 pairs took a minute and more"
    assert found == {"right": 2985, "wrong": 15}


def test_a_whole_object_is_right_when_all_of_it_is() -> None:
    expected = [{"text": "apple", "price": 1.0}, {"text": "pear", "price": 2.0}]
    got = [{"text": "apple", "price": 1.0}, {"text": "pear", "price": 3.0}]
    found = verdicts({"lines": expected}, {"lines": got}, rules={"lines": "whole"})
    assert [verdict for _, verdict in found] == ["right", "missing", "extra"]


@pytest.mark.parametrize(
    ("expected", "got", "verdict"),
    [
        ({"name": "Acme", "city": "Kiel"}, {"name": "acme", "city": "KIEL"}, "right"),
        ({"name": "Acme", "city": "Kiel"}, {"name": "Acme", "city": "Ulm"}, "right"),
        ({"name": "Acme", "city": "Kiel"}, {"name": "Acme", "city": None}, "wrong"),
        ({"name": "Acme", "city": "Kiel"}, None, "missing"),
        (None, {"name": "Acme", "city": None}, "extra"),
        (None, None, "absent"),
    ],
)
def test_one_object_can_count_as_a_whole_too(expected: Any, got: Any, verdict: str) -> None:
    accept = {"seller": [{"city": "Ulm"}]} if expected else None
    found = cells({"seller": expected}, {"seller": got}, rules={"seller": "whole"}, accept=accept)
    assert [(cell.field, cell.verdict.value) for cell in found] == [("seller", verdict)]


def test_a_skipped_field_is_not_scored() -> None:
    assert verdicts({"number": "1", "tags": ["x"]}, {}, rules={"tags": "skip"}) == [("number", "missing")]


BILLS = st.fixed_dictionaries(
    {
        "number": st.none() | st.text("ab1", min_size=1, max_size=3),
        "tags": st.lists(st.text("ab", min_size=1, max_size=2), max_size=4),
        "lines": st.lists(
            st.fixed_dictionaries(
                {"text": st.text("xy", min_size=1, max_size=2), "price": st.none() | st.integers(0, 2)}
            ),
            max_size=4,
        ),
    }
)


@given(BILLS)
def test_what_is_expected_is_right(bill: dict[str, Any]) -> None:
    assert {cell.verdict.value for cell in cells(bill, bill)} <= {"right", "absent"}


@given(BILLS, BILLS)
def test_turned_around_the_same_is_right_and_missing_is_extra(one: dict[str, Any], other: dict[str, Any]) -> None:
    there, back = (
        [sum(counts) for counts in zip(*(cell.verdict.counts for cell in found), strict=True)]
        for found in (cells(one, other), cells(other, one))
    )
    assert there == [back[0], back[2], back[1]]


@given(BILLS, BILLS, st.randoms(use_true_random=False))
def test_the_order_of_a_list_of_strings_decides_nothing(
    one: dict[str, Any], other: dict[str, Any], random: Any
) -> None:
    mixed = {**other, "tags": random.sample(other["tags"], len(other["tags"]))}
    assert Counter(v for _, v in verdicts(one, other)) == Counter(v for _, v in verdicts(one, mixed))
