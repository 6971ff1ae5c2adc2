"""Reading answers: what is JSON, what is wrapped, what was cut off."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.parsing import beyond_floats, dumps_exact, loads_exact, read_answer, repeats_a_key

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
JSON_OBJECTS = st.dictionaries(st.text(), JSON_VALUES, min_size=1, max_size=4)


def test_a_plain_object_is_taken_as_it_is() -> None:
    answer = read_answer(' {"a": 1}\n')
    assert answer.json == '{"a": 1}'
    assert not answer.unwrapped


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"a": 1}\n```',
        '```\n{"a": 1}```',
        'Sure! Here it is:\n```json\n{"a": 1}\n```\nAnything else?',
        '<think>hm, {"a": 2}?</think>{"a": 1}',
        'The answer is {"a": 1}.',
        'Braces {like these} aside: {"a": 1}',
    ],
)
def test_what_stands_around_an_object_is_removed_and_said(text: str) -> None:
    answer = read_answer(text)
    assert answer.json is not None
    assert json.loads(answer.json) == {"a": 1}
    assert answer.unwrapped


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": {"c": 2}, "d": "unfin', '```json\n{"a": {"b": 1}, "c": [', 'So: {"a": {"b": 1}, ']
)
def test_an_inner_object_never_passes_for_a_cut_off_answer(text: str) -> None:
    answer = read_answer(text, finish_reason="length")
    assert answer.json is None
    assert answer.truncated


@pytest.mark.parametrize(
    "text", ["", "   ", "[1, 2]", "42", '{"a": NaN}', "{'a': 1}", '{"a": 1', "<think>still thinking"]
)
def test_what_is_no_object_has_a_problem_in_words(text: str) -> None:
    answer = read_answer(text)
    assert answer.json is None
    assert answer.problem


def test_a_refusal_is_told_from_prose() -> None:
    assert read_answer("I'm sorry, but I can't help with that.").refusal
    assert not read_answer("The total is 12 euros.").refusal


@given(JSON_OBJECTS, st.sampled_from(["", "```json\n%s\n```", "<think>x</think>%s"]))
def test_any_object_survives_its_wrapping(value: dict[str, object], wrapping: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "```" in text or "</think>" in text:
        return
    answer = read_answer(wrapping.replace("%s", text) if wrapping else text)
    assert answer.json is not None
    assert json.loads(answer.json) == value


@given(JSON_OBJECTS, st.data())
def test_a_prefix_of_an_object_is_never_an_answer(value: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1))
    assert read_answer(text[:cut], finish_reason="length").json is None


@given(JSON_OBJECTS)
def test_numbers_keep_their_digits(value: dict[str, object]) -> None:
    text = json.dumps(value)
    assert json.loads(dumps_exact(loads_exact(text))) == value


def test_decimals_are_not_rounded_on_the_way() -> None:
    text = '{"price":12345678901234567.890,"big":123456789012345678901234567890}'
    assert dumps_exact(loads_exact(text)) == text


def test_no_text_of_the_bad_json_set_raises_and_valid_objects_are_read() -> None:
    path = (
        Path(os.environ.get("QUARRY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
        / "bad_json"
        / "records.jsonl"
    )
    if not path.is_file():
        pytest.skip(f"{path} is not there; set QUARRY_DATA")
    checked = 0
    for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        row = json.loads(line)
        text = row["text"]
        if text is None and row["base64"] is None:
            text = "[" * row["bytes"]
        elif text is None:
            text = base64.b64decode(row["base64"]).decode("utf-8", "replace")
        answer = read_answer(text)
        try:
            value = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        except (ValueError, RecursionError, pytest.fail.Exception):
            continue
        if isinstance(value, dict):
            assert answer.json is not None
            checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    "number", ["1.50", "0.10000000000000000000001", "1e400", "12345678901234567890123", "9" * 5000]
)
def test_numbers_keep_their_digits_beside_a_lone_surrogate(number: str) -> None:
    text = '{"name":"\\ud800","amounts":[' + number + "]}"
    assert dumps_exact(loads_exact(text)) == text


@pytest.mark.parametrize("levels", [300, 500, 900, 1500])
def test_an_answer_that_nests_too_deeply_is_refused_or_can_be_written(levels: int) -> None:
    answer = read_answer('{"a":' + "[" * levels + "]" * levels + "}")
    if answer.json is None:
        assert answer.problem == "its JSON is nested too deeply"
    else:
        assert dumps_exact(loads_exact(answer.json)) == answer.json


@pytest.mark.parametrize("number", ["1e400", "-1E+400", "1" + "0" * 400, "9" * 5000])
def test_a_number_beyond_any_float_is_read_and_named(number: str) -> None:
    text = f'{{"price": 1.5, "lines": [{{"n": {number}}}]}}'
    assert read_answer(f"```json\n{text}\n```").json == text
    assert list(beyond_floats(text)) == [("lines/0/n", number)]


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ('{"a":1,"b":[{"a":2},{"a":3}]}', False),
        ('{"a" : 1, "b": "say \\"a\\": no"}', False),
        ('{"a":1,"a":1}', True),
        ('{"a":[{"b":1,"b":2}]}', True),
        ('{"a":1,"a":1e400}', True),
    ],
)
def test_a_key_that_stands_twice_is_noticed(text: str, twice: bool) -> None:
    assert repeats_a_key(text) is twice
