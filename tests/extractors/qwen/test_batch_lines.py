"""Lines and objects of the files and batches API, as documented and as met."""

from __future__ import annotations

import orjson
import pytest

from extractors.errors import JobError
from extractors.qwen.batch import (
    BatchStatus,
    check_window,
    custom_id_in,
    error_code,
    read_batch,
    read_result,
    request_line,
    result_of,
)
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply, ErrorKind

FREE = Pricing.free()


def result(line: dict[str, object]) -> ChatReply | CallError:
    found = read_result(orjson.dumps(line))
    assert found is not None
    return result_of(found, model="qwen-plus", pricing=FREE)


def test_a_request_line_is_the_documented_object() -> None:
    line = request_line("a1-01-ff", b'{"model":"qwen-plus"}')
    assert line.endswith(b"\n")
    assert orjson.loads(line) == {
        "custom_id": "a1-01-ff", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "qwen-plus"},
    }  # fmt: skip
    assert custom_id_in(line) == "a1-01-ff"


@pytest.mark.parametrize("window", ["24h", "336h", "1d", "14d"])
def test_windows_that_the_service_takes(window: str) -> None:
    assert check_window(window) == window


@pytest.mark.parametrize("window", ["23h", "337h", "15d", "0d", "24", "1.5d", "24H", ""])
def test_other_windows_are_refused_before_anything_is_sent(window: str) -> None:
    with pytest.raises(JobError, match="24h to 336h"):
        check_window(window)


def test_an_answer_whose_message_lacks_a_role() -> None:
    body = {
        "choices": [{"finish_reason": "stop", "message": {"content": "{}"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        "model": "qwen-plus",
    }
    reply = result({"id": "1", "custom_id": "x", "response": {"status_code": 200, "body": body}, "error": None})
    assert isinstance(reply, ChatReply)
    assert (reply.text, reply.usage.input_tokens) == ("{}", 3)


def test_a_failed_line_in_the_output_file_is_an_error_by_its_own_status() -> None:
    body = {"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}}
    error = result({"custom_id": "x", "response": {"status_code": 400, "body": body}, "error": None})
    assert isinstance(error, CallError)
    assert error.kind is ErrorKind.REFUSED


@pytest.mark.parametrize("names", [("code", "message"), ("error_code", "error_message")])
def test_an_error_in_either_spelling(names: tuple[str, str]) -> None:
    line = {"custom_id": "x", "response": None, "error": dict(zip(names, ("batch_expired", "too late"), strict=True))}
    found = read_result(orjson.dumps(line))
    assert found is not None
    assert error_code(found) == "batch_expired"
    error = result_of(found, model="qwen-plus", pricing=FREE)
    assert isinstance(error, CallError)
    assert "too late" in error.message


def test_a_line_that_is_no_result_is_nothing() -> None:
    assert read_result(b'{"cut": "in the mid') is None
    assert read_result(b"[1]") is None


def test_a_batch_object_with_its_counts_and_problems() -> None:
    batch = read_batch(
        {
            "id": "b1", "status": "failed", "input_file_id": "f1", "output_file_id": None,
            "request_counts": {"total": 3, "completed": 2, "failed": 1}, "metadata": {"ds_name": "n"},
            "errors": {"data": [{"code": "duplicate_custom_id", "message": "twice", "line": 2}]},
        }
    )  # fmt: skip
    assert batch.status is BatchStatus.FAILED
    assert batch.status.ended
    assert (batch.total, batch.completed, batch.failed, batch.metadata["ds_name"]) == (3, 2, 1, "n")
    assert batch.problems[0].line == 2


def test_an_unknown_status_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="resting"):
        read_batch({"id": "b1", "status": "resting"})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InternalError", ErrorKind.OVERLOADED),
        ("invalid_parameter_error", ErrorKind.BAD_REQUEST),
        ("data_inspection_failed", ErrorKind.REFUSED),
    ],
)
def test_an_error_without_a_status_is_judged_by_its_code(code: str, kind: ErrorKind) -> None:
    error = result({"custom_id": "x", "response": None, "error": {"code": code, "message": "no"}})
    assert isinstance(error, CallError)
    assert error.kind is kind
