"""Modes and thinking over whole runs: rows keep their recipe, nothing is paid for again, thoughts are no answers."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.qwen.profiles import load_profiles
from extractors.store.catalog import current_rows, query
from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Reply, Rules

MODEL = "qwen3.7-plus"


def own_profiles(path: Path, text: str) -> Path:
    path.write_text(f'[[model]]\nname = "{MODEL}"\n{text}\n')
    return path


def test_a_learned_mode_changes_neither_the_recipe_nor_what_is_paid(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    settings = Settings(learned=tmp_path / "learned.json")
    with FakeQwen(thing_answer, rules=Rules(schema_modes=False)) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model=MODEL, concurrency=1)
        first = run(job, settings=settings)
        assert (first.rows, qwen.count) == (12, 13), "one refusal, then the other mode for all"
        again = run(job, settings=settings)
        assert (again.recipe, again.skipped, qwen.count) == (first.recipe, 12, 13)
        write_things(source, range(15))
        more = run(job, settings=settings)
        assert (more.recipe, more.rows, qwen.count) == (first.recipe, 3, 16), "the lesson is still known"
    told = query(
        tmp_path / "out", "select mode, status, count(*) from thing_calls group by all order by all"
    ).to_pylist()
    assert [tuple(row.values()) for row in told] == [
        ("json_object", "ok", 15),
        ("json_schema", "unsupported", 1),
    ]


def test_a_profile_that_changes_its_modes_keeps_the_recipe_and_an_explicit_mode_does_not(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    profiles = own_profiles(tmp_path / "p.toml", 'modes = ["tools", "prompted"]')
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model=MODEL)
        first = run(job, settings=Settings())
        changed = run(job, settings=Settings(profiles=profiles))
        asked_for = run(job.model_copy(update={"mode": "tools"}), settings=Settings())
    assert (changed.recipe, changed.skipped) == (first.recipe, 3)
    assert asked_for.recipe != first.recipe and asked_for.rows == 3


# Thinking -------------------------------------------------------------------------------------------


def test_extraction_does_not_think_unless_it_is_told_to(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(thing_answer) as qwen:
        for model in (MODEL, "qwen-plus", "qwen-max"):
            run(job_for(source, tmp_path / model, qwen, model=model), settings=Settings())
        sent = {one.body["model"]: one.body.get("enable_thinking", "nothing") for one in qwen.requests}
    assert sent == {MODEL: False, "qwen-plus": False, "qwen-max": "nothing"}


def test_a_thinking_budget_is_sent_with_a_mode_that_allows_it_and_makes_another_recipe(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    profiles = own_profiles(tmp_path / "p.toml", "stream_only_thinking = false\nthinking_modes = ['prompted']")
    settings = Settings(profiles=profiles)
    with FakeQwen(lambda body: Reply(thing_answer(body), thinking='{"name": "a thought", "price": 1}')) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model=MODEL, stream="never")
        plain = run(job, settings=settings)
        qwen.forget()
        thought = run(job.model_copy(update={"thinking": 500}), settings=settings)
        body = qwen.requests[0].body
    assert (body["enable_thinking"], body["thinking_budget"], "response_format" in body) == (True, 500, False)
    assert thought.recipe != plain.recipe and thought.rows == 2
    names = current_rows(tmp_path / "out", name="thing", recipe=thought.recipe).column("name").to_pylist()
    assert sorted(names) == ["thing-0000000", "thing-0000001"]


def test_the_worst_case_of_a_thinking_call_follows_the_budget_that_was_asked_for(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))
    profiles = own_profiles(tmp_path / "p.toml", "stream_only_thinking = false\nthinking_modes = ['prompted']")

    def asked(thinking: int) -> int:
        with FakeQwen(thing_answer) as qwen:
            job = job_for(
                source, tmp_path / f"out{thinking}", qwen, model=MODEL, thinking=thinking, stream="never",
                max_output_tokens=16, max_cost=Decimal("0.004"), concurrency=1,
            )  # fmt: skip
            run(job, settings=Settings(profiles=profiles))
            return qwen.count

    # 1.60 per million output tokens: 2,000 thoughts are 0.0032, and 20,000 are 0.032.
    assert asked(2_000) > 0
    assert asked(20_000) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "qwen-max", "thinking": 100}, "qwen-max cannot think"),
        ({"model": "local-0.5b", "thinking": 100, "base_url": None}, "local-0.5b cannot think"),
        ({"model": MODEL, "thinking": 10_000_000}, "tokens at most"),
        ({"model": "qwen-plus", "thinking": 100, "mode": "json_object"}, "cannot be used while the model thinks"),
    ],
)
def test_thinking_that_cannot_be_is_refused_before_the_first_call(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    job = job_for(source, tmp_path / "out", "http://127.0.0.1:9/v1", **options)
    with pytest.raises(JobError, match=words):
        run(job, settings=Settings())


@pytest.mark.parametrize(
    "leak",
    [
        '<think>\nIs it {"name": "draft", "price": 1}?\n</think>\n{answer}',
        '{"name": "draft", "price": 1}\n</think>\n\n{answer}',
        "<think></think>{answer}",
        '<think>one</think>\n<think>{"name": "two"}</think>```json\n{answer}\n```',
    ],
)
@pytest.mark.parametrize("stream", ["never", "always"])
def test_thoughts_that_leak_into_the_answer_never_become_the_row(tmp_path: Path, leak: str, stream: str) -> None:
    source = write_things(tmp_path / "things.jsonl", [7])
    with FakeQwen(lambda body: leak.replace("{answer}", thing_answer(body))) as qwen:
        run(job_for(source, tmp_path / "out", qwen, stream=stream), settings=Settings())
    assert current_rows(tmp_path / "out").column("name").to_pylist() == ["thing-0000007"]


@pytest.mark.parametrize("text", ["", '<think>{"name": "draft", "price": 1}', None])
def test_an_answer_that_is_only_thought_is_asked_again(tmp_path: Path, text: str | None) -> None:
    source = write_things(tmp_path / "things.jsonl", [7])
    draft = json.dumps({"name": "draft", "price": 1})
    seen: list[Any] = []

    def answer(body: dict[str, Any]) -> str | Reply:
        seen.append(body)
        return Reply(text, thinking=draft) if len(seen) == 1 else thing_answer(body)

    with FakeQwen(answer) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen), settings=Settings())
        assert qwen.count == 2
    assert report.rows == 1
    assert current_rows(tmp_path / "out").column("name").to_pylist() == ["thing-0000007"]


def test_while_it_thinks_the_reply_is_streamed_where_the_model_answers_in_no_other_way(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(
        lambda body: Reply(thing_answer(body), thinking='{"name": "a thought", "price": 1}'), rules=Rules.documented()
    ) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model="qwen-plus", thinking=300)
        report = run(job, settings=Settings())
        bodies = [one.body for one in qwen.requests]
    assert [(one.get("stream"), one["enable_thinking"], one["thinking_budget"]) for one in bodies] == [
        (True, True, 300)
    ] * 2
    assert report.rows == 2
    names = sorted(current_rows(tmp_path / "out").column("name").to_pylist())
    assert names == ["thing-0000000", "thing-0000001"]


@pytest.mark.parametrize("model", ["qwen3.8-max", "qwen3.7-plus", "qwen3.6-plus", "qwen3.5-flash", "qwen-plus", "qwen-turbo", "qwen3-max", "qwen-max", "qwen-long", "qwen3-coder-plus", "qwen3-vl-plus", "qwen-vl-max", "qwen-vl-ocr", "qwq-plus"])  # fmt: skip
def test_every_family_is_asked_as_its_documents_want_it(tmp_path: Path, model: str) -> None:
    """The service's documented rules, a table of its own, find nothing to refuse in what the profiles send."""
    source = write_things(tmp_path / "things.jsonl", range(2))
    # A price of its own keeps the hosted row on this machine, where nameless ones count as self-hosted.
    profile = load_profiles().find(model)
    own = tmp_path / "p.toml"
    own.write_text(f'[[model]]\nname = "{profile.name}"\ndated = ""\n')
    with FakeQwen(thing_answer, rules=Rules.documented()) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen, model=model), settings=Settings(profiles=own))
        assert (report.rows, qwen.count) == (2, 2), qwen.requests[0].body


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "tools", "prompted"])
def test_each_mode_brings_the_same_rows(tmp_path: Path, mode: str) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer, rules=Rules.documented()) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen, model=MODEL, mode=mode), settings=Settings())
    assert report.rows == 3
    assert query(tmp_path / "out", "select distinct mode from thing_calls").to_pylist() == [{"mode": mode}]
