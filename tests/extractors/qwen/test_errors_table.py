"""Every row of the table, met over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from pydantic import SecretStr

from extractors.qwen.errors_table import TABLE, classify, patience
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import AnswerShape, CallError, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import HttpTransport
from tests.fakes.qwen import FakeQwen, Fault

K = ErrorKind
REQUEST = ChatRequest("qwen-plus", (Message("user", "json"),), AnswerShape("a", {}, Mode.PROMPTED))

CASES = [
    # status, code, message, kind
    (429, "Throttling", "", K.RATE_LIMITED),
    (429, "Throttling.RateQuota", "", K.RATE_LIMITED),
    (429, "limit_requests", "", K.RATE_LIMITED),
    (429, "LimitRequests", "", K.RATE_LIMITED),
    (429, "Throttling.BurstRate", "", K.RATE_LIMITED),
    (429, "limit_burst_rate", "", K.RATE_LIMITED),
    (429, "Throttling.AllocationQuota", "Allocated quota exceeded", K.RATE_LIMITED),
    (429, "insufficient_quota", "You exceeded your current quota", K.RATE_LIMITED),
    (429, "insufficient_quota", "Free allocated quota exceeded.", K.KEY),
    (429, "Throttling.ServiceOverloaded", "", K.OVERLOADED),
    (429, "CommodityNotPurchased", "", K.KEY),
    (429, "PrepaidBillOverdue", "", K.KEY),
    (429, "PostpaidBillOverdue", "", K.KEY),
    (429, "BudgetLimitExceeded", "", K.KEY),
    (429, "something_new", "", K.RATE_LIMITED),
    (400, "InvalidParameter", "", K.BAD_REQUEST),
    (400, "invalid_parameter_error", "", K.BAD_REQUEST),
    (400, "invalid_request_error", "", K.BAD_REQUEST),
    (400, "InternalError.Algo.InvalidParameter", "", K.BAD_REQUEST),
    (400, "InvalidParameter.NotSupportEnableThinking", "", K.UNSUPPORTED),
    (400, "invalid_parameter_error", "<400> InternalError.Algo.InvalidParameter: tool_choice", K.UNSUPPORTED),
    (400, "DataInspectionFailed", "", K.REFUSED),
    (400, "data_inspection_failed", "Output data may contain inappropriate content.", K.REFUSED),
    (400, "invalid_parameter_error", "<400> InternalError.Algo.DataInspectionFailed: Input ...", K.REFUSED),
    (400, "IPInfringementSuspect", "", K.REFUSED),
    (400, "FaqRuleBlocked", "", K.REFUSED),
    (400, "CustomRoleBlocked", "", K.REFUSED),
    (400, "Arrearage", "Access denied, please make sure your account is in good standing.", K.KEY),
    (400, "InvalidParameter", "Range of input length should be [1, 30720]", K.TOO_LONG),
    (400, "exceed_context_size_error", "the request exceeds the available context size", K.TOO_LONG),
    (400, "context_length_exceeded", "This model's maximum context length is 8192 tokens", K.TOO_LONG),
    (413, "RequestTooLarge", "", K.TOO_LONG),
    (413, None, "", K.TOO_LONG),
    (
        400,
        "DataInspectionFailed",
        "Download the media resource timed out during the data inspection process.",
        K.TIMED_OUT,
    ),
    (400, "Model.NotExist", "Model not exist.", K.MODEL),
    (401, "InvalidApiKey", "", K.KEY),
    (401, "invalid_api_key", "Incorrect API key provided.", K.KEY),
    (401, "NOT AUTHORIZED", "", K.KEY),
    (401, "something_new", "", K.KEY),
    (402, "insufficient_balance", "", K.KEY),
    (403, "AccessDenied", "", K.KEY),
    (403, "AccessDenied.Unpurchased", "", K.KEY),
    (403, "Model.AccessDenied", "", K.KEY),
    (403, "Workspace.AccessDenied", "", K.KEY),
    (403, "AllocationQuota.FreeTierOnly", "", K.KEY),
    (403, "forbidden_words", "", K.BAD_REQUEST),
    (404, "ModelNotFound", "", K.MODEL),
    (404, "model_not_found", "", K.MODEL),
    (404, "model_not_supported", "", K.MODEL),
    (404, "WorkSpaceNotFound", "", K.MODEL),
    (404, "NotFound", "", K.MODEL),
    (405, "MethodNotAllowed", "", K.BAD_REQUEST),
    (307, None, "", K.MODEL),
    (408, None, "", K.TIMED_OUT),
    (409, None, "", K.OVERLOADED),
    (422, "whatever", "", K.BAD_REQUEST),
    (500, "InternalError", "", K.OVERLOADED),
    (500, "internal_error", "", K.OVERLOADED),
    (500, "InternalError.Algo", "Expecting ',' delimiter: line 1 column 9", K.OVERLOADED),
    (500, "InternalError.Timeout", "", K.OVERLOADED),
    (500, "SystemError", "", K.OVERLOADED),
    (500, "ModelServiceFailed", "", K.OVERLOADED),
    (500, "RequestTimeOut", "", K.TIMED_OUT),
    (500, "InternalError.Algo", "list index out of range", K.BAD_REQUEST),
    (500, "internal_error", "Role must be in [user, assistant]", K.BAD_REQUEST),
    (500, "ModelServingError", "", K.OVERLOADED),
    (503, "ModelServingError", "", K.OVERLOADED),
    (502, None, "", K.OVERLOADED),
    (504, None, "", K.OVERLOADED),
    (503, "ModelUnavailable", "", K.OVERLOADED),
    (503, "ServiceUnavailable", "", K.OVERLOADED),
    (503, "unavailable_error", "Loading model", K.OVERLOADED),
    (200, "InternalError.Algo", "", K.OVERLOADED),
    (200, "Throttling.RateQuota", "", K.RATE_LIMITED),
    (200, "InvalidApiKey", "", K.KEY),
    (200, "DataInspectionFailed", "", K.REFUSED),
    (200, "InvalidParameter", "", K.BAD_REQUEST),
    (200, "SomethingElse", "", K.GARBLED),
]


@pytest.fixture(scope="module")
def service() -> Iterator[FakeQwen]:
    with FakeQwen(rules=None) as qwen:
        yield qwen


@pytest.mark.parametrize("native", [False, True], ids=["compat", "native"])
@pytest.mark.parametrize(("status", "code", "message", "kind"), CASES)
async def test_an_error_over_http_becomes_the_kind_of_its_row(
    service: FakeQwen, status: int, code: str | None, message: str, kind: ErrorKind, native: bool
) -> None:
    words = message or "words of no meaning"
    error = {"message": words, "code": code}
    body = error if native else {"error": error}
    service.answer_with(Fault.raw(status, orjson.dumps(body)))
    async with HttpTransport(
        service.base_url,
        api_key=SecretStr(""),
        pricing=Pricing.free(),
        profile=load_profiles().find("qwen-plus"),
        timeout=10,
    ) as transport:
        result = await transport(REQUEST)
    assert isinstance(result, CallError)
    assert (result.kind, result.http_status, result.code) == (kind, status, code)
    assert words in result.message


def test_every_row_of_the_table_is_reached_by_a_case() -> None:
    reached = [classify(status, (code or "",), message) for status, code, message, _ in CASES]
    missed = [row for row in TABLE if row not in reached]
    assert missed == []


def test_a_quota_error_asks_for_more_patience_than_a_plain_429() -> None:
    def error(code: str) -> CallError:
        return CallError(K.RATE_LIMITED, "", "m", 429, code=code)

    assert patience(error("insufficient_quota")) == patience(error("Throttling.AllocationQuota")) == 60
    assert patience(error("limit_burst_rate")) == 5
    assert patience(error("limit_requests")) == 0


def test_a_refused_key_says_that_keys_belong_to_a_region() -> None:
    assert "region" in classify(401, ("invalid_api_key",), "").hint
