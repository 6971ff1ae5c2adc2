from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from extractors.account import Account, Accounts, Place
from extractors.limits import Limited, rough_tokens
from extractors.qwen.requests import AnswerShape, CallError, ChatReply, ChatRequest, ErrorKind, Message, Mode
from extractors.retry import Retrying
from schemas.usage import Usage

SHAPE = AnswerShape("a", {}, Mode.PROMPTED)
OK = ChatReply("{}", "stop", Usage(1, 60, 40), "m")
SLOW_DOWN = CallError(ErrorKind.RATE_LIMITED, "no", "m", 429)
STEEP = CallError(ErrorKind.RATE_LIMITED, "no", "m", 429, code="limit_burst_rate")
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
    wake = Place.wake

    def wake_and_cancel(place: Place) -> None:
        wake(place)
        second.cancel()

    monkeypatch.setattr(Place, "wake", wake_and_cancel)
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


async def test_a_window_s_worth_of_answers_widens_a_cut_window_by_one_and_never_past_the_concurrency() -> None:
    results: list[ChatReply | CallError] = [SLOW_DOWN]

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return results.pop(0) if results else OK

    limited = Limited(call, concurrency=4)
    for _ in range(3):
        await limited(request())
    assert limited.stats.window == 3
    await limited(request())
    assert limited.stats.window == 4
    for _ in range(60):
        await limited(request())
    assert limited.stats.window == 4


async def test_a_wide_window_is_widened_after_25_answers() -> None:
    results: list[ChatReply | CallError] = [SLOW_DOWN]

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return results.pop(0) if results else OK

    limited = Limited(call, concurrency=100)
    for _ in range(25):
        await limited(request())
    assert limited.stats.window == 75
    await limited(request())
    assert limited.stats.window == 76


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
    # A little slower than asked, so that jitter on the way does not add up to one more in a second.
    assert began == pytest.approx([0, 0.55, 1.1, 1.65, 2.2])
    assert (limited.stats.waits, limited.stats.paced_seconds) == (4, pytest.approx(2.2))


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
    assert began == pytest.approx([0, 30, 31.1])


async def test_tokens_a_minute_are_paced_by_the_real_usage_of_the_calls_before() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return OK

    limited = Limited(call, concurrency=8, tpm=600, estimate=lambda r: 50, clock=time.clock, sleep=time.sleep)
    for _ in range(3):
        await limited(request())
    assert began == pytest.approx([0, 11, 22])


async def test_a_call_that_failed_gives_its_tokens_back() -> None:
    time, began = Time(), []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return BROKEN

    limited = Limited(call, concurrency=8, tpm=600, estimate=lambda r: 50, clock=time.clock, sleep=time.sleep)
    await limited(request())
    await limited(request())
    assert began == [0, 0]


class Rate:
    """The most of its calls that began within any second."""

    def __init__(self, time: Time) -> None:
        self.time, self.began = time, list[float]()

    async def __call__(self, asked: ChatRequest) -> ChatReply | CallError:
        self.began.append(self.time.now)
        return OK

    @property
    def highest(self) -> int:
        return max(sum(at <= other < at + 1 for other in self.began) for at in self.began)


@pytest.mark.parametrize("rpm", [1, 59, 60, 61, 90, 119, 600, 1234, 15_000])
async def test_no_second_sees_more_than_a_sixtieth_of_the_minute_however_late_we_wake(rpm: int) -> None:
    time = Time()
    chance = random.Random(rpm)

    async def sleep(seconds: float) -> None:
        time.now += seconds + chance.choice([0, 0, 0.001, 0.03, 0.7])

    call = Rate(time)
    limited = Limited(call, concurrency=8, rpm=rpm, clock=time.clock, sleep=sleep)
    for _ in range(200):
        await limited(request())
    assert call.highest <= max(1, rpm // 60)


async def test_waking_a_little_late_does_not_slow_the_rate_down() -> None:
    time = Time()

    async def sleep(seconds: float) -> None:
        time.now += seconds + 0.002

    call = Rate(time)
    limited = Limited(call, concurrency=8, rpm=6000, clock=time.clock, sleep=sleep)
    for _ in range(1000):
        await limited(request())
    assert time.now - 100 == pytest.approx(1000 / 100 * 1.1, rel=0.03)


async def test_two_runs_of_one_account_share_its_rate_and_the_lower_one_holds() -> None:
    time = Time()
    call, account = Rate(time), Account()
    one = Limited(call, concurrency=8, rpm=600, account=account, clock=time.clock, sleep=time.sleep)
    two = Limited(call, concurrency=8, rpm=300, account=account, clock=time.clock, sleep=time.sleep)
    for _ in range(20):
        await one(request())
        await two(request())
    assert call.highest == 5
    two.close()
    for _ in range(20):
        await one(request())
    assert call.highest == 10


async def test_two_runs_of_one_account_share_its_window_in_turns_and_keep_their_own_ceilings() -> None:
    gate, account = Gate(), Account()
    many = Limited(gate, concurrency=4, account=account)
    few = Limited(gate, concurrency=1, account=account)
    tasks = asks(many, "m1", "m2", "m3", "m4", "m5") + asks(few, "f1", "f2")
    await breathe()
    assert gate.began == ["m1", "m2", "m3", "m4"]
    for name in ("m1", "m2", "m3"):
        gate.answer(name)
    await breathe()
    assert gate.began[4:] == ["m5", "f1"] or gate.began[4:] == ["f1", "m5"]
    gate.answer("f1")
    await breathe()
    assert gate.began[6:] == ["f2"]
    for name in list(gate.open):
        gate.answer(name)
    await asyncio.gather(*tasks)
    assert account.in_flight == 0


async def test_a_429_of_one_run_narrows_the_other() -> None:
    async def call(asked: ChatRequest) -> ChatReply | CallError:
        return SLOW_DOWN if asked.messages[0].content == "bad" else OK

    account = Account()
    one, two = (Limited(call, concurrency=8, account=account) for _ in range(2))
    await one(request("bad"))
    await two(request())
    assert (one.stats.window, two.stats.window, two.stats.rate_limited) == (6, 6, 0)


def test_runs_in_threads_and_loops_of_their_own_never_pass_the_account_together() -> None:
    account, lock = Account(), threading.Lock()
    now = most = done = 0

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        nonlocal now, most, done
        with lock:
            now += 1
            most = max(most, now)
        await asyncio.sleep(0.001)
        with lock:
            now -= 1
            done += 1
        return OK

    async def run() -> None:
        limited = Limited(call, concurrency=5, account=account)
        await asyncio.wait_for(asyncio.gather(*(limited(request()) for _ in range(200))), 30)
        limited.close()

    threads = [threading.Thread(target=lambda: asyncio.run(run())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, done, account.in_flight) == (5, 800, 0)


async def test_after_a_429_for_steepness_calls_begin_along_a_ramp_that_doubles() -> None:
    time, results = Time(), [STEEP]
    began: list[float] = []

    async def call(asked: ChatRequest) -> ChatReply | CallError:
        began.append(time.now - 100)
        return results.pop() if results else OK

    limited = Limited(call, concurrency=4, clock=time.clock, sleep=time.sleep)
    for _ in range(8):
        await limited(request())
    assert began == pytest.approx([0, 0, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75])
    results.append(STEEP)
    began.clear()
    for _ in range(4):
        await limited(request())
    assert began == pytest.approx([0.75, 0.75, 1.25, 1.75])


async def test_a_run_may_begin_along_a_ramp() -> None:
    time = Time()
    call = Rate(time)
    limited = Limited(call, concurrency=4, ramp=1.0, clock=time.clock, sleep=time.sleep)
    for _ in range(6):
        await limited(request())
    assert [at - 100 for at in call.began] == pytest.approx([0, 0.25, 0.5, 0.75, 0.75, 0.75])


async def test_a_stopped_run_takes_no_turns_from_the_next() -> None:
    time, account, stopped = Time(), Account(), False
    call = Rate(time)

    async def stop(seconds: float) -> None:
        nonlocal stopped
        stopped = True

    ended = Limited(call, concurrency=8, rpm=60, account=account, clock=time.clock, sleep=stop, stopped=lambda: stopped)
    await asyncio.gather(*(ended(request()) for _ in range(8)))
    ended.close()
    call.began.clear()
    following = Limited(call, concurrency=8, rpm=60, account=account, clock=time.clock, sleep=time.sleep)
    await following(request())
    assert call.began == pytest.approx([101.1])


async def test_a_limit_that_is_counted_elsewhere_is_asked_before_each_call() -> None:
    time = Time()
    call, answers = Rate(time), [0.5, 0.25, 0, 0, 2, 0]

    async def permit() -> float:
        return answers.pop(0)

    limited = Limited(call, concurrency=4, permit=permit, clock=time.clock, sleep=time.sleep)
    for _ in range(3):
        await limited(request())
    assert [at - 100 for at in call.began] == [0.75, 0.75, 2.75]


def test_an_account_is_an_address_a_key_and_a_model() -> None:
    accounts = Accounts()

    def at(address: str = "https://a.example/v1", key: str = "one", model: str = "m") -> Account:
        return accounts.at(address, SecretStr(key), model, now=0)

    first = at()
    share = first.join(concurrency=1)
    assert at("https://a.example/other") is first
    for other in (at("https://b.example/v1"), at(key="two"), at(model="n")):
        assert other is not first
    assert at() is first
    first.leave(share)
    at("https://b.example/v1")
    assert at() is not first


async def test_a_run_that_leaves_with_calls_in_flight_gives_their_places_back_once() -> None:
    account = Account()
    share = account.join(concurrency=2)
    epochs = [await account.enter(share) for _ in range(2)]
    waiting = asyncio.create_task(account.enter(share))
    await asyncio.sleep(0)
    account.leave(share)
    for epoch in epochs:
        account.leave_room(share, epoch, None)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert account.in_flight == 0, "less than none would let the next run have more calls in flight than it may"


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
