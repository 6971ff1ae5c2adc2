"""A record that is too long beside its examples: it is shown fewer before it fails or loses text."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from extractors.extraction import Extraction
from extractors.qwen.requests import CallError, ChatReply, ErrorKind, Purpose
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from tests.extractors.test_examples import GOLDEN, golden, recipe, shown


def too_long(message: str = "at most 100 tokens") -> CallError:
    return CallError(ErrorKind.TOO_LONG, message, "fake", http_status=400)


def test_a_record_that_is_too_long_beside_its_examples_is_asked_with_fewer(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=4, max_attempts=4)
    text = "Red pan with a lid, 8 €"
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    asked = []
    for _ in range(3):
        request = extraction.next_request()
        assert request is not None
        asked.append(request)
        extraction.receive(too_long())
    last = extraction.next_request()
    assert last is not None and (last.purpose, last.attempt) == (Purpose.EXTRACT, 4)

    of_all = shown(asked[0])
    assert shown(asked[1]) == [of_all[0], of_all[-1]], "those that stand for all, and those most like the record"
    assert shown(asked[2]) == [of_all[-1]]
    assert shown(last) == []
    assert {request.messages[-1] for request in (*asked, last)} == {last.messages[-1]}, "all of the record each time"


def test_a_value_of_an_example_that_is_shown_no_more_is_no_copy(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl", GOLDEN[:1]), examples_shown=1)
    text = "Red pan, 8 €"
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    extraction.receive(too_long())
    assert shown(extraction.next_request()) == []  # type: ignore[arg-type]
    extraction.receive(ChatReply('{"name":"Red pan","price":19.9}', "stop", Usage(1, 10, 10), model="fake"))

    assert isinstance(extraction.outcome, Extracted)
    assert extraction.outcome.value.price == Decimal("19.9")  # type: ignore[attr-defined]


def test_corrections_that_are_too_long_beside_their_examples_have_fewer_too(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=2, max_attempts=3)
    text = "Red pan, 8 €"
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    extraction.receive(ChatReply('{"name":"Red pan","price":"much"}', "stop", Usage(1, 10, 10), model="fake"))
    correction = extraction.next_request()
    assert correction is not None and correction.purpose is Purpose.CORRECT
    extraction.receive(too_long())
    again = extraction.next_request()

    assert again is not None and (again.purpose, again.attempt) == (Purpose.CORRECT, 3)
    assert (shown(again), again.messages[-1]) == (shown(correction)[1:], correction.messages[-1])
    extraction.receive(ChatReply('{"price":8}', "stop", Usage(1, 10, 10), model="fake"))
    assert isinstance(extraction.outcome, Extracted)


def test_an_answer_that_the_server_has_no_room_for_beside_the_examples_is_asked_with_fewer(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=2)
    text = "Red pan, 8 €"
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    first = extraction.next_request()
    assert first is not None
    extraction.receive(ChatReply('{"name":"Red', "length", Usage(1, 7000, 5), model="fake"))
    second = extraction.next_request()

    assert second is not None and (second.purpose, second.attempt) == (Purpose.EXTRACT, 2)
    assert (len(shown(first)), len(shown(second))) == (2, 1)
    assert second.max_output_tokens == first.max_output_tokens, "there was room enough by its own limit"


def test_a_text_that_is_longer_than_its_examples_is_shortened_before_them(tmp_path: Path) -> None:
    using = recipe(golden(tmp_path / "g.jsonl"), examples_shown=2)
    using = replace(using, policy=replace(using.policy, max_input_tokens=4000))
    text = "\n\n".join(f"Red pan number {number}, with a lid of its own, costs {number} €." for number in range(1, 26))
    extraction = Extraction(using, Record("r", text, content_fingerprint(text)))
    first = extraction.next_request()
    extraction.receive(too_long())
    second = extraction.next_request()

    assert first is not None and second is not None
    assert shown(second) == shown(first)
    assert len(second.messages[-1].content) < len(first.messages[-1].content)
