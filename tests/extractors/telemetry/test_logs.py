"""Log lines with the ids of run, chunk and record."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extractors.errors import JobError
from extractors.telemetry.ids import CHUNK, RECORD, RUN, current_ids, within
from extractors.telemetry.logs import JsonLines, TextWithIds, WithIds, log_format
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Fault


@pytest.fixture
def lines() -> Iterator[Any]:
    """What the ``extractors`` loggers say, as the JSON handler of the command line writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(WithIds())
    handler.setFormatter(JsonLines())
    ours = logging.getLogger("extractors")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    ours.removeHandler(handler)
    ours.setLevel(before)


def test_a_run_s_lines_say_which_run_chunk_and_record(lines: Any, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(lambda body: "no" if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        report = run_things(source, tmp_path / "out", qwen, max_attempts=1)
    told = lines()
    assert {line["run_id"] for line in told} == {report.run_id}
    (failed,) = [line for line in told if line["message"] == "a record failed: not_json"]
    assert failed["record_id"] == "r00003"
    commits = [line for line in told if line["message"].startswith("chunk committed")]
    assert failed["chunk_id"] in {line["chunk_id"] for line in commits}
    assert sum(line["rows"] for line in commits) == 11
    assert told[-1]["message"] == "run ends: completed"
    assert (told[-1]["rows"], told[-1]["failures"]) == (11, 1)


def test_a_line_of_a_policy_says_which_record_it_waited_for(lines: Any, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    good = '{"name":"thing-0000000","price":0.00}'
    with FakeQwen([Fault.status(503, "busy", "later"), good]) as qwen:
        run_things(source, tmp_path / "out", qwen)
    (waited,) = [line for line in lines() if line["logger"] == "extractors.retry"]
    assert (waited["record_id"], waited["level"]) == ("r00000", "INFO")


def test_ids_end_with_what_they_name() -> None:
    with within(RUN, "run"), within(CHUNK, "chunk"):
        with within(RECORD, "record"):
            assert current_ids() == {"run_id": "run", "chunk_id": "chunk", "record_id": "record"}
        assert current_ids() == {"run_id": "run", "chunk_id": "chunk"}
    assert current_ids() == {}


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "name": "x", "levelname": "INFO", **extra})
    WithIds().filter(made)
    return made


def test_a_line_is_one_json_object_whatever_it_says() -> None:
    with within(RECORD, "odd \ud800 id"):
        line = JsonLines().format(record("two\nlines", path=Path("/x")))
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines"
    assert json.loads(line)["path"] == "/x"


def test_an_exception_is_in_the_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        line = JsonLines().format(record("it broke", exc_info=(type(error), error, error.__traceback__)))
    assert "ValueError: why" in json.loads(line)["exception"]


def test_text_has_the_ids_behind_it() -> None:
    with within(RUN, "r1"):
        assert TextWithIds().format(record("hello")) == "hello [run_id=r1]"
    assert TextWithIds().format(record("hello")) == "hello"


def test_the_format_is_the_option_s_then_the_variable_s_then_text() -> None:
    assert log_format("json", {}) == log_format(None, {"QUARRY_LOG_FORMAT": "JSON"}) == "json"
    assert log_format("text", {"QUARRY_LOG_FORMAT": "json"}) == log_format(None, {}) == "text"
    with pytest.raises(JobError, match="no log format 'xml': choose text or json"):
        log_format("xml", {})
