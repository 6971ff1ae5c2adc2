"""A key is nowhere: not in a file of the output, a log, an exception, a repr, or a parameter."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from extractors.endpoint import Settings, resolve_endpoint
from extractors.errors import JobError, KeyRejected, QuarryError
from extractors.pipeline import run
from schemas.job import ExtractionJob
from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Fault, Rules

KEY = "sk-MARKED0123456789abcdef"


def echo(body: dict[str, Any]) -> Fault:
    """A service that repeats the key in its error, as gateways do."""
    return Fault.status(401, "invalid_api_key", f"Incorrect API key provided: {KEY}. See the docs.")


def leaks(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if b"MARKED" in text:
            found.append(str(path))
    return found


def test_a_run_that_succeeds_leaves_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_things(tmp_path / "things.jsonl", range(5))
    settings = Settings(api_key=SecretStr(KEY), learned=tmp_path / "home" / "learned.json")
    rules = Rules(api_key=KEY, schema_modes=False)
    with caplog.at_level(logging.DEBUG), FakeQwen(thing_answer, rules=rules) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen, model="qwen3.7-plus"), settings=settings)
        assert qwen.requests[0].headers["authorization"] == f"Bearer {KEY}", "the key is sent"
    assert report.rows == 5
    assert (tmp_path / "home" / "learned.json").is_file()
    assert leaks(tmp_path) == []
    assert "MARKED" not in caplog.text
    assert "MARKED" not in json.dumps(report.as_dict(), default=str)


def test_a_run_that_fails_leaves_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_things(tmp_path / "things.jsonl", range(5))
    with caplog.at_level(logging.DEBUG), FakeQwen(echo) as qwen, pytest.raises(KeyRejected) as caught:
        run(job_for(source, tmp_path / "out", qwen), settings=Settings(api_key=SecretStr(KEY)))
    whole = "".join(traceback.format_exception(caught.value))
    assert "MARKED" not in whole + repr(caught.value) + caplog.text
    assert leaks(tmp_path) == []


def test_records_that_fail_leave_no_key_in_the_ledger(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    fault = Fault.status(400, "invalid_parameter_error", f"you sent Authorization: Bearer {KEY}")
    with FakeQwen(fault) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen), settings=Settings(api_key=SecretStr(KEY)))
    assert report.failures == 3
    assert leaks(tmp_path) == []


@pytest.mark.parametrize("spelled", [r"gw\/MARKED+a\u0026b", r"gw\u002fMARKED\u002ba\u0026b", "gw/MARKED+a&b"])
def test_a_key_that_json_spells_in_another_way_is_found_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spelled: str
) -> None:
    """PHP writes a slash as ``\\/``, Go an ampersand as an escape; keys of gateways may hold both."""
    source = write_things(tmp_path / "things.jsonl", range(2))
    body = b'{"error":{"code":"invalid_parameter_error","message":"you sent %b"}}' % spelled.encode()
    with caplog.at_level(logging.DEBUG), FakeQwen(Fault.raw(400, body)) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen), settings=Settings(api_key=SecretStr("gw/MARKED+a&b")))
    assert report.failures == 2
    assert leaks(tmp_path) == []
    assert "MARKED" not in caplog.text


def test_an_address_with_a_password_in_it_is_refused_unrepeated(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with pytest.raises(JobError, match="a name or password in it is refused") as caught:
        run(job_for(source, tmp_path / "out", "http://me:MARKED@127.0.0.1:9/v1"), settings=Settings())
    assert "MARKED" not in str(caught.value)
    assert leaks(tmp_path) == []


def test_a_key_that_cannot_be_a_header_is_not_repeated(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    with FakeQwen("{}") as qwen, pytest.raises(QuarryError) as caught:
        run(job_for(source, tmp_path / "out", qwen), settings=Settings(api_key=SecretStr(f"{KEY}\nx")))
    assert "MARKED" not in "".join(traceback.format_exception(caught.value))


def test_neither_the_flow_s_parameters_nor_the_endpoint_show_a_key(tmp_path: Path) -> None:
    from flows.extract import extract

    settings = Settings(api_key=SecretStr(KEY))
    job = job_for(tmp_path / "x.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1")
    assert list(extract.parameters.properties) == ["job"], "what a flow run stores is the job"
    assert not any("key" in name for name in ExtractionJob.model_fields)
    endpoint = resolve_endpoint(job, settings)
    for shown in (repr(endpoint), str(endpoint.api_key), job.model_dump_json(), repr(settings.credentials)):
        assert "MARKED" not in shown
