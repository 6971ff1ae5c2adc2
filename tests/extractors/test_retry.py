from __future__ import annotations

from collections.abc import Iterable

import pytest
from pydantic import SecretStr

from extractors.errors import BudgetReached
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.qwen.transport import HttpTransport
from extractors.retry import Retrying
from schemas.usage import Usage
from tests.fakes.qwen import FakeQwen, Fault

REQUEST = ChatRequest("qwen-plus", (Message("user", "json"),), AnswerShape("a", {}, Mode.PROMPTED))
REPLY = ChatReply("{}", "stop", Usage(1), "m")


class Script:
    """A call that plays its results in order and notes the waits between them."""

    def __init__(self, results: Iterable[ChatReply | CallError]) -> None:
        self.results = list(results)
        self.calls = 0
        self.waits: list[float] = []

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        self.calls += 1
        return self.results.pop(0)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def error(kind: ErrorKind = ErrorKind.OVERLOADED, **more: object) -> CallError:
    return CallError(kind, "no", "m", **more)  # type: ignore[arg-type]


async def play(
    *results: ChatReply | CallError, draw: float = 1.0, **options: float
) -> tuple[ChatReply | CallError, Script]:
    script = Script(results)
    retrying = Retrying(script, sleep=script.sleep, random=lambda: draw, **options)  # type: ignore[arg-type]
    return await retrying(REQUEST), script


async def test_a_good_answer_comes_back_at_once() -> None:
    result, script = await play(REPLY)
    assert (result, script.waits) == (REPLY, [])


async def test_the_answer_remembers_the_tries_before_it() -> None:
    first, second = error(ErrorKind.TIMED_OUT), error(ErrorKind.CONNECTION)
    result, _ = await play(first, second, REPLY)
    assert isinstance(result, ChatReply)
    assert result.earlier == (first, second)


async def test_after_the_last_attempt_the_last_error_comes_back_with_the_earlier_ones() -> None:
    errors = [error(code=str(i)) for i in range(4)]
    result, script = await play(*errors)
    assert isinstance(result, CallError)
    assert (result.code, [e.code for e in result.earlier]) == ("3", ["0", "1", "2"])
    assert (script.calls, len(script.waits)) == (4, 3)


@pytest.mark.parametrize("kind", [k for k in ErrorKind if not error(k).retryable])
async def test_what_will_not_pass_is_not_tried_again(kind: ErrorKind) -> None:
    _, script = await play(error(kind), REPLY)
    assert script.calls == 1


async def test_an_error_that_will_not_pass_ends_the_tries_in_the_middle() -> None:
    result, script = await play(error(), error(ErrorKind.KEY), REPLY)
    assert isinstance(result, CallError)
    assert (result.kind, script.calls, len(result.earlier)) == (ErrorKind.KEY, 2, 1)


async def test_waits_double_up_to_the_cap() -> None:
    _, script = await play(*[error()] * 8, attempts=8, base=1.0, cap=10.0)
    assert script.waits == [1, 2, 4, 8, 10, 10, 10]


async def test_a_wait_is_anywhere_between_nothing_and_its_bound() -> None:
    _, script = await play(*[error()] * 4, draw=0.0)
    assert script.waits == [0, 0, 0]
    _, script = await play(*[error()] * 4, draw=0.5, base=1.0)
    assert script.waits == [0.5, 1, 2]


async def test_retry_after_is_honoured_with_a_little_more() -> None:
    _, script = await play(error(retry_after=20.0), REPLY, draw=0.5, base=1.0)
    assert script.waits == [20.5]


async def test_retry_after_is_capped_at_300_seconds() -> None:
    _, script = await play(error(retry_after=86_400.0), REPLY, draw=0.0)
    assert script.waits == [300]


async def test_a_quota_error_waits_longer() -> None:
    quota = error(ErrorKind.RATE_LIMITED, http_status=429, code="insufficient_quota")
    _, script = await play(quota, REPLY, draw=0.0)
    assert script.waits == [30]
    _, script = await play(quota, REPLY, draw=1.0)
    assert script.waits == [60]


async def test_a_wait_that_would_pass_the_total_time_is_not_begun() -> None:
    result, script = await play(error(retry_after=50.0), error(retry_after=60.0), REPLY, draw=0.0, total_seconds=100)
    assert (isinstance(result, CallError), script.calls, script.waits) == (True, 2, [50])


async def test_the_tries_own_time_counts_towards_the_total() -> None:
    _, script = await play(error(latency=60.0), error(latency=60.0), REPLY, draw=0.0, total_seconds=100)
    assert script.calls == 2


async def test_one_attempt_means_none_again() -> None:
    _, script = await play(error(), REPLY, attempts=1)
    assert script.calls == 1


async def test_over_http_a_stumbling_service_is_asked_until_it_answers() -> None:
    with FakeQwen([Fault.status(503), Fault.reset(), Fault.status(429, retry_after=0.01), '{"a":1}']) as service:
        async with HttpTransport(
            service.base_url,
            api_key=SecretStr(""),
            pricing=Pricing.free(),
            profile=load_profiles().find("qwen-plus"),
        ) as transport:
            result = await Retrying(transport, base=0.001)(REQUEST)
    assert isinstance(result, ChatReply)
    kinds = [tried.kind for tried in result.earlier]
    assert (result.text, kinds) == (
        '{"a":1}',
        [ErrorKind.OVERLOADED, ErrorKind.CONNECTION, ErrorKind.RATE_LIMITED],
    )
    assert service.count == 4


async def test_a_ceiling_that_ends_the_tries_keeps_those_that_were_made() -> None:
    first, second = error(ErrorKind.TIMED_OUT), error(ErrorKind.CONNECTION)
    script = Script([first, second])

    async def call(request: ChatRequest) -> ChatReply | CallError:
        if not script.results:
            raise BudgetReached("no more")
        return await script(request)

    with pytest.raises(BudgetReached) as reached:
        await Retrying(call, sleep=script.sleep)(REQUEST)
    assert reached.value.earlier == (first, second)
