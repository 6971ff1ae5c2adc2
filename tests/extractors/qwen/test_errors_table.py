"""Every row of the table, met over real HTTP in two dialects; and the guide's table, which is this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from pydantic import SecretStr

from extractors.qwen.dialects import CHAT, DASHSCOPE
from extractors.qwen.errors_table import TABLE, Limit, Row, classify, patience, row_of
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import AnswerShape, CallError, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import HttpTransport
from tests.fakes.qwen import FakeQwen, Fault

K = ErrorKind
GUIDE = Path(__file__).parents[3] / "docs" / "failures.md"
REQUEST = ChatRequest("qwen-plus", (Message("user", "json"),), AnswerShape("a", {}, Mode.PROMPTED))
PASSES = {K.RATE_LIMITED, K.OVERLOADED, K.TIMED_OUT, K.CONNECTION, K.GARBLED}
ENDS_THE_RUN = {K.KEY, K.MODEL}

# Row, the kind that it gives, and errors (status, code, message) that are its own.
CASES: dict[str, tuple[ErrorKind, list[tuple[int, str | None, str]]]] = {
    "media not fetched in time": (
        K.TIMED_OUT,
        [
            (400, "DataInspectionFailed", "Download the media resource timed out during the data inspection process."),
        ],
    ),
    "blocked by moderation": (
        K.REFUSED,
        [
            (400, "DataInspectionFailed", ""),
            (400, "data_inspection_failed", "Output data may contain inappropriate content."),
            (400, "invalid_parameter_error", "<400> InternalError.Algo.DataInspectionFailed: Input ..."),
            (400, "IPInfringementSuspect", ""),
            (200, "DataInspectionFailed", ""),
        ],
    ),
    "blocked by the workspace's own rules": (
        K.REFUSED,
        [
            (400, "FaqRuleBlocked", ""),
            (400, "CustomRoleBlocked", ""),
        ],
    ),
    "input too long": (
        K.TOO_LONG,
        [
            (400, "InvalidParameter", "Range of input length should be [1, 30720]"),
            (400, "exceed_context_size_error", "the request exceeds the available context size"),
            (400, "context_length_exceeded", "This model's maximum context length is 8192 tokens"),
            (413, "RequestTooLarge", ""),
        ],
    ),
    "body too large": (
        K.TOO_LONG,
        [
            (413, None, ""),
        ],
    ),
    "free quota used up": (
        K.KEY,
        [
            (429, "insufficient_quota", "Free allocated quota exceeded."),
            (403, "AllocationQuota.FreeTierOnly", ""),
            (429, "Throttling.AllocationQuota", "Free allocated quota exceeded."),
            (403, "AllocationQuota.FreeTierOnly", "The free quota has been exhausted."),
        ],
    ),
    "account in arrears": (
        K.KEY,
        [
            (429, "CommodityNotPurchased", ""),
            (429, "PrepaidBillOverdue", ""),
            (429, "PostpaidBillOverdue", ""),
            (429, "BudgetLimitExceeded", ""),
            (400, "Arrearage", "Access denied, please make sure your account is in good standing."),
        ],
    ),
    "payment required": (
        K.KEY,
        [
            (402, "insufficient_balance", ""),
        ],
    ),
    "key rejected": (
        K.KEY,
        [
            (401, "InvalidApiKey", ""),
            (401, "invalid_api_key", "Incorrect API key provided."),
            (401, "NOT AUTHORIZED", ""),
            (200, "InvalidApiKey", ""),
        ],
    ),
    "not signed in": (
        K.KEY,
        [
            (401, "something_new", ""),
        ],
    ),
    "429, tokens a minute": (
        K.RATE_LIMITED,
        [
            (429, "Throttling.AllocationQuota", "Allocated quota exceeded"),
            (429, "insufficient_quota", "You exceeded your current quota"),
            (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
        ],
    ),
    "429, too steep": (
        K.RATE_LIMITED,
        [
            (429, "Throttling.BurstRate", ""),
            (429, "limit_burst_rate", ""),
            (429, "Throttling.BurstRate", "Request rate increased too quickly."),
        ],
    ),
    "429, provider full": (
        K.OVERLOADED,
        [
            (429, "Throttling.ServiceOverloaded", ""),
        ],
    ),
    "429, requests a minute": (
        K.RATE_LIMITED,
        [
            (429, "Throttling", ""),
            (429, "Throttling.RateQuota", ""),
            (429, "limit_requests", ""),
            (429, "LimitRequests", ""),
            (200, "Throttling.RateQuota", ""),
            (429, "rate_limit_exceeded", ""),
        ],
    ),
    "429, any other": (
        K.RATE_LIMITED,
        [
            (429, "something_new", ""),
        ],
    ),
    "500 for a bad request": (
        K.BAD_REQUEST,
        [
            (500, "InternalError.Algo", "list index out of range"),
            (500, "internal_error", "Role must be in [user, assistant]"),
        ],
    ),
    "no word json": (
        K.BAD_REQUEST,
        [
            (
                400,
                "invalid_request_error",
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            ),
        ],
    ),
    "streams only": (
        K.UNSUPPORTED,
        [
            (400, "invalid_parameter_error", "parameter.enable_thinking must be set to false for non-streaming calls"),
            (
                400,
                "invalid_request_error",
                "This model only support stream mode, please enable the stream parameter to access the model.",
            ),
        ],
    ),
    "thinking switch refused": (
        K.UNSUPPORTED,
        [
            (400, "InvalidParameter.NotSupportEnableThinking", ""),
            (400, "InvalidParameter", "The value of the enable_thinking parameter is restricted to True."),
        ],
    ),
    "structure and thinking together": (
        K.UNSUPPORTED,
        [
            (400, "invalid_parameter_error", "Json mode response is not supported when enable_thinking is true"),
            (
                400,
                "InternalError.Algo.InvalidParameter",
                "The tool_choice parameter does not support being set to required or object in thinking mode",
            ),
            (
                400,
                "invalid_parameter_error",
                "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set to required or object in thinking mode",
            ),
        ],
    ),
    "structured output refused": (
        K.UNSUPPORTED,
        [
            (400, "invalid_parameter_error", "<400> InternalError.Algo.InvalidParameter: tool_choice"),
            (400, "invalid_parameter_error", 'tool_choice is one of the strings that should be ["none", "auto"]'),
            (400, "invalid_parameter_error", "This model does not support response_format json_schema."),
            (400, "invalid_parameter_error", "uniqueItems, contains, minContains and maxContains are not supported"),
        ],
    ),
    "grammar refused": (
        K.UNSUPPORTED,
        [
            (400, "invalid_request_error", "Unexpected empty grammar stack after accepting piece: <think>"),
            (500, "server_error", "tools param requires --jinja flag"),
        ],
    ),
    "text only": (
        K.BAD_REQUEST,
        [
            (400, "InvalidParameter", "<400> InternalError.Algo.InvalidParameter: input content must be a string"),
        ],
    ),
    "model unknown": (
        K.MODEL,
        [
            (400, "Model.NotExist", "Model not exist."),
            (404, "ModelNotFound", ""),
            (404, "model_not_found", ""),
            (404, "model_not_supported", ""),
            (404, "WorkSpaceNotFound", ""),
        ],
    ),
    "no right to the model": (
        K.KEY,
        [
            (403, "AccessDenied", ""),
            (403, "AccessDenied.Unpurchased", ""),
            (403, "Model.AccessDenied", ""),
            (403, "Workspace.AccessDenied", ""),
        ],
    ),
    "nothing at the address": (
        K.MODEL,
        [
            (404, "NotFound", ""),
        ],
    ),
    "redirected": (
        K.MODEL,
        [
            (307, None, ""),
        ],
    ),
    "provider's time limit": (
        K.TIMED_OUT,
        [
            (500, "RequestTimeOut", ""),
        ],
    ),
    "408": (
        K.TIMED_OUT,
        [
            (408, None, ""),
        ],
    ),
    "409": (
        K.OVERLOADED,
        [
            (409, None, ""),
        ],
    ),
    "model still loading": (
        K.OVERLOADED,
        [
            (503, "unavailable_error", "Loading model"),
        ],
    ),
    "provider broken": (
        K.OVERLOADED,
        [
            (500, "InternalError", ""),
            (500, "internal_error", ""),
            (500, "InternalError.Algo", "Expecting ',' delimiter: line 1 column 9"),
            (500, "InternalError.Timeout", ""),
            (500, "SystemError", ""),
            (500, "ModelServiceFailed", ""),
            (500, "ModelServingError", ""),
            (503, "ModelServingError", ""),
            (503, "ModelUnavailable", ""),
            (503, "ServiceUnavailable", ""),
            (200, "InternalError.Algo", ""),
        ],
    ),
    "5xx, any other": (
        K.OVERLOADED,
        [
            (502, None, ""),
            (504, None, ""),
        ],
    ),
    "bad request inside a 200": (
        K.BAD_REQUEST,
        [
            (200, "InvalidParameter", ""),
        ],
    ),
    "4xx, any other": (
        K.BAD_REQUEST,
        [
            (400, "InvalidParameter", ""),
            (400, "invalid_parameter_error", ""),
            (400, "invalid_request_error", ""),
            (400, "InternalError.Algo.InvalidParameter", ""),
            (403, "forbidden_words", ""),
            (405, "MethodNotAllowed", ""),
            (422, "whatever", ""),
            (400, "InvalidParameter", "File not found."),
        ],
    ),
    "anything else": (
        K.GARBLED,
        [
            (200, "SomethingElse", ""),
        ],
    ),
}
EXAMPLES = [(row, status, code, message) for row, (_, errors) in CASES.items() for status, code, message in errors]


@pytest.fixture(scope="module")
def service() -> Iterator[FakeQwen]:
    with FakeQwen(rules=None) as qwen:
        yield qwen


@pytest.mark.parametrize("dialect", [CHAT, DASHSCOPE], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(("row", "status", "code", "message"), EXAMPLES)
async def test_an_error_over_http_is_what_its_row_says(
    service: FakeQwen, row: str, status: int, code: str | None, message: str, dialect: object
) -> None:
    kind, words = CASES[row][0], message or "words of no meaning"
    error = {"message": words, "code": code}
    native = dialect is DASHSCOPE
    service.answer_with(Fault.raw(status, orjson.dumps(error if native else {"error": error})))
    async with HttpTransport(
        service.native_url if native else service.base_url,
        api_key=SecretStr(""),
        pricing=Pricing.free(),
        profile=load_profiles().find("qwen-plus"),
        dialect=DASHSCOPE if native else CHAT,
        timeout=10,
    ) as transport:
        result = await transport(REQUEST)
    assert isinstance(result, CallError)
    assert (result.kind, result.http_status, result.code) == (kind, status, code)
    assert (result.retryable, result.fatal) == (kind in PASSES, kind in ENDS_THE_RUN)
    expected = named(row)
    assert words in result.message
    assert result.message.endswith(expected.hint)
    # The hint is part of the message by now, and must not lead to another row.
    assert row_of(result) is expected
    assert patience(result) == expected.patience


def test_every_row_has_examples_and_every_example_hits_its_row() -> None:
    assert list(CASES) == [row.name for row in TABLE]
    assert [one for one in EXAMPLES if classify(one[1], (one[2] or "",), one[3]).name != one[0]] == []


def test_a_row_says_what_to_do_wherever_a_person_can_do_something() -> None:
    silent = {row.name for row in TABLE if row.who in ("you", "account owner") and not row.hint}
    assert silent == {"bad request inside a 200", "4xx, any other"}  # the provider's own words say it


def test_the_five_kinds_of_429_wait_differently() -> None:
    waits = {row.name.removeprefix("429, "): row.patience for row in TABLE if row.name.startswith("429, ")}
    assert waits == {"tokens a minute": 60, "too steep": 5, "provider full": 2, "requests a minute": 0, "any other": 0}
    assert not CallError(K.KEY, "", "m", 429, code="PrepaidBillOverdue").retryable


def test_a_rate_limit_says_which_one_it_is() -> None:
    limits = {row.name: row.limit for row in TABLE if row.limit}
    assert limits == {
        "429, tokens a minute": Limit.TOKENS,
        "429, too steep": Limit.BURST,
        "429, requests a minute": Limit.RATE,
        "429, any other": Limit.RATE,
    }


def test_a_refused_key_says_that_keys_belong_to_a_region() -> None:
    assert "region" in classify(401, ("invalid_api_key",), "").hint


def test_the_guide_shows_this_table() -> None:
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    shown = lines[lines.index(_HEAD) :]
    shown = shown[: shown.index("")]
    assert shown == [_HEAD, "|---|---|---|---|---|---|", *(_line(row) for row in TABLE)]


_HEAD = "| error | becomes | asked again | least wait | who can mend it | what to do |"


def _line(row: Row) -> str:
    again = "yes" if row.kind in PASSES else "in another way" if row.kind is K.UNSUPPORTED else "no"
    if row.kind in ENDS_THE_RUN:
        again = "no; the run ends"
    wait = f"{row.patience:g} s" if row.patience else ""
    return f"| {row.name} | `{row.kind.value}` | {again} | {wait} | {row.who.value} | {row.hint} |"


def named(name: str) -> Row:
    return next(row for row in TABLE if row.name == name)
