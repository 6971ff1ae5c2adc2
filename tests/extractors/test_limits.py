from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.limits import Limited, rough_tokens
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.retry import Retrying
from schemas.usage import Usage

SHAPE = AnswerShape("a", {}, Mode.PROMPTED)
OK = ChatReply("{}", "stop", Usage(1, 60, 40), "m")
SLOW_DOWN = CallError(ErrorKind.RATE_LIMITED, "no", "m", 429)
BROKEN = CallError(ErrorKind.OVERLOADED, "no", "m", 500)


def request(name: str = "x") -> ChatRequest:
    return ChatRequest("m", (Message("user", name),), SHAPE)


class Gate:
    """A call whose results are given by hand."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Future[ChatReply | CallError]] = {}
        self.began: list[str] = []

    async def __call__(self, asked: ChatRequest) -> ChatReply | CallError:
        name = asked.messages[0].content
        self.began.append(name)
        self.open[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.open[name]
        finally:
            del self.open[name]

    def answer(self, name: str, result: ChatReply | CallError = OK) -> None:
        self.open[name].set_result(result)


class Time:
    """A clock that moves when someone sleeps on it."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def asks(limited: Callable[..., object], *names: str) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(limited(request(name))) for name in names]  # type: ignore[arg-type]


async def breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_window_are_in_flight_and_the_rest_come_in_order() -> None:
    gate = Gate()
    limited = Limited(gate, concurrency=2)
    tasks = asks(limited, "a", "b", "c", "d")
    await breathe()
    assert gate.began == ["a", "b"]
    gate.answer("b")
    await breathe()
    assert gate.began == ["a", "b", "c"]
    gate.answer("a")
    gate.answer("c")
    await breathe()
    gate.answer("d")
    await asyncio.gather(*tasks)
    assert (limited.stats.most_in_flight, limited.stats.waits, limited.stats.in_flight) == (2, 2, 0)


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    gate = Gate()
    limited = Limited(gate, concurrency=1)
    tasks = asks(limited, "a", "b")
    await breathe()
    gate.answer("a")
    tasks += asks(limited, "c")
    await breathe()
    assert gate.began == ["a", "b"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_waiter_leaves_its_place_to_the_next() -> None:
    gate = Gate()
    limited = Limited(gate, concurrency=1)
    first, second, third = asks(limited, "a", "b", "c")
    await breathe()
    second.cancel()
    gate.answer("a")
    await breathe()
    assert gate.began == ["a", "c"]
    gate.answer("c")
    await asyncio.gather(first, third)
    assert limited.stats.in_flight == 0


async def test_a_waiter_cancelled_in_the_moment_it_is_let_in_passes_the_room_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    limited = Limited(gate, concurrency=1)
    first, second, third = asks(limited, "a", "b", "c")
    await breathe()
    let_in = limited._wake

    def wake_and_cancel() -> None:
        let_in()
        second.cancel()

    monkeypatch.setattr(limited, "_wake", wake_and_cancel)
    gate.answer("a")
    await first
    await breathe()
    assert gate.began == ["a", "c"]
    gate.answer("c")
    await third
    assert limited.stats.in_flight == 0


async def test_an_exception_gives_the_slot_back() -> None:
    async def broken(asked: ChatRequest) -> ChatReply | CallError:
        raise RuntimeError("bug")

    limited = Limited(broken, concurrency=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await limited(request())
    assert limited.stats.in_flight == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["ask", "answer", "cancel", "429", "breathe"]), st.integers(0, 9)), max_size=40),
)
def test_whatever_comes_and_goes_no_slot_is_lost_and_none_is_made(
    concurrency: int, steps: list[tuple[str, int]]
) -> None:
    async def main() -> None:
        gate = Gate()
        limited = Limited(gate, concurrency=concurrency)
        tasks: list[asyncio.Task[object]] = []
        for number, (what, which) in enumerate(steps):
            if what == "ask":
                tasks += asks(limited, str(number))
            elif what == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            elif what in ("answer", "429") and gate.open:
                name = sorted(gate.open)[which % len(gate.open)]
                if not gate.open[name].done():
                    gate.answer(name, OK if what == "answer" else SLOW_DOWN)
            elif what == "breathe":
                await breathe()
            assert 0 <= limited.stats.in_flight <= concurrency
            assert 1 <= limited.stats.window <= concurrency
        for _ in range(len(tasks) * 3 + 3):
            await breathe()
            for future in list(gate.open.values()):
                if not future.done():
                    future.set_result(OK)
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(result in (OK, SLOW_DOWN) or isinstance(result, asyncio.CancelledError) for result in done)
        assert limited.stats.in_flight == 0

    asyncio.run(main())


async def test_a_burst_of_429_cuts_the_window_once_and_a_later_one_again() -> None:
    gate = Gate()
    limited = Limited(gate, concurrency=16)
    tasks = asks(limited, *map(str, range(16)))
    await breathe()
    for name in range(8):
        gate.answer(str(name), SLOW_DOWN)
    await breathe()
    assert (limited.stats.window, limited.stats.cuts, limited.stats.rate_limited) == (12, 1, 8)
    tasks += asks(limited, "later")
    await breathe()
    gate.answer("later", SLOW_DOWN)
    await breathe()
    assert (limited.stats.window, limited.stats.cuts) == (9, 2)
    for name in range(8, 16):
        gate.answer(str(name), SLOW_DOWN)
    await asyncio.gather(*tasks)
    assert limited.stats.window == 9


async def test_25_answers_widen_a_cut_window_by_one_and_never_past_the_concurrency() -> None:
    results: list[ChatReply | CallError] = [SLOW_DOWN, *[OK] * 24]

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return results.pop(0) if results else OK

    limited = Limited(call, concurrency=4)
    for _ in range(25):
        await limited(request())
    assert limited.stats.window == 3
    await limited(request())
    assert limited.stats.window == 4
    for _ in range(60):
        await limited(request())
    assert limited.stats.window == 4


async def test_the_window_never_closes() -> None:
    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return SLOW_DOWN

    limited = Limited(call, concurrency=3)
    for _ in range(20):
        await limited(request())
    assert limited.stats.window == 1


async def test_a_single_500_cuts_nothing_but_a_burst_does() -> None:
    results: list[ChatReply | CallError] = [BROKEN, OK, BROKEN]

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return results.pop(0)

    limited = Limited(call, concurrency=8)
    await limited(request())
    assert limited.stats.window == 8
    await limited(request())
    await limited(request())
    assert (limited.stats.window, limited.stats.overloaded) == (6, 2)


async def test_requests_a_minute_are_spread_over_its_seconds() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return OK

    limited = Limited(call, concurrency=8, rpm=120, clock=time.clock, sleep=time.sleep)
    for _ in range(5):
        await limited(request())
    assert began == [0, 0.5, 1.0, 1.5, 2.0]
    assert (limited.stats.waits, limited.stats.paced_seconds) == (4, 2.0)


async def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return OK

    limited = Limited(call, concurrency=8, rpm=60, clock=time.clock, sleep=time.sleep)
    await limited(request())
    time.now += 30
    await limited(request())
    await limited(request())
    assert began == [0, 30, 31]


async def test_tokens_a_minute_are_paced_by_the_real_usage_of_the_calls_before() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return OK

    limited = Limited(call, concurrency=8, tpm=600, estimate=lambda r: 50, clock=time.clock, sleep=time.sleep)
    for _ in range(3):
        await limited(request())
    assert began == [0, 10, 20]


async def test_a_call_that_failed_gives_its_tokens_back() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return BROKEN

    limited = Limited(call, concurrency=8, tpm=600, estimate=lambda r: 50, clock=time.clock, sleep=time.sleep)
    await limited(request())
    await limited(request())
    assert began == [0, 0]


async def test_a_retry_s_wait_holds_no_slot() -> None:
    results: list[ChatReply | CallError] = [SLOW_DOWN, OK, OK]
    in_flight_while_waiting: list[int] = []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return results.pop(0)

    limited = Limited(call, concurrency=1)

    async def sleep(seconds: float) -> None:
        in_flight_while_waiting.append(limited.stats.in_flight)
        assert await limited(request()) is OK

    await Retrying(limited, sleep=sleep)(request())
    assert in_flight_while_waiting == [0]


def test_rough_tokens_grow_with_the_text_and_take_surrogates() -> None:
    assert rough_tokens(request("x" * 4000)) - rough_tokens(request()) == 1000
    assert rough_tokens(request("\ud800")) > 0
