"""One output folder with several recipes of one schema, and recipes that are not any more what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.retrying import retry_jobs
from extractors.store.catalog import outputs
from flows.cli.inspect import show_failures
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

_NAME = {"title": "thing", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_failures_are_counted_once_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(lambda body: "no") as qwen:
        for temperature in (0.0, 0.1):
            run_things(source, tmp_path / "out", qwen, temperature=temperature, max_attempts=1)
    show_failures(tmp_path / "out", where=None, limit=20, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["open"], told["by_reason"], len(told["failures"])) == (6, {"not_json": 6}, 6)
    assert len({(one["recipe"], one["record_id"]) for one in told["failures"]}) == 6


def test_a_retry_of_a_schema_that_has_changed_says_so_and_asks_nothing(tmp_path: Path) -> None:
    source, schema = write_things(tmp_path / "things.jsonl", range(3)), tmp_path / "thing.json"
    schema.write_text(json.dumps(_NAME))
    with FakeQwen(lambda body: "no") as qwen:
        run_things(source, tmp_path / "out", qwen, schema=str(schema), max_attempts=1)
    schema.write_text(json.dumps({**_NAME, "properties": {"name": {"type": "string"}, "price": {"type": "number"}}}))
    with FakeQwen(thing_answer) as qwen:
        [again] = retry_jobs(tmp_path / "out", changes={"base_url": qwen.base_url})
        with pytest.raises(JobError, match="have changed since"):
            run(again.job, source=again.source, retry=again.selection, settings=Settings())
        assert qwen.count == 0
    assert [(one.rows, one.failures) for one in outputs(tmp_path / "out")] == [(0, 3)]
