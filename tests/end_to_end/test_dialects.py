"""The same job through every dialect, streamed or not: the same rows, from the command line to the Parquet file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.store.catalog import current_rows, query
from tests.end_to_end.test_cli import SCHEMA, quarry, told
from tests.end_to_end.things import Thing, job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Fault

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "dashscope": "/api/v1/services/aigc/text-generation/generation",
}


def rows(out: Path) -> list[dict[str, Any]]:
    """What a run found, with the evidence, in the source's order."""
    found = current_rows(out).to_pylist()
    kept = ("record_id", "name", "price", "_evidence", "_fingerprint")
    return sorted(({name: row.get(name) for name in kept} for row in found), key=lambda row: str(row["record_id"]))


@pytest.mark.parametrize("mode", ["json_object", "tools", "prompted"])
def test_the_rows_are_the_same_in_every_dialect_streamed_or_not(tmp_path: Path, mode: str) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    found = {}
    with FakeQwen(thing_answer) as qwen:
        for dialect, path in PATHS.items():
            for stream in ("never", "always"):
                qwen.forget()
                out = tmp_path / f"{dialect}-{stream}"
                report = run_things(source, out, qwen, dialect=dialect, stream=stream, mode=mode)
                assert (report.rows, report.failures, qwen.count) == (12, 0, 12)
                assert {seen.path for seen in qwen.requests} == {path}
                accepts = {seen.headers["accept"] for seen in qwen.requests}
                assert accepts == {"text/event-stream" if stream == "always" else "application/json"}
                found[dialect, stream] = rows(out)
                kept = query(out, "select distinct dialect, finish_reason from thing_calls").to_pylist()
                reason = "tool_calls" if mode == "tools" else "stop"
                assert kept == [{"dialect": dialect, "finish_reason": reason}]
    assert all(one == found["chat", "never"] for one in found.values())


@pytest.mark.parametrize("dialect", ["chat", "responses", "dashscope"])
def test_a_model_that_sees_gives_the_same_rows_too(tmp_path: Path, dialect: str) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))
    profiles = tmp_path / "profiles.toml"
    profiles.write_text('[[model]]\nname = "sees"\nmatch = ["qwen3-vl-*"]\nvision = true\nmodes = ["json_object"]\n')
    with FakeQwen(thing_answer) as qwen:
        for stream in ("never", "always"):
            job = job_for(source, tmp_path / stream, qwen, model="qwen3-vl-plus", dialect=dialect, stream=stream)
            assert run(job, settings=Settings(profiles=profiles)).rows == 4
        if dialect == "dashscope":
            assert {seen.path.split("/")[-2] for seen in qwen.requests} == {"multimodal-generation"}
    assert rows(tmp_path / "never") == rows(tmp_path / "always")


def test_the_native_address_of_the_environment_is_used_for_the_native_dialect(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer) as compat, FakeQwen(thing_answer) as native:
        settings = Settings(base_url=compat.base_url, dashscope_url=native.native_url)
        for dialect in ("dashscope", "chat"):
            job = job_for(source, tmp_path / dialect, "", dialect=dialect).model_copy(update={"base_url": None})
            assert run(job, settings=settings).rows == 3
        assert (compat.count, native.count) == (3, 3)
        only = job_for(source, tmp_path / "only", "", dialect="dashscope").model_copy(update={"base_url": None})
        assert run(only, settings=Settings(dashscope_url=native.native_url)).rows == 3
        assert (compat.count, native.count) == (3, 6)


def test_the_command_line_takes_the_dialect_and_the_streaming(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(thing_answer) as qwen:
        done = quarry("run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "out"), "--id", "id",
                      "--base-url", qwen.base_url, "--model", "qwen-plus", "--json",
                      "--dialect", "responses", "--stream", "always")  # fmt: skip
        assert told(done)["rows"] == 3
        assert {seen.path for seen in qwen.requests} == {"/v1/responses"}
        assert all(seen.body["stream"] for seen in qwen.requests)
    assert len(rows(tmp_path / "out")) == 3


def test_the_embedded_model_speaks_chat_only(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    job = job_for(source, tmp_path / "out", "", dialect="dashscope", model="local-1.5b")
    with pytest.raises(JobError, match="speaks chat"):
        run(job.model_copy(update={"base_url": None}), settings=Settings())


class Order(BaseModel):
    """An order's items."""

    items: list[Thing]


ITEMS = [{"name": f"thing-{number}", "price": number + 0.5} for number in range(30)]


@pytest.mark.parametrize("mode", ["json_object", "tools"])
@pytest.mark.parametrize("dialect", ["chat", "responses", "dashscope"])
def test_of_a_list_whose_stream_was_cut_only_the_rest_is_asked(tmp_path: Path, dialect: str, mode: str) -> None:
    text = "We ordered " + ", ".join(f"{item['name']} for {item['price']}" for item in ITEMS)
    source = tmp_path / "orders.jsonl"
    source.write_text(json.dumps({"id": "o1", "text": text}) + "\n")
    asked: list[Any] = []

    def answer(body: Any) -> str | Fault:
        asked.append(body)
        if len(asked) == 1:
            return Fault.cut(json.dumps({"items": ITEMS}))
        done = int(re.search(r"(\d+) items of \S+ were whole", body["messages"][-1]["content"])[1])  # type: ignore[index]
        return json.dumps({"items": ITEMS[done:]})

    with FakeQwen(answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, dialect=dialect, mode=mode, stream="always")
        report = run(job, schema=Order, settings=Settings())
    assert (report.rows, report.calls, len(asked)) == (1, 2, 2)
    (row,) = current_rows(tmp_path / "out").to_pylist()
    assert [item["name"] for item in row["items"]] == [item["name"] for item in ITEMS]
    end = "tool_calls" if mode == "tools" else "stop"
    told = query(tmp_path / "out", "select purpose, finish_reason from order_calls order by started_at").to_pylist()
    assert [tuple(call.values()) for call in told] == [("extract", "cut"), ("continue", end)]
