"""One call goes before the others where the provider caches prefixes, and nothing can make them wait for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from pydantic import SecretStr

from extractors.errors import BudgetReached
from extractors.limits import Limited
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.profiles import Profile, load_profiles
from extractors.qwen.requests import (
    AnswerShape,
    CallError,
    ChatReply,
    ChatRequest,
    ErrorKind,
    Message,
    Mode,
    Purpose,
)
from extractors.qwen.transport import HttpTransport
from extractors.warmup import WarmUp, worth_waiting_for
from schemas.usage import Usage
from tests.fakes.qwen import FakeQwen, PromptCache

CACHED = Profile(name="m", cache="implicit")
SHAPE = AnswerShape("a", {}, Mode.PROMPTED)
PREFIX = Message("system", "Answer in json. " * 100)
OK = ChatReply("{}", "stop", Usage(1, 60, 40), "m")
BROKEN = CallError(ErrorKind.OVERLOADED, "no", "m", 500)


def request(name: str, *, prefix: Message = PREFIX) -> ChatRequest:
    return ChatRequest("m", (prefix, Message("user", name)), SHAPE)


class Asked:
    """A call that notes who came, and answers when told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.answers: dict[str, asyncio.Future[ChatReply | CallError]] = {}

    async def __call__(self, asked: ChatRequest) -> ChatReply | CallError:
        name = asked.messages[-1].content
        self.names.append(name)
        self.answers[name] = asyncio.get_running_loop().create_future()
        return await self.answers[name]

    async def answer(self, *names: str, result: ChatReply | CallError = OK) -> None:
        for name in names:
            self.answers[name].set_result(result)
        await breathe()


async def breathe() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def begin(call: WarmUp, *requests: ChatRequest) -> list[asyncio.Task[ChatReply | CallError]]:
    async def ask(one: ChatRequest) -> ChatReply | CallError:
        return await call(one)

    return [asyncio.create_task(ask(one)) for one in requests]


@pytest.mark.parametrize("result", [OK, BROKEN])
async def test_the_others_go_when_the_first_has_ended_well_or_not(result: ChatReply | CallError) -> None:
    asked = Asked()
    tasks = begin(WarmUp(asked, profile=CACHED), *map(request, "abc"))
    await breathe()
    assert asked.names == ["a"]
    await asked.answer("a", result=result)
    assert asked.names == ["a", "b", "c"]
    await asked.answer("b", "c")
    assert await asyncio.gather(*tasks) == [result, OK, OK]


async def test_after_that_nobody_waits() -> None:
    asked = Asked()
    warm = WarmUp(asked, profile=CACHED)
    (first,) = begin(warm, request("a"))
    await breathe()
    await asked.answer("a")
    later = begin(warm, request("b"), request("c"))
    await breathe()
    assert asked.names == ["a", "b", "c"]
    await asked.answer("b", "c")
    await asyncio.gather(first, *later)


async def test_nobody_waits_longer_than_the_cap() -> None:
    asked, waits = Asked(), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    tasks = begin(WarmUp(asked, profile=CACHED, longest=7, sleep=sleep), *map(request, "ab"))
    await breathe()
    assert (asked.names, waits) == (["a", "b"], [7])
    await asked.answer("a", "b")
    await asyncio.gather(*tasks)


async def test_a_first_call_that_is_cancelled_lets_the_others_go() -> None:
    asked = Asked()
    first, second = begin(WarmUp(asked, profile=CACHED), *map(request, "ab"))
    await breathe()
    first.cancel()
    await breathe()
    assert asked.names == ["a", "b"]
    await asked.answer("b")
    assert await second is OK


async def test_a_first_call_that_a_ceiling_ends_lets_the_others_go() -> None:
    async def call(asked: ChatRequest) -> ChatReply | CallError:
        raise BudgetReached("no more")

    tasks = begin(WarmUp(call, profile=CACHED), *map(request, "ab"))
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(one) for one in results] == [BudgetReached, BudgetReached]


async def test_who_waits_holds_no_slot() -> None:
    asked = Asked()
    limited = Limited(asked, concurrency=1)
    tasks = begin(WarmUp(limited, profile=CACHED), *map(request, "abc"))
    await breathe()
    assert limited.stats.waits == 0
    for name in "abc":
        await asked.answer(name)
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [OK, OK, OK]


@pytest.mark.parametrize(
    ("profile", "prefix", "purpose"),
    [
        (CACHED, Message("system", "short"), Purpose.EXTRACT),
        (Profile(name="m", cache="explicit"), PREFIX, Purpose.EXTRACT),  # 400 tokens of the 1,024 that it takes
        (CACHED, PREFIX, Purpose.CORRECT),
    ],
    ids=["too short", "too short for a marked cache", "a correction"],
)
async def test_where_nothing_would_be_cached_nobody_waits(profile: Profile, prefix: Message, purpose: Purpose) -> None:
    asked = Asked()
    requests = [replace(request(name, prefix=prefix), purpose=purpose) for name in "ab"]
    tasks = begin(WarmUp(asked, profile=profile), *requests)
    await breathe()
    assert asked.names == ["a", "b"]
    await asked.answer("a", "b")
    await asyncio.gather(*tasks)


def test_only_profiles_with_a_cache_are_waited_for() -> None:
    profiles = load_profiles()
    assert worth_waiting_for(profiles.find("qwen3.7-plus"))
    assert not worth_waiting_for(profiles.find("some-model", base_url="http://127.0.0.1:8000/v1"))
    assert not worth_waiting_for(profiles.find("local-1.5b"))


@pytest.mark.parametrize(("warm", "least"), [(True, 7), (False, 0)])
async def test_over_http_the_fan_out_reads_what_the_first_call_wrote_and_pays_less(warm: bool, least: int) -> None:
    price = Pricing((Tier(Decimal(10), Decimal(10), Decimal(2)),))
    prefix = Message("system", "Answer in json, by these many rules. " * 200)
    with FakeQwen("{}", cache=PromptCache(delay=0.04), latency=0.05) as qwen:
        async with HttpTransport(
            qwen.base_url, api_key=SecretStr(""), pricing=price, profile=load_profiles().find("qwen3.7-plus")
        ) as transport:
            call = WarmUp(transport, profile=load_profiles().find("qwen3.7-plus")) if warm else transport
            asked = [replace(request(f"record {n}", prefix=prefix), model="qwen3.7-plus") for n in range(8)]
            results = await asyncio.gather(*(call(one) for one in asked))
    hits = [one for one in results if one.usage.cached_tokens]
    assert len(hits) == least
    fresh = next(one.usage for one in results if not one.usage.cached_tokens)
    for hit in hits:
        assert hit.usage.cost is not None and fresh.cost is not None
        saved = hit.usage.cached_tokens * Decimal(8) / 1_000_000
        assert abs(fresh.cost - hit.usage.cost - saved) < Decimal("0.0001")
