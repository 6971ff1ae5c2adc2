"""Fields in the order in which a record has their values: what the grammar lets be written, what examples show, what the
model is told, and what becomes of a key that is written twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from extractors.continuation import beginning, goes_round
from extractors.errors import JobError
from extractors.examples import example_of
from extractors.extraction import Extraction
from extractors.longtext.parts import parts_of
from extractors.parsing import dumps_exact, joined_keys, loads_exact
from extractors.qwen.grammar import compact_grammar
from extractors.qwen.modes import compile_shape
from extractors.qwen.requests import ChatReply, ChatRequest, Logprobs, Mode, Purpose
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from tests.extractors.qwen.test_grammar import accepts, as_regex, compact


class Stop(BaseModel):
    place: str
    hour: int | None = None
    platform: int | None = None


class Trip(BaseModel):
    number: int
    price: float | None = None
    city: str | None = None
    guests: list[str] = []
    stops: list[Stop] = []


TEXT = "To Oslo with Ann and Bo for 12.5, trip 7, by platform 3 in Ski at 9"


def golden(folder: Path) -> str:
    answer = {
        "number": 7, "price": 12.5, "city": "Oslo", "guests": ["Bo", "Ann"],
        "stops": [{"place": "Ski", "hour": 9, "platform": 3}],
    }  # fmt: skip
    path = folder / "golden.jsonl"
    path.write_text(json.dumps({"text": TEXT, "expected": answer}))
    return str(path)


def recipe(mode: Mode = Mode.GRAMMAR, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", **options})
    policy = ModelPolicy("fake", mode, None, max_input_tokens=4000, max_output_tokens=4000, logprobs=True)
    return compile_recipe(job, Trip, policy)


def asked(using: Recipe, text: str, answer: str, logprobs: Logprobs | None = None) -> Extracted:
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    extraction.receive(ChatReply(answer, "stop", Usage(1, 10, 10), model="fake", logprobs=logprobs))
    assert extraction.next_request() is None and isinstance(extraction.outcome, Extracted), extraction.outcome
    return extraction.outcome


def an_object(required: Sequence[str], properties: Sequence[str]) -> dict[str, Any]:
    each = {name: {"type": "integer"} for name in properties}
    return {"type": "object", "properties": each, "required": list(required), "additionalProperties": False}


@given(data=st.data())
def test_any_choice_of_what_may_be_left_out_is_accepted_in_any_order_after_what_must_be_there(
    data: st.DataObject,
) -> None:
    names = data.draw(st.lists(st.sampled_from("abcdef"), min_size=2, unique=True))
    required = [name for name in names if data.draw(st.booleans(), label=name)]
    free = [name for name in names if name not in required]
    grammar = as_regex(compact_grammar(an_object(required, names), text_order=True))
    written = data.draw(st.permutations([name for name in free if data.draw(st.booleans())]))
    if len(free) > 1:
        assert grammar.fullmatch(compact({name: 1 for name in [*required, *written]}))
        first_required = [*required[:-1], *written, *required[-1:]]
        if required and written:
            assert not grammar.fullmatch(compact({name: 1 for name in first_required}))
        once_more = "".join(f',"{name}":1' for name in [*free, free[0]])
        whole = "{" + (",".join(f'"{name}":1' for name in required) + once_more).removeprefix(",") + "}"
        assert not grammar.fullmatch(whole), "no more than there are properties"
    else:
        plain = as_regex(compact_grammar(an_object(required, names)))
        assert grammar.pattern == plain.pattern, "with one that may be left out there is one order"


def test_the_schemas_order_is_held_where_nothing_else_is_said() -> None:
    schema = an_object([], "abc")
    orders = ["{" + ",".join(f'"{name}":1' for name in order) + "}" for order in permutations("abc")]
    assert [accepts(schema, one) for one in orders] == [True, False, False, False, False, False]
    free = as_regex(compact_grammar(schema, text_order=True))
    assert all(free.fullmatch(one) for one in orders) and free.fullmatch("{}")


def test_examples_are_written_as_their_text_has_it_at_every_depth(tmp_path: Path) -> None:
    [shown] = recipe(examples=golden(tmp_path)).examples.of(Record("r", "To Rome", content_fingerprint("To Rome")))  # type: ignore[union-attr]
    assert shown.answer == (
        '{"number":7,"city":"Oslo","guests":["Bo","Ann"],"price":12.5,"stops":[{"place":"Ski","platform":3,"hour":9}]}'
    )
    [plain] = recipe(examples=golden(tmp_path), field_order="schema").examples.of(  # type: ignore[union-attr]
        Record("r", "To Rome", content_fingerprint("To Rome"))
    )
    assert list(json.loads(plain.answer)) == ["number", "price", "city", "guests", "stops"]


def test_what_the_text_does_not_print_comes_last_in_the_schemas_order() -> None:
    class Game(BaseModel):
        act: str | None = None
        rated: bool | None = None
        name: str | None = None
        year: int | None = None

    answer = {"act": "inform", "rated": True, "name": "Rollcage", "year": 1999}
    made = example_of(
        "In 1999 came Rollcage", answer, Game(**answer), answer_schema(Game), omit_nulls=True, text_order=True
    )
    assert list(json.loads(made.answer)) == ["year", "name", "act", "rated"]


def test_a_grammar_that_leaves_nulls_out_lets_them_be_written_so_by_itself(tmp_path: Path) -> None:
    using = recipe(examples=golden(tmp_path))
    assert using.shape.text_order and using.document["field_order"] == "text"
    assert as_regex(using.shape.wire["grammar"]).fullmatch('{"number":7,"city":"Oslo","price":12.5}')
    system = using.prompter.system.content
    assert "in the order in which the record has their values" in system and "in this order" not in system
    other = recipe(examples=golden(tmp_path), field_order="schema")
    assert not other.shape.text_order and "in this order" in other.prompter.system.content
    assert other.id != using.id and "field_order" not in other.document
    for mode, options in (
        (Mode.GRAMMAR, {"examples_choice": "fixed"}),
        (Mode.GRAMMAR, {"omit_nulls": False}),
        (Mode.JSON_OBJECT, {"omit_nulls": True}),
        (Mode.JSON_SCHEMA, {"omit_nulls": True}),
    ):
        unlike = recipe(mode, examples=golden(tmp_path), **options)
        assert not unlike.shape.text_order and "field_order" not in unlike.document


def test_answers_that_are_concluded_rather_than_copied_keep_the_schemas_order(tmp_path: Path) -> None:
    copied = {"number": 7, "price": 12.5, "city": "Oslo", "guests": ["Bo", "Ann"]}
    path = tmp_path / "golden.jsonl"

    def written(**others: Any) -> Recipe:
        path.write_text(json.dumps({"text": TEXT, "expected": {**copied, **others}}))
        return recipe(examples=str(path))

    assert written().shape.text_order
    assert written(city="Norway's capital").shape.text_order, "four of five are copied"
    mostly = written(city="Norway's capital", guests=["a brother", "his sister"])
    assert not mostly.shape.text_order and "field_order" not in mostly.document and mostly.shape.omit_nulls
    assert mostly.examples is not None
    [shown, *_] = mostly.examples.of(Record("r", "other", "f"))
    assert list(json.loads(shown.answer)) == ["number", "price", "city", "guests"]
    assert recipe(examples=str(path), field_order="text").shape.text_order, "whoever says so has it"


def test_records_that_are_asked_together_have_their_fields_in_any_order_too(tmp_path: Path) -> None:
    using = recipe(examples=golden(tmp_path), examples_choice="fixed", omit_nulls=True, records_per_call=2)
    grammar = as_regex(using.pack_shape(2).wire["grammar"])
    assert grammar.fullmatch('{"1":{"number":7,"city":"Oslo","price":1},"2":{"number":1}}')
    assert not grammar.fullmatch('{"2":{"number":7},"1":{"number":1}}')


def test_a_prompt_of_ones_own_is_told_of_it_too(tmp_path: Path) -> None:
    own = tmp_path / "extract.own.txt"
    own.write_text("Answer with JSON:\n{{fields}}\n{{instructions}}")
    system = recipe(examples=golden(tmp_path), prompt=str(own)).prompter.system.content
    assert "- Write the fields in the order in which the record has their values." in system


def test_where_it_cannot_be_it_is_refused_with_what_to_do() -> None:
    with pytest.raises(JobError, match="say omit_nulls too"):
        recipe(field_order="text")
    with pytest.raises(JobError, match=r"json_schema holds an answer to the schema's order"):
        recipe(Mode.JSON_SCHEMA, field_order="text", omit_nulls=True)
    assert recipe(Mode.JSON_OBJECT, field_order="text", omit_nulls=True).document["field_order"] == "text"


def test_a_key_that_is_written_twice_has_the_items_of_both_and_the_first_value(tmp_path: Path) -> None:
    using = recipe(examples=golden(tmp_path))
    answer = '{"number":7,"guests":["Ann"],"city":"Oslo","guests":["Bo","Ann"],"city":"Bo","price":12.50}'
    outcome = asked(using, TEXT, answer)
    assert outcome.value == Trip(number=7, price=12.5, city="Oslo", guests=["Ann", "Bo"])
    assert outcome.repaired
    once = asked(using, TEXT, '{"number":7,"city":"Oslo","price":12.5}')
    assert once.value == Trip(number=7, price=12.5, city="Oslo") and not once.repaired


_KEYS = st.text(max_size=3)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_json_without_a_key_twice_is_left_alone(value: dict[str, Any]) -> None:
    assert joined_keys(json.dumps(value)) is None


@given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=4), st.data())
def test_a_whole_written_twice_is_joined_to_what_it_is(value: dict[str, Any], data: st.DataObject) -> None:
    members = [f"{json.dumps(key)}:{json.dumps(one)}" for key, one in value.items()]
    again = data.draw(st.sampled_from(members))
    text = "{" + ",".join([*members, again]) + "}"
    assert joined_keys(text) == dumps_exact(loads_exact(json.dumps(value)))


@pytest.mark.parametrize("text", ["", "{", '{"a":1,"a":', '{"a":NaN,"a":1}', "[" * 100_000])
def test_what_is_no_json_is_nothing_to_join(text: str) -> None:
    assert joined_keys(text) is None


def test_an_answer_that_has_a_key_twice_has_the_confidence_of_its_evidence(tmp_path: Path) -> None:
    answer = '{"number":7,"city":"Oslo","city":"Ski"}'
    logprobs = Logprobs(tuple(range(1, len(answer) + 1)), (-0.5,) * len(answer))
    outcome = asked(recipe(examples=golden(tmp_path)), TEXT, answer, logprobs)
    assert outcome.value.city == "Oslo" and outcome.confidence["city"] == 0.9  # type: ignore[attr-defined]
    once = asked(recipe(examples=golden(tmp_path)), TEXT, '{"number":7,"city":"Oslo"}', logprobs)
    assert once.confidence["city"] < 0.1


def test_a_list_that_was_begun_twice_and_cut_off_keeps_both_beginnings() -> None:
    cut = '{"number":7,"guests":["Ann","Eve"],"city":"Oslo","city":"Ski","guests":["Bo","Ann","C'
    start = beginning(cut, joins=True)
    assert start is not None
    assert (start.value["guests"], start.path, start.done) == (["Ann", "Eve", "Bo"], "guests", 3)
    assert start.value["city"] == "Oslo"
    last = beginning(cut)
    assert last is not None and (last.value["guests"], last.value["city"]) == (["Bo", "Ann"], "Ski")


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ('{"a":{"l":[1,2],"x":1},"a":{"y":2,"l":[2,3,4', {"a": {"l": [1, 2, 3], "x": 1, "y": 2}}),
        ('{"a":null,"a":[1,2', {"a": [1]}),
        ('{"a":5,"a":[1,2', None),
        ('{"a":[1],"a":{"l":[1,2', None),
        ('{"a":{"l":5},"a":{"l":[1,2', None),
    ],
)
def test_what_was_begun_twice_is_joined_or_nothing_to_go_on_from(cut: str, whole: Any) -> None:
    start = beginning(cut, joins=True)
    assert (None if start is None else start.value) == whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('{"a":{"x":1},"a":{"x":2,"y":3}}', '{"a":{"x":1,"y":3}}'),
        ('{"a":null,"a":{"x":2}}', '{"a":{"x":2}}'),
        ('{"a":[1.50],"a":[1.50,2]}', '{"a":[1.50,2]}'),
        ('{"a":"x","a":["y"]}', '{"a":"x"}'),
        ('[{"a":1,"a":2}]', '[{"a":1}]'),
    ],
)
def test_what_is_there_twice_is_joined(text: str, whole: str) -> None:
    assert joined_keys(text) == whole


class Deep(BaseModel):
    name: str
    kind: str | None = None
    more: JsonValue = None
    by_name: dict[str, Stop] = {}
    both: tuple[Stop, Stop] | None = None


@pytest.mark.parametrize("deep", [300, 500, 900])
@pytest.mark.parametrize("repeated", ["", ',"kind":"a","kind":"b"'])
def test_an_answer_that_nests_too_deeply_breaks_nothing(deep: int, repeated: str) -> None:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", "omit_nulls": True})
    policy = ModelPolicy("fake", Mode.GRAMMAR, None, max_input_tokens=4000, max_output_tokens=4000)
    extraction = Extraction(compile_recipe(job, Deep, policy), Record("r", TEXT, content_fingerprint(TEXT)))
    text = '{"name":"Oslo"' + repeated + ',"more":' + "[" * deep + "]" * deep + "}"
    extraction.receive(ChatReply(text, "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is not None or isinstance(extraction.outcome, Extracted)


_NUMBERS = st.none() | st.integers(0, 9)
_STOPS = st.builds(Stop, place=st.sampled_from(["Oslo", "Ski", "Rome"]), hour=_NUMBERS, platform=_NUMBERS)
_SHAPE = answer_schema(Deep)
_GRAMMARS = {
    order: as_regex(
        compile_shape("deep", _SHAPE, Mode.GRAMMAR, omit_nulls=True, text_order=order).wire["grammar"], depth=1
    )
    for order in (True, False)
}


@given(
    st.builds(
        Deep,
        name=st.sampled_from(["Ann", "Bo"]),
        kind=st.none() | st.just("trip"),
        more=st.just(None),
        by_name=st.dictionaries(st.sampled_from(["a", "b"]), _STOPS, max_size=2),
        both=st.none() | st.tuples(_STOPS, _STOPS),
    )
)
def test_the_grammar_accepts_what_examples_show(value: Deep) -> None:
    """Maps and tuples included, whatever the order in which the text, or the golden set, has them."""
    expected = json.loads(value.model_dump_json())
    backwards = json.loads(json.dumps(expected), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    text = f"{TEXT[::-1]} {TEXT}"
    for order in (True, False):
        made = example_of(text, backwards, value, _SHAPE, omit_nulls=True, text_order=order)
        assert _GRAMMARS[order].fullmatch(made.answer), made.answer


class Strict(BaseModel):
    name: str
    year: int
    note: str | None = None


def test_a_schema_without_an_order_has_the_recipe_that_it_had() -> None:
    def of(**options: Any) -> Recipe:
        job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", "omit_nulls": True, **options})
        policy = ModelPolicy("fake", Mode.GRAMMAR, None, max_input_tokens=4000, max_output_tokens=4000)
        return compile_recipe(job, Strict, policy)

    assert of().id == of(field_order="schema").id and "field_order" not in of().document
    assert "in this order" in of().prompter.system.content


def test_items_are_counted_before_they_are_written() -> None:
    using = recipe(omit_nulls=True)
    parts = parts_of(using)
    assert using.shape.text_order and parts is not None
    for part in (parts.window, parts.whole):
        assert not part.shape.text_order and "in the order in which" not in part.prompter.system.content
    assert parts.rest is not None and parts.rest.shape.text_order


def test_a_corrected_value_has_nothing_of_what_was_thought_of_the_one_before() -> None:
    using = recipe(omit_nulls=True, require_evidence=["city"])
    extraction = Extraction(using, Record("r", TEXT, content_fingerprint(TEXT)))
    answer = '{"number":7,"city":"Rome"}'
    doubtful = Logprobs(tuple(range(1, len(answer) + 1)), (-0.5,) * len(answer))
    extraction.receive(ChatReply(answer, "stop", Usage(1, 10, 10), model="fake", logprobs=doubtful))
    extraction.receive(ChatReply('{"city":"Oslo"}', "stop", Usage(1, 10, 10), model="fake"))
    assert isinstance(extraction.outcome, Extracted) and extraction.outcome.corrected == ("city",)
    assert extraction.outcome.confidence["city"] == 0.9, "its evidence alone is known"


class Card(BaseModel):
    kind: Literal["card"]
    brand: str | None = None
    last4: str | None = None


class Transfer(BaseModel):
    kind: Literal["transfer"]
    bank: str | None = None
    iban: str | None = None


class Cash(BaseModel):
    amount: int
    note: str | None = None


class Payment(BaseModel):
    payer: str
    how: Card | Transfer | Cash | None = None
    spans: tuple[int, int] | tuple[Stop, Stop, Stop] | None = None


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "card", "last4": "1234"},
        {"kind": "transfer", "iban": "DE12", "bank": "Nordea"},
        {"amount": 5, "note": "Ski"},
        {"amount": 5},
    ],
)
@pytest.mark.parametrize(("omit", "order"), [(True, True), (True, False), (False, False)])
def test_an_example_of_a_union_is_written_as_the_branch_that_it_is(
    how: dict[str, Any], omit: bool, order: bool
) -> None:
    expected = {"payer": "Ann", "how": how, "spans": [{"place": "Ski"}, {"place": "Oslo"}, {"place": "Rome"}]}
    value, schema = Payment.model_validate(expected), answer_schema(Payment)
    made = example_of(TEXT, expected, value, schema, omit_nulls=omit, text_order=order)
    assert Payment.model_validate_json(made.answer) == value
    grammar = compile_shape("p", schema, Mode.GRAMMAR, omit_nulls=omit, text_order=order).wire["grammar"]
    assert as_regex(grammar, depth=1).fullmatch(made.answer), made.answer


def test_a_circle_is_left_though_what_it_says_stood_there_before(tmp_path: Path) -> None:
    using = recipe(examples=golden(tmp_path))
    before, circle = ["Ann", "Bo"], ["Ann", "Rome", "Bo"] * 20
    said = f'{{"number":7,"guests":{compact(before)},"city":"Oslo","guests":{compact(circle)[:-1]},"Ro'
    extraction = Extraction(using, Record("r", TEXT, content_fingerprint(TEXT)))
    extraction.receive(ChatReply(said, "loop", Usage(1, 10, 10), model="fake"))
    request = extraction.next_request()
    assert isinstance(request, ChatRequest) and request.purpose is Purpose.CONTINUE
    assert "guests" not in request.shape.schema["properties"] and "price" in request.shape.schema["properties"]
    extraction.receive(ChatReply('{"price":12.5,"stops":[]}', "stop", Usage(1, 10, 10), model="fake"))
    assert isinstance(extraction.outcome, Extracted)
    assert extraction.outcome.value == Trip(number=7, price=12.5, city="Oslo", guests=["Ann", "Bo"])


def test_a_doubled_key_in_a_fenced_answer_has_the_confidence_of_its_evidence_too() -> None:
    using = recipe(Mode.JSON_OBJECT, field_order="text", omit_nulls=True, made_up_examples="never")
    answer = '```json\n{"number":7,"city":"Oslo","city":"Ski"}\n```'
    logprobs = Logprobs(tuple(range(1, len(answer) + 1)), (-0.5,) * len(answer))
    outcome = asked(using, TEXT, answer, logprobs)
    assert outcome.value.city == "Oslo" and outcome.confidence["city"] == 0.9  # type: ignore[attr-defined]


def test_a_correction_says_nothing_of_values_that_it_was_not_asked_about() -> None:
    using = recipe(Mode.JSON_OBJECT, require_evidence=["city"])
    extraction = Extraction(using, Record("r", TEXT, content_fingerprint(TEXT)))
    first = '{"number":7,"city":"Rome","price":12.5,"guests":["Ann"]}'
    sure = Logprobs(tuple(range(1, len(first) + 1)), (-0.001,) * len(first))
    extraction.receive(ChatReply(first, "stop", Usage(1, 10, 10), model="fake", logprobs=sure))
    second = '{"city":"Oslo","price":99}'
    unsure = Logprobs(tuple(range(1, len(second) + 1)), (-0.5,) * len(second))
    extraction.receive(ChatReply(second, "stop", Usage(1, 10, 10), model="fake", logprobs=unsure))
    assert isinstance(extraction.outcome, Extracted)
    assert extraction.outcome.value.price == 12.5  # type: ignore[attr-defined]
    assert extraction.outcome.confidence["price"] > 0.9 > extraction.outcome.confidence["city"]


def test_a_cut_off_list_of_items_that_nest_too_deeply_is_no_circle() -> None:
    deep = "[" * 700 + "]" * 700
    assert not goes_round('{"l":[' + f"{deep}," * 15, "a few words")
