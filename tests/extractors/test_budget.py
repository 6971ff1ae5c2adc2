from __future__ import annotations

import asyncio
import unicodedata
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from extractors.budget import Amount, Budget, Budgeted, worst_case
from extractors.errors import BudgetReached, JobError
from extractors.limits import Limited
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Image, Message, Mode
from extractors.qwen.transport import NOT_SENT, HttpTransport
from extractors.retry import Retrying
from schemas.usage import Usage
from tests.fakes.qwen import FakeQwen, Fault, Faults, Reply

PRICE = Pricing((Tier(Decimal(1), Decimal(2), up_to=400), Tier(Decimal(3), Decimal(6))))
SHAPE = AnswerShape("a", {}, Mode.JSON_OBJECT, {"response_format": {"type": "json_object"}})


def request(text: str = "x" * 100, *, out: int = 50) -> ChatRequest:
    return ChatRequest("m", (Message("user", text),), SHAPE, max_output_tokens=out)


def reply(usage: Usage) -> ChatReply:
    return ChatReply("{}", "stop", replace(usage, cost=PRICE.cost(usage)), "m")


def budgeted(result: ChatReply | CallError, budget: Budget, pricing: Pricing = PRICE) -> Budgeted:
    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return result

    return Budgeted(call, budget, pricing=pricing)


WORST = worst_case(request(), PRICE)
SMALL = Usage(1, 30, 10)


async def test_the_real_usage_takes_the_place_of_the_worst_case() -> None:
    budget = Budget(max_cost=Decimal(1), max_tokens=10_000)
    await budgeted(reply(SMALL), budget)(request())
    assert (budget.spent, budget.reserved, budget.open) == (Amount(Decimal("0.00005"), 40), Amount(), 0)


async def test_a_call_larger_than_the_whole_ceiling_is_refused_unasked() -> None:
    budget = Budget(max_tokens=WORST.tokens - 1)
    with pytest.raises(BudgetReached, match="--max-tokens"):
        await budgeted(reply(SMALL), budget)(request())
    assert budget.spent == Amount()


async def test_a_call_that_fits_exactly_is_made() -> None:
    assert isinstance(await budgeted(reply(SMALL), Budget(WORST.cost, WORST.tokens))(request()), ChatReply)


async def test_money_that_is_spent_stays_spent() -> None:
    budget = Budget(max_cost=WORST.cost + Decimal("0.00004"))
    call = budgeted(reply(SMALL), budget)
    await call(request())
    with pytest.raises(BudgetReached, match="--max-cost"):
        await call(request())


async def test_a_call_waits_while_another_may_give_room_back() -> None:
    gate: asyncio.Future[ChatReply | CallError] = asyncio.get_running_loop().create_future()
    asked: list[str] = []

    async def call(one: ChatRequest) -> ChatReply | CallError:
        asked.append("asked")
        return await gate

    within = Budgeted(call, Budget(max_tokens=WORST.tokens + 100), pricing=PRICE)
    tasks = [asyncio.create_task(within(request())) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert asked == ["asked"]
    gate.set_result(reply(SMALL))
    await asyncio.gather(*tasks)
    assert asked == ["asked", "asked"]


async def test_waiting_ends_with_budget_reached_when_no_room_comes_back() -> None:
    gate = asyncio.Event()

    async def call(one: ChatRequest) -> ChatReply | CallError:
        await gate.wait()
        return reply(Usage(1, 200, 50))

    within = Budgeted(call, Budget(max_tokens=WORST.tokens + 100), pricing=PRICE)
    tasks = [asyncio.create_task(within(request())) for _ in range(3)]
    await asyncio.sleep(0.01)
    gate.set()
    first, *rest = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, ChatReply)
    assert [type(one) for one in rest] == [BudgetReached, BudgetReached]


async def test_a_cancelled_waiter_takes_no_room_with_it() -> None:
    gate = asyncio.Event()

    async def call(one: ChatRequest) -> ChatReply | CallError:
        await gate.wait()
        return reply(SMALL)

    budget = Budget(max_tokens=WORST.tokens + 100)
    within = Budgeted(call, budget, pricing=PRICE)
    first, second, third = (asyncio.create_task(within(request())) for _ in range(3))
    await asyncio.sleep(0.01)
    second.cancel()
    gate.set()
    await asyncio.gather(first, third)
    assert (budget.open, budget.reserved.tokens, budget.spent.tokens) == (0, 0, 80)


async def test_a_call_cancelled_in_flight_stays_charged_with_its_worst_case() -> None:
    async def call(one: ChatRequest) -> ChatReply | CallError:
        await asyncio.Event().wait()
        raise AssertionError

    budget = Budget(max_tokens=10_000)
    task = asyncio.create_task(Budgeted(call, budget, pricing=PRICE)(request()))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (budget.spent, budget.open) == (WORST, 0)


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (CallError(ErrorKind.TIMED_OUT, "", "m"), True),
        (CallError(ErrorKind.CONNECTION, "", "m"), True),
        (CallError(ErrorKind.GARBLED, "", "m", 200), True),
        (CallError(ErrorKind.OVERLOADED, "", "m", 504), True),
        (CallError(ErrorKind.OVERLOADED, "", "m", 502), True),
        (CallError(ErrorKind.CONNECTION, "", "m", code=NOT_SENT), False),
        (CallError(ErrorKind.RATE_LIMITED, "", "m", 429), False),
        (CallError(ErrorKind.OVERLOADED, "", "m", 503), False),
        (CallError(ErrorKind.REFUSED, "", "m", 400), False),
        (CallError(ErrorKind.BAD_REQUEST, "", "m", 400), False),
    ],
)
async def test_an_error_keeps_the_worst_case_only_where_it_may_have_been_charged(
    error: CallError, charged: bool
) -> None:
    budget = Budget(max_tokens=10_000)
    await budgeted(error, budget)(request())
    assert budget.spent == (WORST if charged else Amount())


async def test_an_error_that_tells_its_usage_is_charged_with_that() -> None:
    budget = Budget(max_tokens=10_000)
    error = CallError(ErrorKind.GARBLED, "", "m", 200, usage=reply(SMALL).usage)
    await budgeted(error, budget)(request())
    assert budget.spent.tokens == 40


async def test_a_reply_without_usage_is_charged_with_the_worst_case() -> None:
    budget = Budget(max_tokens=10_000)
    await budgeted(ChatReply("{}", "stop", Usage(1, cost=None), "m"), budget)(request())
    assert budget.spent == WORST


async def test_a_usage_that_does_not_tell_the_input_is_charged_with_the_worst_case() -> None:
    budget = Budget(max_tokens=10_000)
    await budgeted(reply(Usage(1, 0, 10)), budget)(request())
    assert budget.spent == WORST, "no call has no input: what was told is half of it"


async def test_an_error_in_the_middle_of_a_stream_keeps_the_worst_case_for_what_was_made_before_it() -> None:
    budget = Budget(max_cost=Decimal(1))
    fault = Fault.error_in_stream(answer='{"name": "a kettle of copper"}')
    with FakeQwen(fault) as service:
        async with HttpTransport(
            service.base_url,
            api_key=SecretStr(""),
            pricing=PRICE,
            profile=load_profiles().find("m"),
            stream="always",
        ) as transport:
            result = await Budgeted(transport, budget, pricing=PRICE)(request("json"))
    assert isinstance(result, CallError)
    assert budget.spent == worst_case(request("json"), PRICE)


def test_a_ceiling_on_money_needs_a_price() -> None:
    with pytest.raises(JobError, match="price of this model is unknown"):
        budgeted(reply(SMALL), Budget(max_cost=Decimal(1)), Pricing())
    budgeted(reply(SMALL), Budget(max_tokens=1), Pricing())


async def test_a_ceiling_of_no_money_lets_a_free_model_work() -> None:
    call = budgeted(reply(SMALL), Budget(max_cost=Decimal(0)), Pricing.free())
    assert isinstance(await call(request()), ChatReply)


@given(st.text(st.characters(codec=None, categories=None)))
def test_the_bound_on_the_input_holds_for_any_text_after_nfc(text: str) -> None:
    bound = worst_case(request(text, out=1), PRICE).tokens
    for form in (text, unicodedata.normalize("NFC", text)):
        assert bound >= len(form.encode("utf-8", "surrogatepass"))


def test_the_bound_counts_text_that_nfc_makes_longer() -> None:
    note = "\U0001d160"
    assert worst_case(request(note * 100), PRICE).tokens > 1200


def test_the_bound_counts_pictures_at_the_most_that_one_can_be() -> None:
    image = Image("image/png", url="https://pictures.example/a.png")
    seen = ChatRequest("m", (Message("user", "x", (image, image)),), SHAPE)
    blind = ChatRequest("m", (Message("user", "x"),), SHAPE)
    assert worst_case(seen, PRICE).tokens - worst_case(blind, PRICE).tokens == 2 * 21_402


def test_where_the_output_limit_may_not_be_heeded_the_model_s_own_is_reserved() -> None:
    assert worst_case(request(out=50), PRICE, least_output=8192) == worst_case(request(out=8192), PRICE)


async def test_a_stream_that_was_not_heard_to_its_end_stays_charged_with_the_worst_case() -> None:
    budget = Budget(max_tokens=10_000)
    await budgeted(replace(reply(SMALL), usage_estimated=True), budget)(request())
    assert budget.spent == WORST


def test_the_bound_counts_the_shape_and_the_thinking_but_not_a_grammar() -> None:
    plain = worst_case(request(), PRICE).tokens
    schema = replace(SHAPE, wire={"response_format": {"schema": "y" * 1000}})
    grammar = replace(SHAPE, wire={"grammar": "y" * 1000})
    assert worst_case(replace(request(), shape=schema), PRICE).tokens > plain + 900
    assert worst_case(replace(request(), shape=grammar), PRICE).tokens <= plain
    thinker = replace(PRICE, max_thinking=5000)
    assert worst_case(replace(request(), thinking=False), thinker).tokens == plain
    assert worst_case(replace(request(), thinking=True), thinker).tokens == plain + 5000
    assert worst_case(request(), replace(thinker, always_thinks=True)).tokens == plain + 5000


CALLS = st.lists(
    st.tuples(
        st.integers(0, 400),  # length of the text
        st.integers(1, 300),  # output limit
        st.floats(0, 1),  # share of the worst input that is used
        st.floats(0, 1),  # share of the output that is used
        st.sampled_from(["ok", "ok", "no usage", "429", "timeout", "raise", "cancel"]),
        st.integers(0, 3),  # turns of the loop that the call takes
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(CALLS, st.integers(0, 4000), st.integers(0, 8000), st.integers(1, 8))
def test_no_ceiling_is_ever_passed(calls: list[Any], max_tokens: int, micros: int, at_once: int) -> None:
    ceiling = Decimal(micros) / 1_000_000
    budget = Budget(max_cost=ceiling, max_tokens=max_tokens)
    really_spent = Amount()

    async def main() -> None:
        nonlocal really_spent
        fates = iter(calls)

        async def call(one: ChatRequest) -> ChatReply | CallError:
            nonlocal really_spent
            _, out, share_in, share_out, fate, turns = plan[id(one)]
            holds()
            for _ in range(turns):
                await asyncio.sleep(0)
            if fate == "429":
                return CallError(ErrorKind.RATE_LIMITED, "", "m", 429)
            worst_in = worst_case(one, PRICE).tokens - out - 16
            usage = Usage(1, int(worst_in * share_in), int(out * share_out))
            usage = replace(usage, cost=PRICE.cost(usage))
            # From here on the provider has charged, whether or not we hear of it.
            really_spent += Amount(usage.cost or Decimal(0), usage.total_tokens)
            if fate == "timeout":
                return CallError(ErrorKind.TIMED_OUT, "", "m")
            if fate == "raise":
                raise RuntimeError("bug")
            if fate == "cancel":
                raise asyncio.CancelledError
            return ChatReply("", "stop", Usage(1, cost=None) if fate == "no usage" else usage, "m")

        def holds() -> None:
            committed = budget.spent + budget.reserved
            assert committed.cost <= ceiling
            assert committed.tokens <= max_tokens

        plan: dict[int, Any] = {}
        kept: list[ChatRequest] = []
        within = Budgeted(call, budget, pricing=PRICE)

        async def worker() -> None:
            for fate in fates:
                one = request("y" * fate[0], out=fate[1])
                kept.append(one)
                plan[id(one)] = fate
                with suppress(BudgetReached, RuntimeError, asyncio.CancelledError):
                    await within(one)
                holds()

        await asyncio.wait_for(asyncio.gather(*(worker() for _ in range(at_once))), 10)
        assert (budget.open, budget.reserved) == (0, Amount(Decimal(0), 0))

    asyncio.run(main())
    assert really_spent.cost <= budget.spent.cost <= ceiling
    assert really_spent.tokens <= budget.spent.tokens <= max_tokens


async def test_the_whole_stack_over_http_spends_no_more_than_its_ceiling() -> None:
    mix = {"429": 0.1, "503": 0.1, "reset": 0.1, "cut": 0.05, "html": 0.05}
    answer = Faults(3, mix=mix, then=lambda body: Reply("{}", tokens=(150, 50, 0, 0)))
    budget = Budget(max_cost=Decimal("0.02"))
    with FakeQwen(answer) as service:
        async with HttpTransport(
            service.base_url,
            api_key=SecretStr(""),
            pricing=PRICE,
            profile=load_profiles().find("m"),
            connections=8,
        ) as transport:
            limited = Limited(Budgeted(transport, budget, pricing=PRICE), concurrency=8)
            ask = Retrying(limited, base=0.001)
            asked = [ask(request(f"json {number:090}")) for number in range(200)]
            results = await asyncio.gather(*asked, return_exceptions=True)
    paid = sum(one.usage.cost or 0 for one in results if isinstance(one, ChatReply))
    assert any(isinstance(one, BudgetReached) for one in results)
    assert 0 < paid <= budget.spent.cost <= Decimal("0.02")
    assert {type(one) for one in results} <= {ChatReply, CallError, BudgetReached}
