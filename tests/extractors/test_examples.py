"""Few-shot examples: which are shown, never the record's own, and what is copied from one is caught."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, ConfigDict, Field

from extractors import examples
from extractors.errors import JobError
from extractors.example_files import read_examples
from extractors.extraction import Extraction
from extractors.qwen.requests import ChatReply, ChatRequest, Mode, Purpose
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted, Failed
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage


class Offer(BaseModel):
    name: str
    price: Decimal | None = Field(default=None, max_digits=10, decimal_places=2)
    currency: str | None = None


GOLDEN = [
    ("Blue kettle, 19.90 €", {"price": 19.9, "name": "Blue kettle", "currency": "EUR"}),
    ("Green lamp with shade, 45 €", {"name": "Green lamp", "price": 45, "currency": "EUR"}),
    ("Oak table for six, 300 €", {"name": "Oak table", "price": 300, "currency": "EUR"}),
    ("Walnut chair, free to good hands", {"name": "Walnut chair", "price": None, "currency": None}),
]


def golden(path: Path, rows: Any = GOLDEN) -> Path:
    path.write_text("".join(json.dumps({"text": text, "expected": answer}) + "\n" for text, answer in rows))
    return path


def recipe(path: Path, mode: Mode = Mode.PROMPTED, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", "examples": str(path), **options})
    return compile_recipe(job, Offer, ModelPolicy("fake", mode, None, max_input_tokens=1000, max_output_tokens=4000))


def drive(using: Recipe, text: str, answers: list[Any]) -> tuple[Any, list[ChatRequest]]:
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    asked = []
    for answer in answers:
        request = extraction.next_request()
        assert request is not None, extraction.outcome
        asked.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model="fake"))
    assert extraction.next_request() is None
    return extraction.outcome, asked


def shown(request: ChatRequest) -> list[str]:
    """The texts of the examples in a request."""
    return [message.content.split("\n")[1] for message in request.messages[1:-1] if message.role == "user"]


def test_examples_stand_between_the_instructions_and_the_record_as_turns(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=2, examples_choice="fixed")
    _, [request] = drive(using, "Red pan, 8 €", [{"name": "Red pan", "price": 8}])
    assert [message.role for message in request.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert shown(request) == ["Blue kettle, 19.90 €", "Green lamp with shade, 45 €"]
    assert request.messages[2].content == '{"name":"Blue kettle","price":19.9,"currency":"EUR"}', (
        "in the schema's order"
    )
    assert "Red pan" in request.messages[-1].content


def test_similar_examples_share_words_and_the_most_similar_stands_next_to_the_record(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=2)
    _, [request] = drive(using, "Oak lamp for six", [{"name": "Oak lamp"}])
    assert shown(request) == ["Green lamp with shade, 45 €", "Oak table for six, 300 €"]
    _, [again] = drive(using, "Oak lamp for six", [{"name": "Oak lamp"}])
    assert again.messages == request.messages


def test_similar_examples_cover_the_words_of_the_record_together(tmp_path: Path) -> None:
    """The two most similar ones share the same rare words, and nothing would be shown of the others."""
    texts = ["Zebrano desk", "Zebrano desk, old", "Zebrano shelf", "Lamp with a marble foot", "Oak stool", "Pine stool"]
    index = examples._Index(texts)
    text = "Zebrano desk, lamp"
    assert index.ranked(text) == [0, 1, 3, 2, 4, 5]
    assert list(index.covering(text, [0, 1, 3, 2, 4, 5], lambda _: True)) == [0, 3, 1, 2, 4, 5]
    assert list(index.covering(text, [0, 1, 3, 2], lambda place: place != 3)) == [0, 1, 2], (
        "what does not fit covers nothing"
    )
    assert list(index.covering("nothing of it", [4, 2, 0], lambda _: True)) == [4, 2, 0], (
        "those that add the same stay in their order"
    )
    rows = [(one, {"name": one}) for one in texts]
    for number, expected in ((1, [0]), (2, [3, 0]), (3, [3, 1, 0])):
        using = recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=number)
        _, [request] = drive(using, text, [{"name": "Zebrano desk"}])
        assert [texts.index(one) for one in shown(request)] == expected, "the most similar one last"
    assert using.document["examples"]["similar_choice"] == "covering"


@pytest.mark.parametrize(
    "text",
    [
        "Blue kettle, 19.90 €",
        "blue  kettle, 19,90 €",
        "Blue kettle, 19.90 €!",
        "Blue kettle - 19.90 €",
        "Re: Blue kettle, 19.90 €",
    ],
)
@pytest.mark.parametrize("choice", ["similar", "fixed"])
def test_a_record_is_never_its_own_example(tmp_path: Path, text: str, choice: str) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_choice=choice, examples_shown=4)
    _, [request] = drive(using, text, [{"name": "kettle"}])
    assert len(shown(request)) == 3 and not any("kettle" in one for one in shown(request))


def test_a_record_is_not_shown_the_label_under_its_own_id(tmp_path: Path) -> None:
    lines = [{"id": f"r{number}", "text": text, "expected": answer} for number, (text, answer) in enumerate(GOLDEN)]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    using = recipe(tmp_path / "g.jsonl", examples_shown=4)
    text = "UPDATED 2024: Blue kettle, 19.90 € (seen again, and once more)"

    def seen(record_id: str) -> list[str]:
        request = Extraction(using, Record(record_id, text, content_fingerprint(text))).next_request()
        assert request is not None
        return shown(request)

    assert len(seen("r0")) == 3 and GOLDEN[0][0] not in seen("r0")
    assert len(seen("r9")) == 4, "another record"


def test_form_letters_that_say_something_else_are_examples_of_each_other(tmp_path: Path) -> None:
    def letter(name: str, price: int) -> str:
        return (
            "Dear customer, thank you very much for the order that you placed with us last week. We have sent you "
            f"the {name} for {price} € and hope that you will be content with it. With kind regards, your shop"
        )

    names = ["kettle", "lamp", "pan", "chair"]
    rows = [(letter(name, 20 + number), {"name": name, "price": 20 + number}) for number, name in enumerate(names)]
    using = recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=2)
    _, [request] = drive(using, letter("pan", 22), [{"name": "pan", "price": 22}])

    assert len(shown(request)) == 2 and not any("the pan for" in one for one in shown(request))


def test_corrections_are_shown_the_same_examples(tmp_path: Path) -> None:
    _, asked = drive(
        recipe(golden(tmp_path / "g.jsonl")), "Red pan, 8 €", [{"name": "Red pan", "price": "?"}, {"price": 8}]
    )
    assert asked[1].purpose is Purpose.CORRECT
    assert asked[0].messages[:-1] == asked[1].messages[:-1]


def test_a_value_copied_from_an_example_is_asked_again(tmp_path: Path) -> None:
    first = {"name": "Red pan", "price": 45, "currency": "EUR"}
    outcome, asked = drive(recipe(golden(tmp_path / "g.jsonl")), "Red pan, 8 €", [first, {"price": 8}])
    assert isinstance(outcome, Extracted) and outcome.value.price == 8
    assert list(asked[1].shape.schema["properties"]) == ["price"], "the currency was nobody's words: it is no copy"
    assert "an example's" in asked[1].messages[-1].content


@pytest.mark.parametrize("copied", [45, 45.0, "45.00", "45"])
def test_a_copied_number_is_known_however_it_is_written(tmp_path: Path, copied: Any) -> None:
    outcome, asked = drive(
        recipe(golden(tmp_path / "g.jsonl"), examples_shown=3),
        "Red pan, 8 €",
        [{"name": "Red pan", "price": copied}, {"price": 8}],
    )
    assert [request.purpose for request in asked] == [Purpose.EXTRACT, Purpose.CORRECT]
    assert isinstance(outcome, Extracted) and outcome.value.price == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("copied", ["Blue kettle", "Blue kettle.", "Blue-kettle", "BLUE  KETTLE"])
def test_a_copied_text_is_known_however_it_is_spelt(tmp_path: Path, copied: str) -> None:
    _, asked = drive(
        recipe(golden(tmp_path / "g.jsonl"), examples_shown=3),
        "Red pan, 8 €",
        [{"name": copied, "price": 8}, {"name": "Red pan"}],
    )
    assert asked[1].purpose is Purpose.CORRECT


def test_a_usual_value_that_the_record_says_in_other_words_is_no_copy(tmp_path: Path) -> None:
    rows = [(text.replace("€", "EUR"), answer) for text, answer in GOLDEN]
    outcome, asked = drive(
        recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=3),
        "Red pan, 8 €",
        [{"name": "Red pan", "price": 8, "currency": "EUR"}],
    )
    assert len(asked) == 1
    assert isinstance(outcome, Extracted) and outcome.value.currency == "EUR"  # type: ignore[attr-defined]


def test_a_value_that_two_of_many_labels_have_is_a_copy_still(tmp_path: Path) -> None:
    rows = [
        (f"Lamp {number}, {100 + number} €", {"name": f"Lamp {number}", "price": 100 + number}) for number in range(40)
    ]
    rows[1] = ("Another lamp, 100 €", {"name": "Another lamp", "price": 100})
    outcome, asked = drive(
        recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=1, examples_choice="fixed"),
        "Red pan, 8 €",
        [{"name": "Red pan", "price": 100}, {"price": 8}],
    )
    assert asked[1].purpose is Purpose.CORRECT
    assert isinstance(outcome, Extracted)


def test_a_copy_that_stays_becomes_null_or_fails_the_record(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"))
    outcome, _ = drive(using, "Red pan", [{"name": "Red pan", "price": 45}, {"price": 45}])
    assert isinstance(outcome, Extracted) and (outcome.value.price, outcome.nulled) == (None, ("price",))
    outcome, _ = drive(using, "Red pan", [{"name": "blue KETTLE"}, {"name": "Blue kettle"}])
    assert isinstance(outcome, Failed) and [one.error for one in outcome.problems] == ["copied"]


def test_a_value_that_is_in_the_record_too_is_no_copy(tmp_path: Path) -> None:
    outcome, _ = drive(recipe(golden(tmp_path / "g.jsonl")), "Pan, 45 €", [{"name": "Pan", "price": 45}])
    assert isinstance(outcome, Extracted) and outcome.value.price == 45


def test_the_recipe_changes_with_the_examples_and_only_with_them(tmp_path: Path) -> None:
    plain = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o"})
    policy = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1000, max_output_tokens=4000)
    one = recipe(golden(tmp_path / "one.jsonl"))
    ids = {
        compile_recipe(plain, Offer, policy).id,
        one.id,
        recipe(golden(tmp_path / "fewer.jsonl", GOLDEN[:3])).id,
        recipe(tmp_path / "one.jsonl", examples_shown=2).id,
        recipe(tmp_path / "one.jsonl", examples_choice="fixed").id,
    }
    assert len(ids) == 5
    assert recipe(golden(tmp_path / "copy.jsonl")).id == one.id, "the file's place means nothing"


def test_common_examples_come_first_and_are_the_same_for_every_record_whatever_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    rows = [(f"Lot {number}", {"name": f"Lot {number}"}) for number in range(20)]
    using = recipe(golden(tmp_path / "g.jsonl", [*GOLDEN, *rows]), examples_common=2, examples_shown=1)
    other = recipe(golden(tmp_path / "h.jsonl", [*reversed(rows), *GOLDEN]), examples_common=2, examples_shown=1)
    texts = ("Oak table", "Green lamp", "Lot 7 and more", "Lot 9 and more")
    found = [[shown(drive(one, text, [{"name": text}])[1][0]) for text in texts] for one in (using, other)]
    assert found[0] == found[1]
    assert len({tuple(one[:2]) for one in found[0]}) == 1
    assert all(len(set(one)) == 3 for one in found[0]), "none twice"
    assert len({one[2] for one in found[0]}) == 4, "and then its own"


def test_common_examples_stand_for_the_shapes_that_the_answers_have(tmp_path: Path) -> None:
    """One of each shape before a second of any, whatever their numbers; by values too, where several answers share them."""
    shapes = {
        "full": {"price": 5, "currency": "EUR"},
        "dollars": {"price": 5, "currency": "USD"},
        "priced": {"price": 7},
        "bare": {},
    }
    numbers = {"full": 30, "dollars": 8, "priced": 12, "bare": 5}
    rows = [
        (f"{shape} {number}", {"name": f"{shape} {number}", **shapes[shape]})
        for shape, count in numbers.items()
        for number in range(count)
    ]
    using = recipe(golden(tmp_path / "g.jsonl", rows), examples_common=4, examples_shown=1)
    _, [request] = drive(using, "lid", [{"name": "lid"}])
    assert sorted(text.split()[0] for text in shown(request)[:4]) == sorted(shapes)
    fewer = recipe(golden(tmp_path / "g.jsonl", rows), examples_common=1, examples_shown=1)
    _, [request] = drive(fewer, "lid", [{"name": "lid"}])
    assert shown(request)[0].startswith("full"), "the first stands for most of them"


def test_a_record_is_not_among_its_common_examples_either(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_common=4, examples_shown=4)
    for text, _ in GOLDEN:
        _, [request] = drive(using, text, [{"name": text}])
        assert sorted(shown(request)) == sorted(other for other, _ in GOLDEN if other != text)


def test_common_examples_have_room_of_their_own(tmp_path: Path) -> None:
    """A quarter of the 1,000 tokens that the model reads, beside the quarter for a record's own."""
    rows = [(f"pan {number} " * 10, {"name": f"pan {number}"}) for number in range(30)]
    own = recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=20)
    both = recipe(golden(tmp_path / "g.jsonl", rows), examples_shown=20, examples_common=30)
    assert own.examples is not None and both.examples is not None
    counts = [len(shown(drive(one, "lid", [{"name": "lid"}])[1][0])) for one in (own, both)]
    assert 0 < counts[0] < counts[1] < 30
    assert own.examples.tokens <= 250 < both.examples.tokens <= 500


def test_models_held_to_a_grammar_are_shown_twelve_common_examples_by_default(tmp_path: Path) -> None:
    rows = [(f"pan {number}", {"name": f"pan {number}"}) for number in range(40)]
    path = golden(tmp_path / "g.jsonl", rows)
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "o", "examples": str(path)})

    def compiled(mode: Mode, **options: Any) -> Recipe:
        policy = ModelPolicy("fake", mode, None, max_input_tokens=8000, max_output_tokens=4000)
        return compile_recipe(job.model_copy(update=options), Offer, policy)

    def count(using: Recipe) -> int:
        return len(shown(drive(using, "lid", [{"name": "lid"}])[1][0]))

    assert count(compiled(Mode.GRAMMAR)) == 15
    assert count(compiled(Mode.PROMPTED)) == 3
    assert compiled(Mode.GRAMMAR).id == compiled(Mode.GRAMMAR, examples_common=12).id
    assert compiled(Mode.PROMPTED).id == compiled(Mode.PROMPTED, examples_common=0).id
    assert compiled(Mode.GRAMMAR).id != compiled(Mode.GRAMMAR, examples_common=0).id
    assert count(compiled(Mode.GRAMMAR, examples_choice="fixed")) == 3


def test_common_examples_beside_fixed_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="leave `examples_common` out"):
        ExtractionJob.model_validate(
            {
                "source": "x",
                "schema": "x",
                "out": "o",
                "examples": "g",
                "examples_choice": "fixed",
                "examples_common": 2,
            }
        )


def test_examples_take_no_more_room_than_there_is(tmp_path: Path) -> None:
    """A quarter of the 1,000 tokens that the model reads: a long example gives way to the next most similar ones."""
    long = ("Oak lamp " + "with a very long story " * 60, {"name": "Oak lamp"})
    using = recipe(golden(tmp_path / "g.jsonl", [long, *GOLDEN]), examples_shown=3)
    assert using.examples is not None and 0 < using.examples.tokens <= 250
    _, [request] = drive(using, "Oak lamp for six", [{"name": "Oak lamp"}])
    assert len(shown(request)) == 3 and not any("story" in one for one in shown(request))
    assert shown(request)[-1] == "Oak table for six, 300 €"
    many = recipe(golden(tmp_path / "many.jsonl", [("pan " * 90, {"name": "pan"})] * 9), examples_choice="fixed")
    _, [request] = drive(many, "lid", [{"name": "lid"}])
    assert len(shown(request)) == 1, "two of 140 tokens have no room"


def test_a_golden_set_of_long_texts_alone_is_told_before_the_first_call(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"has about [\d,]+ tokens.*room for 250.*give shorter ones"):
        recipe(golden(tmp_path / "g.jsonl", [("long story " * 300, {"name": "story"})]))


@pytest.mark.parametrize("ending", ["parquet", "pq"])
def test_a_parquet_file_is_read_as_well(ending: str, tmp_path: Path) -> None:
    table = pa.table({"text": [text for text, _ in GOLDEN], "expected": [json.dumps(answer) for _, answer in GOLDEN]})
    pq.write_table(table, tmp_path / f"g.{ending}")
    assert recipe(tmp_path / f"g.{ending}").id == recipe(golden(tmp_path / "g.jsonl")).id


def test_parquet_with_columns_of_their_own_types_shows_the_same_answers(tmp_path: Path) -> None:
    price = pa.decimal128(10, 2)
    kinds = pa.struct([("name", pa.string()), ("price", price), ("currency", pa.string())])
    labels = [
        {**answer, "price": None if answer["price"] is None else Decimal(str(answer["price"]))} for _, answer in GOLDEN
    ]
    table = pa.table({"text": [text for text, _ in GOLDEN], "expected": pa.array(labels, kinds)})
    pq.write_table(table, tmp_path / "g.parquet")
    outcome, asked = drive(
        recipe(tmp_path / "g.parquet", examples_shown=3),
        "Red pan, 8 €",
        [{"name": "Red pan", "price": 45}, {"price": 8}],
    )
    assert '"price":45.00' in "".join(message.content for message in asked[0].messages), "a number with its digits"
    assert asked[1].purpose is Purpose.CORRECT, "a copy of it is known"
    assert isinstance(outcome, Extracted)


def test_numbers_of_many_digits_are_shown_with_all_of_them(tmp_path: Path) -> None:
    class Sum(BaseModel):
        amount: Decimal

    line = '{"text": "12345678901234567.89 due", "expected": {"amount": 12345678901234567.89}}'
    (tmp_path / "g.jsonl").write_text(line)
    [example] = read_examples(tmp_path / "g.jsonl", Sum)
    assert example.answer == '{"amount":12345678901234567.89}'
    assert example.printed == {("amount", "12345678901234567.89")}, "and found in their text with all of them"


def test_texts_are_those_of_the_jobs_template_and_keys_those_of_the_answer(tmp_path: Path) -> None:
    class Named(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        name: str = Field(alias="Seller Name")

    lines = [
        {"title": "Kettle", "body": 7, "expected": {"name": "Kettle"}},
        {"text": "Lamp", "expected": {"Seller Name": "Lamp"}},
    ]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_examples(tmp_path / "g.jsonl", Named, text="{title}: {body}")

    assert [(one.text, one.answer) for one in found] == [
        ("Kettle: 7", '{"Seller Name":"Kettle"}'),
        ("Lamp", '{"Seller Name":"Lamp"}'),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x"}', "line 1: the record has no `expected`"),
        (
            '{"id": "r7", "expected": {"name": "x"}}',
            "line 1: an example has a text and an expected answer; this has id, expected",
        ),
        ('{"text": "x", "expected": {"name": "x", "colour": "red"}}', "line 1: expected: Offer has no field 'colour'"),
        (
            '{"text": "x", "expected": {"price": 3}}',
            "line 1: expected is not an answer of the schema: name: Field required",
        ),
        ("{", "line 1: not JSON"),
        ('{"text": "x", "expected": {"name": "x", "price": 3}, "draft": true}', "line 1: the record is a draft"),
        ("", "holds no examples"),
    ],
)
def test_a_file_that_is_no_golden_set_is_told_by_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "g.jsonl").write_text(line)
    with pytest.raises(JobError, match=said):
        recipe(tmp_path / "g.jsonl")


def test_a_parquet_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "g.parquet").write_text("text,expected")
    with pytest.raises(JobError, match=r"g\.parquet cannot be read"):
        recipe(tmp_path / "g.parquet")
