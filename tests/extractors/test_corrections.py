"""Which paths are asked again, and how the answer is merged."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, model_validator

from extractors.corrections import fold_keys, merge, outermost, problems_of, signature, value_at, with_value, without
from extractors.parsing import loads_exact
from schemas.outcomes import FieldProblem


class Line(BaseModel):
    name: str
    price: Decimal | None = None


class Order(BaseModel):
    number: int
    lines: list[Line] = []
    note: int | Annotated[str, Field(min_length=3)] | None = None
    extra: dict[str, int] = {}

    @model_validator(mode="after")
    def _odd(self) -> Order:
        if self.number == 13:
            raise ValueError("13 brings bad luck")
        return self


def problems(data: dict[str, Any]) -> list[FieldProblem]:
    with pytest.raises(ValidationError) as caught:
        Order.model_validate_json(json.dumps(data))
    return problems_of(caught.value, loads_exact(json.dumps(data)))


def test_a_wrong_value_is_named_by_its_path_and_shown() -> None:
    [problem] = problems({"number": "x", "lines": []})
    assert (problem.path, problem.error, problem.value) == ("number", "int_parsing", '"x"')


def test_a_value_inside_a_list_of_objects_has_its_index_in_the_path() -> None:
    [problem] = problems({"number": 1, "lines": [{"name": "a"}, {"name": "b", "price": "cheap"}]})
    assert problem.path == "lines/1/price"


def test_a_missing_field_is_named_and_has_no_value() -> None:
    [problem] = problems({"number": 1, "lines": [{"price": 3}]})
    assert (problem.path, problem.error, problem.value) == ("lines/0/name", "missing", None)


def test_the_branches_of_a_union_are_one_problem_at_the_fields_own_path() -> None:
    [problem] = problems({"number": 1, "note": "a"})
    assert problem.path == "note"
    assert ";" in problem.message


def test_a_validator_on_the_model_asks_for_the_whole() -> None:
    [problem] = problems({"number": 13})
    assert (problem.path, problem.message) == ("", "13 brings bad luck")


def test_a_key_of_a_map_is_a_step() -> None:
    [problem] = problems({"number": 1, "extra": {"a/b": "x"}})
    assert problem.path == "extra/a~1b"


def test_a_problem_inside_another_is_left_out() -> None:
    inner, outer = FieldProblem("a/b", "e", "m"), FieldProblem("a", "e", "m")
    assert outermost([inner, outer, FieldProblem("ab", "e", "m")]) == [outer, FieldProblem("ab", "e", "m")]


def test_the_same_error_with_another_value_is_the_same_error() -> None:
    assert signature([FieldProblem("a", "e", "m", "1")]) == signature([FieldProblem("a", "e", "m", "2")])


def test_only_asked_paths_are_merged() -> None:
    data = {"a": 1, "b": {"c": [1, 2]}}
    merged, changed = merge(data, {"b/c/1": 9, "a": 7}, ["b/c/1"])
    assert merged == {"a": 1, "b": {"c": [1, 9]}}
    assert changed == ["b/c/1"]


def test_a_nested_answer_is_understood_as_well() -> None:
    merged, _ = merge({"b": {"c": 1}}, {"b": {"c": 2}}, ["b/c"])
    assert merged == {"b": {"c": 2}}


def test_what_a_correction_leaves_out_keeps_its_value() -> None:
    assert merge({"a": 1}, {}, ["a"]) == ({"a": 1}, [])


def test_keys_that_drifted_are_folded_and_ambiguous_ones_are_not() -> None:
    assert fold_keys({"Number": 1, "LINES": []}, Order) == ({"number": 1, "lines": []}, True)
    assert fold_keys({"number": 1, "Number": 2}, Order) == ({"number": 1, "Number": 2}, False)


PATHS = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4)


@given(PATHS, st.integers())
def test_a_value_put_at_a_path_is_found_there(steps: list[str], value: int) -> None:
    path = "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)
    assert value_at(with_value({}, path, value), path) == value
    with pytest.raises(KeyError):
        value_at(without(with_value({}, path, value), path), path)


def test_with_value_leaves_the_original_alone() -> None:
    data = {"a": [{"b": 1}]}
    with_value(data, "a/0/b", 2)
    assert data == {"a": [{"b": 1}]}
