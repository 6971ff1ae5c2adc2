"""A model that does not take what was sent is asked in another way: once for the run, and remembered."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.errors import BudgetReached
from extractors.fallback import ModeFallback
from extractors.learned import KEPT, Learned, Lesson
from extractors.limits import Limited
from extractors.qwen.modes import compile_shape
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import HttpTransport
from tests.fakes.qwen import FakeQwen, Fault, Rules

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ALL = (Mode.JSON_SCHEMA, Mode.JSON_OBJECT, Mode.TOOLS, Mode.PROMPTED)
GOOD = '{"name":"kettle"}'


def ask(mode: Mode = Mode.JSON_SCHEMA, model: str = "qwen3.7-plus", **more: Any) -> ChatRequest:
    messages = (Message("system", "Give the fields as one object."), Message("user", "a kettle"))
    return ChatRequest(model, messages, compile_shape("Thing", SCHEMA, mode), **more)


async def asked(
    qwen: FakeQwen,
    requests: Sequence[ChatRequest],
    *,
    modes: Sequence[Mode] = ALL,
    learned: Learned | None = None,
    concurrency: int = 64,
) -> list[ChatReply | CallError]:
    async with HttpTransport(
        qwen.base_url,
        api_key=SecretStr(""),
        pricing=Pricing.free(),
        profile=load_profiles().find("qwen3.7-plus"),
        timeout=20,
    ) as transport:
        fallback = ModeFallback(modes, host="here", learned=learned)
        call = fallback.asking(Limited(fallback.shaping(transport), concurrency=concurrency))
        return list(await asyncio.gather(*(call(request) for request in requests)))


def mode_of(body: dict[str, Any]) -> str:
    if "tools" in body:
        return "tools"
    return str(body.get("response_format", {}).get("type", "prompted"))


async def test_a_refused_mode_is_left_for_the_next_one_and_the_word_json_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakeQwen(GOOD, rules=Rules(schema_modes=False)) as qwen, caplog.at_level(logging.WARNING):
        [reply] = await asked(qwen, [ask()])
        seen = [mode_of(one.body) for one in qwen.requests]
        words = qwen.requests[-1].body["messages"][0]["content"]
    assert isinstance(reply, ChatReply)
    assert (reply.text, reply.mode) == (GOOD, Mode.JSON_OBJECT)
    assert seen == ["json_schema", "json_object"]
    assert "JSON" in words
    assert [(one.kind, one.mode) for one in reply.earlier] == [(ErrorKind.UNSUPPORTED, None)]
    [line] = [record.getMessage() for record in caplog.records]
    assert "json_object mode in the place of json_schema" in line
    assert "\n" not in line


async def test_a_ceiling_that_ends_the_asking_keeps_the_refusals_that_were_made() -> None:
    answers: list[Any] = [
        CallError(ErrorKind.UNSUPPORTED, "response_format is not supported", "m"),
        BudgetReached("up"),
    ]

    async def call(request: ChatRequest) -> ChatReply | CallError:
        answer = answers.pop(0)
        if isinstance(answer, BudgetReached):
            answer.earlier = (CallError(ErrorKind.OVERLOADED, "busy", "m"),)
            raise answer
        assert isinstance(answer, CallError)
        return answer

    fallback = ModeFallback(ALL, host="here")
    with pytest.raises(BudgetReached) as caught:
        await fallback.asking(fallback.shaping(call))(ask())
    assert [one.kind for one in caught.value.earlier] == [ErrorKind.UNSUPPORTED, ErrorKind.OVERLOADED]


async def test_calls_that_fail_together_move_on_by_one_mode_only() -> None:
    with FakeQwen(GOOD, rules=Rules(schema_modes=False), latency=0.05) as qwen:
        replies = await asked(qwen, [ask() for _ in range(20)])
        seen = [mode_of(one.body) for one in qwen.requests]
    assert {reply.mode for reply in replies} == {Mode.JSON_OBJECT}
    assert (seen.count("json_schema"), seen.count("json_object"), len(seen)) == (20, 20, 40)


async def test_a_call_that_waited_for_its_turn_goes_the_new_way_at_once() -> None:
    with FakeQwen(GOOD, rules=Rules(schema_modes=False)) as qwen:
        await asked(qwen, [ask() for _ in range(20)], concurrency=2)
        seen = [mode_of(one.body) for one in qwen.requests]
    assert seen.count("json_schema") <= 2
    assert seen.count("json_object") == 20


async def test_after_the_step_nothing_is_asked_in_the_refused_mode_any_more() -> None:
    with FakeQwen(GOOD, rules=Rules(schema_modes=False)) as qwen:
        learned = Learned()
        await asked(qwen, [ask()], learned=learned)
        qwen.forget()
        await asked(qwen, [ask() for _ in range(5)], learned=learned)
        assert [mode_of(one.body) for one in qwen.requests] == ["json_object"] * 5


async def test_the_modes_are_gone_through_to_the_last_and_then_the_refusal_is_the_result() -> None:
    def refuse(body: dict[str, Any]) -> str | Fault:
        if mode_of(body) == "prompted":
            return GOOD
        return Fault.status(400, "invalid_parameter_error", "response_format or tool_choice is not supported")

    with FakeQwen(refuse) as qwen:
        [reply] = await asked(qwen, [ask()])
        [error] = await asked(qwen, [ask()], modes=ALL[:2])
        seen = [mode_of(one.body) for one in qwen.requests]
    assert isinstance(reply, ChatReply) and reply.mode is Mode.PROMPTED
    assert seen[:4] == ["json_schema", "json_object", "tools", "prompted"]
    assert isinstance(error, CallError) and error.kind is ErrorKind.UNSUPPORTED
    assert seen[4:] == ["json_schema", "json_object"]


async def test_a_mode_that_was_asked_for_is_not_exchanged() -> None:
    with FakeQwen(GOOD, rules=Rules(schema_modes=False)) as qwen:
        [error] = await asked(qwen, [ask()], modes=(Mode.JSON_SCHEMA,))
        assert qwen.count == 1
    assert isinstance(error, CallError) and "leave --mode out" in error.message


async def test_a_correction_s_shape_moves_too() -> None:
    other = {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}, "required": ["price"]}
    correction = ChatRequest("qwen3.7-plus", ask().messages, compile_shape("Fix", other, Mode.JSON_SCHEMA))
    rules = Rules(schema_modes=False)
    with FakeQwen(GOOD, rules=rules) as qwen:
        await asked(qwen, [ask(), correction], modes=(Mode.JSON_SCHEMA, Mode.TOOLS))
        tools = [one.body["tools"][0]["function"] for one in qwen.requests if "tools" in one.body]
    assert {tool["name"]: list(tool["parameters"]["properties"]) for tool in tools} == {
        "Thing": ["name"],
        "Fix": ["price"],
    }


async def test_a_refused_thinking_switch_is_left_out() -> None:
    with FakeQwen(GOOD) as qwen:
        learned = Learned()
        [reply] = await asked(qwen, [ask(Mode.JSON_OBJECT, "qwen-max", thinking=False)], learned=learned)
        assert [one.body.get("enable_thinking", "none") for one in qwen.requests] == [False, "none"]
        [again] = await asked(qwen, [ask(Mode.JSON_OBJECT, "qwen-max", thinking=False)], learned=learned)
        assert qwen.count == 3
    assert isinstance(reply, ChatReply) and isinstance(again, ChatReply)
    assert learned.about("here", "qwen-max").switch == "omit"
    assert reply.mode is None, "the mode was not at fault"


async def test_a_model_that_must_think_is_told_to_and_moves_to_a_mode_that_allows_it() -> None:
    with FakeQwen(GOOD) as qwen:
        request = ask(Mode.JSON_OBJECT, "qwen3-235b-thinking", thinking=False)
        [reply] = await asked(qwen, [request], modes=ALL[1:])
        sent = [(one.body.get("enable_thinking"), mode_of(one.body)) for one in qwen.requests]
    assert isinstance(reply, ChatReply) and reply.mode is Mode.PROMPTED
    assert sent == [(False, "json_object"), (True, "json_object"), (True, "tools"), (True, "prompted")]


async def test_a_model_that_thinks_unasked_is_told_not_to() -> None:
    def thinks_by_default(body: dict[str, Any]) -> str | Fault:
        if body.get("enable_thinking") is False:
            return GOOD
        return Fault.status(400, None, "parameter.enable_thinking must be set to false for non-streaming calls")

    with FakeQwen(thinks_by_default) as qwen:
        [reply] = await asked(qwen, [ask(Mode.JSON_OBJECT)])
        assert qwen.count == 2
    assert isinstance(reply, ChatReply)


async def test_a_model_that_cannot_think_is_not_quietly_asked_without() -> None:
    with FakeQwen(GOOD) as qwen:
        [error] = await asked(qwen, [ask(Mode.PROMPTED, "qwen-max", thinking=True, thinking_budget=100)])
        assert qwen.count == 1
    assert isinstance(error, CallError)


async def test_other_errors_teach_nothing() -> None:
    learned = Learned()
    with FakeQwen(Fault.status(400, "invalid_parameter_error", "Range of seed should be [0, 2147483647]")) as qwen:
        [error] = await asked(qwen, [ask()], learned=learned)
        assert qwen.count == 1
    assert isinstance(error, CallError) and error.kind is ErrorKind.BAD_REQUEST
    assert list(learned) == []


# Remembering ----------------------------------------------------------------------------------------


async def test_what_was_learned_is_on_disk_for_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "learned.json"
    with FakeQwen(GOOD, rules=Rules(schema_modes=False)) as qwen:
        await asked(qwen, [ask()], learned=Learned(file))
        await asked(qwen, [ask()], learned=Learned(file))
        assert [mode_of(one.body) for one in qwen.requests] == ["json_schema", "json_object", "json_object"]
    [(host, model, lesson)] = Learned(file)
    assert (host, model, lesson.refused, lesson.dated) == (
        "here",
        "qwen3.7-plus",
        (Mode.JSON_SCHEMA,),
        date.today().isoformat(),
    )
    assert "json_schema" in lesson.said
    assert Learned(file).forget("qwen3.7-plus") == 1
    assert not file.exists()


def test_two_runs_add_to_one_file(tmp_path: Path) -> None:
    one, other = Learned(tmp_path / "l.json"), Learned(tmp_path / "l.json")
    one.note("h", "a", Lesson(switch="omit"))
    other.note("h", "b", Lesson(refused=(Mode.TOOLS,)))
    assert [model for _, model, _ in Learned(tmp_path / "l.json")] == ["a", "b"]


def test_a_lesson_is_forgotten_after_a_month(tmp_path: Path) -> None:
    Learned(tmp_path / "l.json").note("h", "m", Lesson(switch="off"))
    later = Learned(tmp_path / "l.json", today=lambda: date.today() + KEPT + timedelta(days=1))
    assert later.about("h", "m") == Lesson()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lessons":[{"host":"h"}]}', json.dumps({"lessons": [1]})])
def test_a_broken_file_is_learned_again(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "l.json"
    file.write_text(text)
    learned = Learned(file)
    assert list(learned) == []
    learned.note("h", "m", Lesson(switch="on"))
    assert Learned(file).about("h", "m").switch == "on"


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    Learned(tmp_path / "file" / "l.json").note("h", "m", Lesson(switch="on"))
    assert "not remembered" in caplog.text


def test_a_question_has_the_same_name_in_every_mode_and_with_every_switch() -> None:
    names = {ask(mode, thinking=off).digest() for mode in ALL for off in (None, False)}
    assert len(names) == 1
    assert ask(thinking=True, thinking_budget=9).digest() not in names
