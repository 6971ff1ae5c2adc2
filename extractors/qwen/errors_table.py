"""Which error means what: one table from HTTP status, provider code and words to an ``ErrorKind``.

Codes come in several spellings (``Throttling.RateQuota`` and ``limit_requests``; ``InvalidApiKey`` and
``invalid_api_key``), and the telling name is often inside the message
(``<400> InternalError.Algo.DataInspectionFailed: ...``). All names found are normalised: lower case,
without ``_``, ``.``, ``-`` and spaces; dotted names also count by their segments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from extractors.qwen.requests import CallError, ErrorKind

_CLIENT = range(400, 500)
_SERVER = range(500, 600)
_IN_200 = range(200, 300)
_EITHER = (*_IN_200, *_SERVER)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Statuses (when given) must hold, and a code or a phrase (when given) be there.

    ``patience`` is the least number of seconds worth waiting before the same call is made again.
    ``hint`` says what a person can do."""

    kind: ErrorKind
    codes: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    statuses: frozenset[int] = frozenset()
    patience: float = 0.0
    hint: str = ""

    def holds(self, status: int, names: Iterable[str], words: str) -> bool:
        """Whether this row is about an error with these normalised names and these lower-case words."""
        if self.statuses and status not in self.statuses:
            return False
        if not self.codes and not self.phrases:
            return True
        return any(name in self.codes for name in names) or any(phrase in words for phrase in self.phrases)


def _row(
    kind: ErrorKind,
    codes: str = "",
    *,
    phrases: tuple[str, ...] = (),
    statuses: Iterable[int] = (),
    patience: float = 0.0,
    hint: str = "",
) -> Row:
    return Row(kind, frozenset(codes.split()), phrases, frozenset(statuses), patience, hint)


_ACCOUNT = "settle the account with the provider, then run the same command again"
_REGION = (
    "check DASHSCOPE_API_KEY, and that --base-url is of the key's region: a key of one region is refused in another"
)
_NAME = "check --model and --base-url"

TABLE: tuple[Row, ...] = (
    # A picture that the service could not fetch in time comes as a 400 of the data inspection.
    _row(
        ErrorKind.TIMED_OUT,
        phrases=("download the media", "media resource timed out", "timed out during the data inspection"),
        statuses=(200, 400),
    ),
    _row(
        ErrorKind.REFUSED,
        "datainspectionfailed ipinfringementsuspect faqruleblocked customroleblocked contentfilter",
        phrases=("input data may contain", "output data may contain", "inappropriate content"),
    ),
    _row(
        ErrorKind.TOO_LONG,
        "exceedcontextsizeerror contextlengthexceeded requesttoolarge requestentitytoolarge",
        phrases=("range of input length should be", "exceeds the available context size", "maximum context length"),
        hint="split the record, or use a model with a longer context",
    ),
    _row(ErrorKind.TOO_LONG, statuses=(413,), hint="split the record"),
    _row(
        ErrorKind.KEY,
        "arrearage commoditynotpurchased prepaidbilloverdue postpaidbilloverdue budgetlimitexceeded freetieronly",
        phrases=("free allocated quota exceeded", "free quota has been exhausted", "account is in good standing"),
        hint=_ACCOUNT,
    ),
    _row(ErrorKind.KEY, statuses=(402,), hint=_ACCOUNT),
    _row(ErrorKind.KEY, "invalidapikey notauthorized authenticationerror", hint=_REGION),
    _row(ErrorKind.KEY, statuses=(401,), hint=_REGION),
    # Worded like a bill, this is the limit of tokens a minute: it passes.
    _row(
        ErrorKind.RATE_LIMITED,
        "insufficientquota allocationquota throttlingallocationquota",
        statuses=(200, 429),
        patience=60.0,
    ),
    _row(ErrorKind.RATE_LIMITED, "limitburstrate burstrate", statuses=(200, 429), patience=5.0),
    _row(ErrorKind.OVERLOADED, "serviceoverloaded", patience=2.0),
    _row(ErrorKind.RATE_LIMITED, "limitrequests ratequota throttling ratelimitexceeded", statuses=(200, 429)),
    _row(ErrorKind.RATE_LIMITED, statuses=(429,)),
    # The request is at fault, though the status says the server is.
    _row(
        ErrorKind.BAD_REQUEST,
        phrases=("list index out of range", "role must be in [user, assistant]"),
        statuses=_EITHER,
    ),
    _row(
        ErrorKind.MODEL,
        "modelnotfound modelnotexist modelnotsupported workspacenotfound",
        phrases=("model not exist", "model does not exist"),
        hint=_NAME,
    ),
    _row(
        ErrorKind.KEY,
        "accessdenied modelaccessdenied workspaceaccessdenied accessdeniedunpurchased permissiondenied",
        hint="the account has no right to this model: ask for it in the provider's console",
    ),
    _row(ErrorKind.MODEL, statuses=(404,), hint=_NAME),
    _row(
        ErrorKind.MODEL,
        statuses=range(300, 400),
        hint="the address sends callers elsewhere, which is not followed: give the final one with --base-url",
    ),
    _row(ErrorKind.TIMED_OUT, "requesttimeout responsetimeout", statuses=(*_EITHER, 408)),
    _row(ErrorKind.TIMED_OUT, statuses=(408,)),
    _row(ErrorKind.OVERLOADED, statuses=(409,)),
    _row(ErrorKind.OVERLOADED, phrases=("loading model",), statuses=_EITHER, patience=1.0),
    _row(
        ErrorKind.OVERLOADED,
        "internalerror internalservererror servererror systemerror modelservicefailed modelservingerror "
        "modelunavailable serviceunavailable unavailableerror timeout",
        statuses=_EITHER,
    ),
    _row(ErrorKind.OVERLOADED, statuses=_SERVER),
    _row(
        ErrorKind.UNSUPPORTED,
        "notsupportenablethinking",
        phrases=(
            "response_format",
            "json_schema",
            "json mode response",
            "tool_choice",
            "not support tools",
            "enable_thinking",
        ),
        statuses=(*_IN_200, 400),
        hint="leave --mode out, so that another mode can be taken",
    ),
    _row(
        ErrorKind.BAD_REQUEST,
        "invalidparameter invalidparametererror invalidrequesterror badrequest notsupportenablethinking",
        statuses=_IN_200,
    ),
    _row(ErrorKind.BAD_REQUEST, statuses=_CLIENT),
    _row(ErrorKind.GARBLED),
)
"""First match wins; the last row holds for everything."""

_INNER = re.compile(r"^\s*(?:<\d{3}>\s*)?([A-Za-z]\w*(?:\.\w+)+)\s*:")


def classify(status: int, codes: Iterable[str], message: str) -> Row:
    """The row for an error with this HTTP status, these codes as the provider spelt them, this message."""
    given = [code for code in codes if code]
    inner = _INNER.match(message)
    if inner is not None:
        given.insert(0, inner[1])
    names = {name for code in given for name in _names(code)}
    words = message.lower()
    return next(row for row in TABLE if row.holds(status, names, words))


def patience(error: CallError) -> float:
    """The least wait in seconds before the call of this error is worth making again."""
    return classify(error.http_status or 0, (error.code or "",), error.message).patience


def _names(code: str) -> Iterable[str]:
    yield re.sub(r"[_.\s-]", "", code).lower()
    for part in code.split("."):
        yield re.sub(r"[_\s-]", "", part).lower()
