"""Money and pace that all workers of a Dask cluster share: kept by its scheduler, asked by the workers over Dask's own
connections. The scheduler's process needs Quarry installed, as the workers' do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, cast

import distributed
from distributed.diagnostics.plugin import SchedulerPlugin

from extractors.budget import Amount, Budget
from extractors.limits import Permit
from extractors.pace import MARGIN
from extractors.purse import Advance, Purse, SharedBudget


class SharedLimits(SchedulerPlugin):
    """A run's purse and its calls a minute, inside the scheduler."""

    def __init__(self, run_id: str, *, max_cost: Decimal | None, max_tokens: int | None, rpm: int | None) -> None:
        self.name = f"quarry-{run_id}"
        self._run_id = run_id
        self._purse = Purse(max_cost, max_tokens)
        self._apart = 0.0 if rpm is None else (1 + MARGIN) * 60.0 / rpm
        self._next = 0.0

    async def start(self, scheduler: distributed.Scheduler) -> None:
        """Answer the workers' questions from now on."""
        scheduler.handlers[_draw_name(self._run_id)] = self.draw
        scheduler.handlers[_turn_name(self._run_id)] = self.turn

    def remove_worker(self, scheduler: distributed.Scheduler, worker: str, **kwargs: Any) -> None:
        """A worker is gone: what it held stays taken."""
        self._purse.lost(worker)

    async def draw(self, who: str, amounts: list[tuple[str, int]]) -> tuple[str, int, bool, bool]:
        """``Purse.draw`` in types that Dask sends as they are."""
        spent, back, least, want = (Amount(Decimal(cost), tokens) for cost, tokens in amounts)
        got = self._purse.draw(who, spent=spent, back=back, least=least, want=want)
        amount = got.amount or Amount()
        return str(amount.cost), amount.tokens, got.amount is not None, got.others

    async def turn(self) -> float:
        """Seconds until the call that is granted here may begin."""
        now = time.monotonic()
        begin = max(now, self._next)
        self._next = begin + self._apart
        return begin - now


def budget_of(run_id: str, worker: distributed.Worker) -> Callable[[Decimal | None, int | None], Budget]:
    """How a worker makes its budget: from the run's purse."""

    async def draw(*amounts: Amount) -> Advance:
        told = [(str(one.cost), one.tokens) for one in amounts]
        cost, tokens, granted, others = await _ask(worker, _draw_name(run_id), who=worker.address, amounts=told)
        return Advance(Amount(Decimal(cost), tokens) if granted else None, others)

    def make(max_cost: Decimal | None, max_tokens: int | None) -> Budget:
        return SharedBudget(draw, max_cost=max_cost, max_tokens=max_tokens)

    return make


def turns_of(run_id: str, worker: distributed.Worker) -> Permit:
    """The run's calls a minute as a permit."""

    async def permit() -> float:
        await asyncio.sleep(await _ask(worker, _turn_name(run_id)))
        return 0.0

    return permit


def both(first: Permit, second: Permit | None) -> Permit:
    """A call needs leave of both."""

    async def permit() -> float:
        if second is not None and (wait := await second()) > 0:
            return wait
        return await first()

    return permit


async def _ask(worker: distributed.Worker, operation: str, **told: Any) -> Any:
    """A question to the scheduler from another event loop than the worker's."""

    async def ask() -> Any:
        return await cast(Callable[..., Awaitable[Any]], getattr(worker.scheduler, operation))(**told)

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), worker.loop.asyncio_loop))  # type: ignore[attr-defined]


def _draw_name(run_id: str) -> str:
    return f"quarry_draw_{run_id}"


def _turn_name(run_id: str) -> str:
    return f"quarry_turn_{run_id}"
