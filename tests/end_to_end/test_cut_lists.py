"""Lists that are cut off, over real HTTP: what was whole is not asked for twice, and not paid for twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.store.catalog import current_rows, query
from schemas.job import ExtractionJob
from tests.fakes.qwen import FakeQwen, Reply

WORDS = [f"word{n}" for n in range(30)]


class Item(BaseModel):
    name: str


class Order(BaseModel):
    number: str
    items: list[Item]
    total: int | None = None


def answer(body: Any) -> Reply:
    """Ten items an answer, then the output limit."""
    asked = body["messages"][-1]["content"]
    done = 0
    if "was cut off" in asked:
        done = int(asked.split("was cut off. ")[1].split(" ")[0])
    items = [{"name": word} for word in WORDS[done : done + 10]]
    if done + 10 >= len(WORDS):
        return Reply(json.dumps({"items": items, "total": 30}))
    head = {"number": "7"} if not done else {}
    return Reply(json.dumps({**head, "items": items})[:-2] + ', {"name": "wo', "length")


@pytest.mark.parametrize("dialect", ["chat", "responses", "dashscope"])
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_long_list_is_put_together_from_its_parts(tmp_path: Path, dialect: str, stream: str) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text(json.dumps({"id": "1", "text": "Order 7: " + " ".join(WORDS)}) + "\n")
    given = {"source": str(source), "schema": "tests.end_to_end.test_cut_lists:Order", "out": str(tmp_path / "out")}
    with FakeQwen(answer) as qwen:
        options = {"model": "qwen3-max", "base_url": qwen.base_url, "dialect": dialect, "stream": stream}
        report = run(ExtractionJob.model_validate({**given, **options}), settings=Settings())
        assert (report.rows, report.calls, qwen.count) == (1, 3, 3)
    [row] = current_rows(tmp_path / "out").to_pylist()
    assert [item["name"] for item in row["items"]] == WORDS
    assert (row["number"], row["total"]) == ("7", 30)
    calls = query(tmp_path / "out", "select purpose, output_tokens from order_calls order by attempt").to_pylist()
    assert [call["purpose"] for call in calls] == ["extract", "continue", "continue"]
    assert sum(call["output_tokens"] for call in calls) < 1.6 * 30 * 6, "the parts cost about what the whole does"
