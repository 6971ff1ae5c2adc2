"""A ceiling over several workers: what is granted is taken until it comes back."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest

from extractors.budget import Amount
from extractors.errors import BudgetReached
from extractors.purse import Advance, Purse, SharedBudget

NOTHING = Amount()


def tokens(number: int) -> Amount:
    return Amount(Decimal(0), number)


def worker(purse: Purse, name: str, seconds: float = 0.0) -> SharedBudget:
    async def draw(spent: Amount, back: Amount, least: Amount, want: Amount) -> Advance:
        await asyncio.sleep(seconds)
        return purse.draw(name, spent=spent, back=back, least=least, want=want)

    return SharedBudget(draw, max_cost=purse.max_cost, max_tokens=purse.max_tokens)


def test_a_draw_gives_what_there_is_but_no_less_than_the_least() -> None:
    purse = Purse(None, 100)
    assert purse.draw("a", spent=NOTHING, back=NOTHING, least=tokens(10), want=tokens(80)) == Advance(tokens(80))
    assert purse.draw("b", spent=NOTHING, back=NOTHING, least=tokens(10), want=tokens(80)) == Advance(tokens(20))
    assert purse.draw("b", spent=tokens(20), back=NOTHING, least=tokens(10), want=tokens(80)) == Advance(None, True)


def test_what_a_lost_worker_held_stays_taken_and_nobody_waits_for_it() -> None:
    purse = Purse(None, 100)
    purse.draw("a", spent=NOTHING, back=NOTHING, least=tokens(10), want=tokens(95))
    purse.lost("a")
    assert purse.draw("b", spent=NOTHING, back=NOTHING, least=tokens(10), want=tokens(10)) == Advance(None, False)
    assert purse.taken == tokens(95)


@pytest.mark.parametrize("seed", range(5))
async def test_workers_together_never_spend_more_and_use_nearly_all(seed: int) -> None:
    draw = random.Random(seed)
    purse = Purse(None, 2_000)
    spent = 0

    async def work(budget: SharedBudget) -> None:
        nonlocal spent
        while True:
            try:
                await budget.reserve(tokens(30))
            except BudgetReached as reached:
                assert "--max-tokens 2,000" in str(reached)
                return
            real = draw.randint(5, 30)
            await asyncio.sleep(draw.random() / 500)
            spent += real
            budget.settle(tokens(30), tokens(real))

    budgets = [worker(purse, name, 0.001) for name in "abc"]
    await asyncio.wait_for(asyncio.gather(*(work(one) for one in budgets for _ in range(4))), 60)
    assert 2_000 - 30 < spent <= 2_000


async def test_an_idle_worker_gives_back_what_it_did_not_spend() -> None:
    purse = Purse(Decimal(1), None)
    budget = worker(purse, "a")
    await budget.reserve(Amount(Decimal("0.1"), 500))
    assert purse.taken.cost == Decimal("0.8")
    budget.settle(Amount(Decimal("0.1"), 500), Amount(Decimal("0.03"), 50))
    await asyncio.sleep(0.3)
    assert purse.taken.cost == Decimal("0.03")


async def test_calls_that_end_while_more_is_asked_for_leave_room_for_the_next() -> None:
    purse = Purse(None, 240)
    budget = worker(purse, "a", 0.02)
    for _ in range(8):
        await budget.reserve(tokens(30))
    refused = asyncio.ensure_future(budget.reserve(tokens(30)))
    await asyncio.sleep(0.005)
    for _ in range(8):
        budget.settle(tokens(30), tokens(5))
    await asyncio.wait_for(refused, 5)
    assert (budget.open, budget.spent) == (1, tokens(40))


async def test_what_is_on_its_way_back_is_waited_for() -> None:
    purse = Purse(None, 240)
    late = asyncio.Event()

    async def draw(spent: Amount, back: Amount, least: Amount, want: Amount) -> Advance:
        if back != NOTHING:
            await late.wait()
        return purse.draw("a", spent=spent, back=back, least=least, want=want)

    budget = SharedBudget(draw, max_cost=None, max_tokens=240)
    await budget.reserve(tokens(30))
    budget.settle(tokens(30), tokens(5))
    await asyncio.sleep(0.15)
    asked = asyncio.ensure_future(budget.reserve(tokens(30)))
    await asyncio.sleep(0.05)
    assert not asked.done(), "asked for more before what it held was given back"
    late.set()
    await asyncio.wait_for(asked, 5)
    assert (budget.open, budget.spent) == (1, tokens(5))
