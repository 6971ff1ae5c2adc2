"""Several short records in one call: which ones, the question, each one's share of the reply."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from extractors.errors import SchemaError
from extractors.packer import Packer
from extractors.packing import UNSEEN, after_pack, pack_request, packable, packs, records_together, shares, with_packs
from extractors.qwen.requests import CallError, ChatReply, ErrorKind, Logprobs, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.store.plan import Group
from schemas.job import ExtractionJob
from schemas.records import ImageRef, Record, content_fingerprint
from schemas.usage import Usage
from schemas.verbatim import Verbatim


class Offer(BaseModel):
    title: str
    price: float | None = None


class Quote(BaseModel):
    words: Annotated[str, Verbatim()]


def recipe(most: int = 3, mode: Mode = Mode.GRAMMAR, model: type[BaseModel] = Offer, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate(
        {
            "source": "x",
            "schema": "x",
            "out": "o",
            "records_per_call": most,
            "max_output_tokens": 100,
            "made_up_examples": "never",
            **options,
        }
    )
    return compile_recipe(job, model, ModelPolicy("fake", mode, None, max_input_tokens=8000, max_output_tokens=250))


def record(text: str, **more: Any) -> Record:
    return Record(text[:8], text, content_fingerprint(text), **more)


THREE = [record("Blue kettle for 30 euros"), record("Red pan, 12.50"), record("A lid")]
RIGHT = ['{"title":"Blue kettle","price":30}', '{"title": "Red pan", "price": 12.50}', '{"title":"A lid","price":null}']


def reply(text: str, finish: str = "stop", **more: Any) -> ChatReply:
    return ChatReply(text, finish, Usage(1, 100, 50, cost=Decimal("0.01")), "fake", 3.0, **more)


def packed(*answers: str) -> str:
    return "{" + ", ".join(f'"{number}": {answer}' for number, answer in enumerate(answers, start=1)) + "}"


def shared(result: ChatReply | CallError, using: Recipe | None = None) -> list[Any]:
    using = using or recipe()
    return shares(using, THREE, pack_request(using, THREE), result)


def texts(result: ChatReply | CallError) -> list[str | None]:
    return [one.text if isinstance(one, ChatReply) else None for one in shared(result)]


# Which records ----------------------------------------------------------------------------------------


def test_short_records_are_packed_in_their_order() -> None:
    records = [record(f"text {number}") for number in range(8)]
    assert packs(records, recipe(3)) == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert packs(records[:7], recipe(3)) == [(0, 1, 2), (3, 4, 5)], "one that is left over is asked alone"


def test_long_ones_pictures_and_what_cannot_be_read_are_asked_alone() -> None:
    records = [
        record("first"),
        record("long " * 1000),
        record("picture", images=(ImageRef("x.png", "x.png", "0"),)),
        record("", problem="it is empty"),
        record("last"),
    ]
    assert packs(records, recipe(4)) == [(0, 4)]


def test_a_pack_is_no_larger_than_what_the_model_reads_well() -> None:
    records = [record(f"{number} " + "word " * 290) for number in range(12)]
    sizes = [len(pack) for pack in packs(records, recipe(8))]
    assert max(sizes) < 8 and sum(sizes) == 12


def test_a_record_goes_with_those_that_are_shown_the_same_examples(tmp_path: Path) -> None:
    golden = tmp_path / "g.jsonl"
    lines = [{"text": f"Grey cup {n} for {n}", "expected": {"title": "Grey cup", "price": n}} for n in (1, 222)]
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    using = recipe(4, examples=str(golden), examples_choice="fixed", examples_shown=1)
    records = [record("Blue kettle"), record("Grey cup 1 for 1"), record("Red pan")]
    assert packs(records, using) == [(0, 2)], "the second is an example itself and is shown another one"


class Judged(BaseModel):
    mood: Literal["good", "bad"]
    urgent: bool | None = None
    product: str | None = None


class Judgements(BaseModel):
    subject: str
    parts: list[Judged]


@pytest.mark.parametrize(("model", "mostly"), [(Offer, False), (Judged, True), (Judgements, False)])
def test_it_is_told_once_where_most_values_are_choices_which_no_record_shows(
    model: type[BaseModel], mostly: bool, caplog: pytest.LogCaptureFixture
) -> None:
    groups = [Group((one,)) for one in THREE]
    packer = Packer(recipe(model=model), {})
    for _ in range(2):
        found, _ = packer.packs(groups)
        assert len(found) == 1
    assert caplog.messages == ([UNSEEN] if mostly else [])
    caplog.clear()
    Packer(recipe(model=model), {}).packs(groups[:1])
    assert not caplog.messages, "nothing is packed"


def test_a_plan_knows_that_the_prompt_is_shared() -> None:
    assert records_together(recipe(4), ["short"] * 10) == 4
    assert records_together(recipe(4), ["short"] * 5 + ["long " * 1000] * 5) == 1.6
    assert records_together(recipe(32), ["word " * 250] * 5) == pytest.approx(2000 / 300, abs=1.5)
    assert records_together(recipe(1), ["short"]) == records_together(recipe(4), []) == 1


# The question ----------------------------------------------------------------------------------------


def test_made_up_examples_are_a_pack_of_their_own() -> None:
    request = pack_request(recipe(made_up_examples="auto"), THREE)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    [(number, answer)] = json.loads(request.messages[2].content).items()
    assert (number, answer) == ("1", {"title": "alpha", "price": 731.5})


def test_a_pack_is_the_same_instructions_and_numbered_records() -> None:
    using = recipe()
    request = pack_request(using, THREE)
    [system, user] = request.messages
    assert system == using.prompter.system, "the prefix is the one of every other call"
    assert user.content.index("Record 1:") < user.content.index("Blue kettle") < user.content.index("Record 2:")
    assert 'the keys "1", "2", "3"' in user.content
    assert request.shape.schema["required"] == ["1", "2", "3"]
    assert '"{" "\\"1\\"" ":" " "? ' in request.shape.wire["grammar"].replace("root ::= ", "")
    assert request.max_output_tokens == 250, "as much as three answers may take, and no more than the model writes"
    assert len(set(packable(using, one).digest for one in THREE) | {request.digest()}) == 4


def test_fixed_examples_are_shown_as_one_pack(tmp_path: Path) -> None:
    golden = tmp_path / "g.jsonl"
    lines = [{"text": f"Cup {name}", "expected": {"title": name, "price": None}} for name in ("Alpha", "Beta")]
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    using = recipe(examples=str(golden), examples_choice="fixed")
    [_, shown, answer, _] = pack_request(using, THREE).messages
    assert "Cup Alpha" in shown.content and "Cup Beta" in shown.content
    assert list(json.loads(answer.content)) == ["1", "2"]


# Shares of a reply ------------------------------------------------------------------------------------


def test_each_record_gets_its_answer_as_it_was_written() -> None:
    assert texts(reply(packed(*RIGHT))) == RIGHT
    assert texts(reply(f"Here you are:\n```json\n{packed(*RIGHT)}\n```")) == RIGHT


def test_what_was_paid_is_shared_out_exactly() -> None:
    found = shared(reply(packed(*RIGHT)))
    assert [one.usage.input_tokens for one in found] == [34, 33, 33]
    assert [one.usage.calls for one in found] == [1, 0, 0]
    assert sum((one.usage for one in found), Usage()) == Usage(1, 100, 50, cost=Decimal("0.01"))
    assert sum(one.latency for one in found) == pytest.approx(3.0)
    assert len({one.pack for one in found}) == 1


COUNTS = st.integers(0, 2**40)


@given(
    COUNTS, COUNTS, st.none() | st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=14),
    st.integers(1, 32),
)  # fmt: skip
def test_shares_of_any_usage_add_up(tokens: int, more: int, cost: Decimal | None, ways: int) -> None:
    whole = Usage(1, tokens + more, more, tokens, more // 2, cost)
    found = whole.shared(ways)
    total = Usage(cost=Decimal(0) if cost is not None else None)
    for one in found:
        total += one
        assert one.cached_tokens <= one.input_tokens and one.reasoning_tokens <= one.output_tokens
        assert one.cost is None or one.cost >= 0
    assert total == whole


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (packed(RIGHT[0], RIGHT[1]), [RIGHT[0], RIGHT[1], None]),
        (f'{{"1":{RIGHT[0]},"1":{RIGHT[1]},"3":{RIGHT[2]}}}', [None, None, RIGHT[2]]),
        (f'{{"0":{RIGHT[0]},"1":{RIGHT[1]},"2":{RIGHT[2]}}}', [None, None, None]),
        (f'{{"1":{RIGHT[0]},"2":null,"3":[]}}', [RIGHT[0], None, None]),
        (f"[{','.join(RIGHT)}]", [None, None, None]),
        ("I cannot do that.", [None, None, None]),
        ("{" + '"1":{' * 2000, [None, None, None]),
    ],
)
def test_a_record_that_is_left_out_or_not_told_apart_has_no_answer(answer: str, left: list[str | None]) -> None:
    assert texts(reply(answer)) == left


def test_a_reply_that_was_cut_off_counts_up_to_the_cut() -> None:
    whole = packed(*RIGHT)
    assert texts(reply(whole[: whole.index('"3"') + 12], "length")) == [RIGHT[0], RIGHT[1], None]
    assert texts(reply(whole, "content_filter")) == [None, None, None]


def test_a_value_of_another_record_is_not_taken() -> None:
    assert texts(reply(packed(RIGHT[1], RIGHT[0], RIGHT[2]))) == [None, None, RIGHT[2]]
    mixed = '{"title":"Blue kettle","price":12.5}'
    [first, *_] = shared(reply(packed(mixed, RIGHT[1], RIGHT[2])))
    assert first.kind is ErrorKind.UNANSWERED and "mixed" in first.message and first.body == mixed


def test_a_name_that_another_record_prints_and_its_own_only_nearly_is_not_taken() -> None:
    two = [record("Johannes Schmidt for 30 euros"), record("Johanna Schmidt, 12.50")]
    swapped = packed('{"title":"Johannes Schmidt","price":30}', '{"title":"Johannes Schmidt","price":12.50}')
    first, second = shares(recipe(), two, pack_request(recipe(), two), reply(swapped))
    assert isinstance(first, ChatReply) and isinstance(second, CallError) and "mixed" in second.message


def test_an_invention_is_the_records_own_matter() -> None:
    invented = '{"title":"Blue kettle with a spout","price":99}'
    assert texts(reply(packed(invented, RIGHT[1], RIGHT[2])))[0] == invented


def test_the_tokens_of_a_share_are_those_of_its_text() -> None:
    whole = packed('{"title":"Bläue"}', '{"title":"Red pan"}', RIGHT[2])
    data = whole.encode()
    tokens = Logprobs(tuple(range(1, len(data) + 1)), tuple(-float(at) for at in range(len(data))))
    [first, second, _] = shared(reply(whole, logprobs=tokens))
    for one in (first, second):
        mine = one.text.encode()
        assert one.logprobs.ends == tuple(range(1, len(mine) + 1))
        assert one.logprobs.values[0] == -float(data.index(mine))


def test_a_pack_that_failed_is_paid_by_its_records() -> None:
    error = CallError(ErrorKind.REFUSED, "no", "fake", usage=Usage(1, 9, 0))
    earlier = CallError(ErrorKind.RATE_LIMITED, "slow", "fake")
    found = shared(CallError(ErrorKind.REFUSED, "no", "fake", usage=error.usage, earlier=(earlier,)))
    assert [(one.kind, one.usage.input_tokens, len(one.earlier)) for one in found] == [
        (ErrorKind.REFUSED, 3, 1), (ErrorKind.REFUSED, 3, 0), (ErrorKind.REFUSED, 3, 0),
    ]  # fmt: skip
    own = after_pack(reply("{}"), found[0])
    assert [one.kind for one in own.earlier] == [ErrorKind.RATE_LIMITED, ErrorKind.REFUSED]
    assert own.usage.input_tokens == 100 and with_packs(own).usage.input_tokens == 103


# The recipe -------------------------------------------------------------------------------------------


def test_it_is_another_recipe_only_when_it_is_used() -> None:
    job = ExtractionJob.model_validate(
        {"source": "x", "schema": "x", "out": "o", "max_output_tokens": 100, "made_up_examples": "never"}
    )
    plain = compile_recipe(job, Offer, recipe().policy)
    assert recipe(1).id == plain.id and "records_per_call" not in plain.document
    assert len({recipe(1).id, recipe(2).id, recipe(3).id}) == 3


def test_what_cannot_be_packed_is_refused_in_one_sentence() -> None:
    with pytest.raises(SchemaError, match="verbatim fields"):
        recipe(2, model=Quote)
    assert recipe(2, Mode.JSON_SCHEMA, Quote).records_per_call == 2, "elsewhere evidence sees to it"
    with pytest.raises(ValidationError, match="live lane only"):
        recipe(2, lane="batch")
    with pytest.raises(ValidationError, match="examples_choice` fixed"):
        recipe(2, examples="g.jsonl")
