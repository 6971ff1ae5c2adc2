"""Which error means what: one table from HTTP status, provider code and words to an ``ErrorKind``.

Codes come in several spellings (``Throttling.RateQuota`` and ``limit_requests``; ``InvalidApiKey`` and
``invalid_api_key``), and the telling name is often inside the message
(``<400> InternalError.Algo.DataInspectionFailed: ...``). All names found are normalised: lower case,
without ``_``, ``.``, ``-`` and spaces; dotted names also count by their segments.

The texts are those of the provider's error pages and of bodies that users have published.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from extractors.qwen.requests import CallError, ErrorKind

_CLIENT = range(400, 500)
_SERVER = range(500, 600)
_IN_200 = range(200, 300)
_EITHER = (*_IN_200, *_SERVER)
_SAID_NO = (*_IN_200, 400, 422)


class Who(StrEnum):
    """Who can do something about an error."""

    USER = "you"
    """An option, the schema or the record."""
    OWNER = "account owner"
    """Money, rights and limits of the account."""
    PROVIDER = "provider"
    """It passes, or the provider mends it."""
    NOBODY = "nobody"
    """It is the provider's decision about this record."""


class Limit(StrEnum):
    """Which limit a 429 is about."""

    RATE = "rate"
    TOKENS = "tokens"
    BURST = "burst"
    """Calls began too steeply; the rate itself may be allowed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Statuses (when given) must hold, and a code or a phrase (when given) be there.

    ``name`` is this row's own, for the guide. ``patience`` is the least number of seconds worth waiting before
    the same call is made again. ``hint`` says what ``who`` can do."""

    name: str
    kind: ErrorKind
    who: Who
    codes: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    statuses: frozenset[int] = frozenset()
    patience: float = 0.0
    hint: str = ""
    limit: Limit | None = None

    def holds(self, status: int, names: Iterable[str], words: str) -> bool:
        """Whether this row is about an error with these normalised names and these lower-case words."""
        if self.statuses and status not in self.statuses:
            return False
        if not self.codes and not self.phrases:
            return True
        return any(name in self.codes for name in names) or any(phrase in words for phrase in self.phrases)


def _row(
    name: str,
    kind: ErrorKind,
    who: Who,
    codes: str = "",
    *,
    phrases: tuple[str, ...] = (),
    statuses: Iterable[int] = (),
    patience: float = 0.0,
    hint: str = "",
    limit: Limit | None = None,
) -> Row:
    return Row(name, kind, who, frozenset(codes.split()), phrases, frozenset(statuses), patience, hint, limit)


_K = ErrorKind
_ACCOUNT = "settle the account with the provider, then run the same command again"
_REGION = (
    "check DASHSCOPE_API_KEY, and that --region or --base-url is the key's own: a key of one region is refused in "
    "another"
)
_NAME = "check --model and --base-url"
_MODE = "leave --mode out, so that another mode can be taken"

TABLE: tuple[Row, ...] = (
    # A picture that the service could not fetch in time comes as a 400 of the data inspection.
    _row(
        "media not fetched in time",
        _K.TIMED_OUT,
        Who.PROVIDER,
        phrases=("download the media", "media resource timed out", "timed out during the data inspection"),
        statuses=(200, 400),
    ),
    _row(
        "blocked by moderation",
        _K.REFUSED,
        Who.NOBODY,
        "datainspectionfailed ipinfringementsuspect contentfilter",
        phrases=("input data may contain", "output data may contain", "inappropriate content"),
    ),
    _row(
        "blocked by the workspace's own rules",
        _K.REFUSED,
        Who.OWNER,
        "faqruleblocked customroleblocked",
        hint="the rule stands in the provider's console",
    ),
    _row(
        "input too long",
        _K.TOO_LONG,
        Who.USER,
        "exceedcontextsizeerror contextlengthexceeded requesttoolarge requestentitytoolarge",
        phrases=("range of input length should be", "exceeds the available context size", "maximum context length"),
        hint="split the record, or use a model with a longer context",
    ),
    _row("body too large", _K.TOO_LONG, Who.USER, statuses=(413,), hint="split the record"),
    _row(
        "free quota used up",
        _K.KEY,
        Who.OWNER,
        "freetieronly",
        phrases=("free allocated quota exceeded", "free quota has been exhausted"),
        hint="the free quota is used up: switch off its use alone in the provider's console, or take another model",
    ),
    _row(
        "account in arrears",
        _K.KEY,
        Who.OWNER,
        "arrearage commoditynotpurchased prepaidbilloverdue postpaidbilloverdue budgetlimitexceeded",
        phrases=("account is in good standing", "account is not in good standing"),
        hint=_ACCOUNT,
    ),
    _row("payment required", _K.KEY, Who.OWNER, statuses=(402,), hint=_ACCOUNT),
    _row("key rejected", _K.KEY, Who.USER, "invalidapikey notauthorized authenticationerror", hint=_REGION),
    _row("not signed in", _K.KEY, Who.USER, statuses=(401,), hint=_REGION),
    # Worded like a bill, this is the limit of tokens a minute: it passes.
    _row(
        "429, tokens a minute",
        _K.RATE_LIMITED,
        Who.OWNER,
        "insufficientquota allocationquota throttlingallocationquota",
        statuses=(200, 429),
        patience=60.0,
        hint="give the account's limit with --tpm, or ask the provider for more",
        limit=Limit.TOKENS,
    ),
    _row(
        "429, too steep",
        _K.RATE_LIMITED,
        Who.PROVIDER,
        "limitburstrate burstrate",
        statuses=(200, 429),
        patience=5.0,
        hint="give the account's limit with --rpm, so that calls are spread evenly",
        limit=Limit.BURST,
    ),
    _row("429, provider full", _K.OVERLOADED, Who.PROVIDER, "serviceoverloaded", patience=2.0),
    _row(
        "429, requests a minute",
        _K.RATE_LIMITED,
        Who.OWNER,
        "limitrequests ratequota throttling ratelimitexceeded",
        statuses=(200, 429),
        hint="give the account's limit with --rpm, or ask the provider for more",
        limit=Limit.RATE,
    ),
    _row("429, any other", _K.RATE_LIMITED, Who.PROVIDER, statuses=(429,), limit=Limit.RATE),
    # The request is at fault, though the status says the server is.
    _row(
        "500 for a bad request",
        _K.BAD_REQUEST,
        Who.NOBODY,
        phrases=("list index out of range", "role must be in [user, assistant]"),
        statuses=_EITHER,
    ),
    _row(
        "no word json",
        _K.BAD_REQUEST,
        Who.USER,
        phrases=("must contain the word 'json'",),
        statuses=_SAID_NO,
        hint="name JSON in --instructions",
    ),
    _row(
        "streams only",
        _K.UNSUPPORTED,
        Who.USER,
        phrases=("only support stream", "only supports stream", "for non-streaming calls"),
        statuses=_SAID_NO,
        hint="the model answers in streams only: use --stream auto or always",
    ),
    _row(
        "thinking switch refused",
        _K.UNSUPPORTED,
        Who.USER,
        "notsupportenablethinking",
        phrases=("parameter.enable_thinking", "enable_thinking parameter", "does not support enable_thinking"),
        statuses=_SAID_NO,
        hint="leave --thinking out; a model that always thinks needs another profile",
    ),
    _row(
        "structure and thinking together",
        _K.UNSUPPORTED,
        Who.USER,
        phrases=("when enable_thinking is true", "in thinking mode"),
        statuses=_SAID_NO,
        hint="leave --thinking or --mode out",
    ),
    _row(
        "structured output refused",
        _K.UNSUPPORTED,
        Who.USER,
        phrases=(
            "response_format",
            "json_schema",
            "json mode response",
            "tool_choice",
            "tool choice",
            "enable_thinking",
            "uniqueitems",
            "tools is not supported",
            "does not support tools",
            "function call is not supported",
        ),
        statuses=_SAID_NO,
        hint=_MODE,
    ),
    # llama.cpp's own words; the last one comes as a 500.
    _row(
        "grammar refused",
        _K.UNSUPPORTED,
        Who.USER,
        phrases=("empty grammar stack", "failed to parse grammar", "json schema conversion failed", "requires --jinja"),
        statuses=(400, 500),
        hint=_MODE,
    ),
    _row(
        "text only",
        _K.BAD_REQUEST,
        Who.USER,
        phrases=("input content must be a string", "does not support image", "not a multimodal model"),
        statuses=(*_SAID_NO, 500),
        hint="the model reads text only: use a vision model",
    ),
    _row(
        "model unknown",
        _K.MODEL,
        Who.USER,
        "modelnotfound modelnotexist modelnotsupported workspacenotfound",
        phrases=("model not exist", "model does not exist"),
        hint=_NAME,
    ),
    _row(
        "no right to the model",
        _K.KEY,
        Who.OWNER,
        "accessdenied modelaccessdenied workspaceaccessdenied accessdeniedunpurchased permissiondenied",
        hint="the account has no right to this model: ask for it in the provider's console",
    ),
    _row("nothing at the address", _K.MODEL, Who.USER, statuses=(404,), hint=_NAME),
    _row(
        "redirected",
        _K.MODEL,
        Who.USER,
        statuses=range(300, 400),
        hint="the address sends callers elsewhere, which is not followed: give the final one with --base-url",
    ),
    _row(
        "provider's time limit",
        _K.TIMED_OUT,
        Who.PROVIDER,
        "requesttimeout responsetimeout",
        statuses=(*_EITHER, 408),
        hint="answers that take long are better streamed: --stream always",
    ),
    _row("408", _K.TIMED_OUT, Who.PROVIDER, statuses=(408,)),
    _row("409", _K.OVERLOADED, Who.PROVIDER, statuses=(409,)),
    _row(
        "model still loading", _K.OVERLOADED, Who.PROVIDER, phrases=("loading model",), statuses=_EITHER, patience=1.0
    ),
    _row(
        "provider broken",
        _K.OVERLOADED,
        Who.PROVIDER,
        "internalerror internalservererror servererror systemerror modelservicefailed modelservingerror "
        "modelunavailable serviceunavailable unavailableerror timeout",
        statuses=_EITHER,
    ),
    _row("5xx, any other", _K.OVERLOADED, Who.PROVIDER, statuses=_SERVER),
    _row(
        "bad request inside a 200",
        _K.BAD_REQUEST,
        Who.USER,
        "invalidparameter invalidparametererror invalidrequesterror badrequest",
        statuses=_IN_200,
    ),
    _row("4xx, any other", _K.BAD_REQUEST, Who.USER, statuses=_CLIENT),
    _row("anything else", _K.GARBLED, Who.PROVIDER),
)
"""First match wins; the last row holds for everything."""

_INNER = re.compile(r"(?:^|\): )\s*(?:<\d{3}>\s*)?([A-Za-z]\w*(?:\.\w+)+)\s*:")
"""At the start of a provider's message, which stands behind a bracket in a ``CallError``'s."""


def classify(status: int, codes: Iterable[str], message: str) -> Row:
    """The row for an error with this HTTP status, these codes as the provider spelt them, this message."""
    given = [code for code in codes if code]
    inner = _INNER.search(message)
    if inner is not None:
        given.insert(0, inner[1])
    names = {name for code in given for name in _names(code)}
    words = message.lower()
    return next(row for row in TABLE if row.holds(status, names, words))


def patience(error: CallError) -> float:
    """The least wait in seconds before the call of this error is worth making again."""
    return row_of(error).patience


def row_of(error: CallError) -> Row:
    """The row that an error came from, found again by what it kept."""
    return classify(error.http_status or 0, (error.code or "",), error.message)


def _names(code: str) -> Iterable[str]:
    yield re.sub(r"[_.\s-]", "", code).lower()
    for part in code.split("."):
        yield re.sub(r"[_\s-]", "", part).lower()
