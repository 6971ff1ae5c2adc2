"""One ceiling for several processes: a purse that grants advances, and the budget of a worker that draws them.

What is granted counts as taken until it is given back, so the sum of all that workers may spend never passes the ceiling,
whoever dies: the advance of a worker that is lost stays taken. An advance is a few calls' worst case, drawn before
they are made; a worker without calls in flight gives back what it did not spend.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal

from extractors.budget import Amount, Budget
from extractors.errors import BudgetReached

logger = logging.getLogger(__name__)

AHEAD = 8
"""Calls that an advance is meant to last for, by the worst case of the one that asks."""
_POLL_SECONDS = 0.2
_IDLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Advance:
    """What a draw gave, None when it could not be. ``others``: other workers hold money that may still come back."""

    amount: Amount | None
    others: bool = False


@dataclass(slots=True)
class Purse:
    """The ceilings of a run (None: none of that sort), and what was granted of them. Not for several threads."""

    max_cost: Decimal | None
    max_tokens: int | None
    taken: Amount = field(default_factory=Amount)
    held: dict[str, Amount] = field(default_factory=dict)
    """What each worker was granted and has neither spent nor given back, as far as it told."""

    def draw(self, who: str, *, spent: Amount, back: Amount, least: Amount, want: Amount) -> Advance:
        """Take note of what ``who`` spent and gives back, and grant ``want``, or what there is but no less than
        ``least``."""
        self.taken -= back
        self.held[who] = self.held.get(who, Amount()) - spent - back
        cost = want.cost if self.max_cost is None else min(want.cost, self.max_cost - self.taken.cost)
        tokens = want.tokens if self.max_tokens is None else min(want.tokens, self.max_tokens - self.taken.tokens)
        if cost < least.cost or tokens < least.tokens:
            return Advance(None, any(_some(held) for name, held in self.held.items() if name != who))
        granted = Amount(cost, tokens)
        self.taken += granted
        self.held[who] += granted
        return Advance(granted)

    def lost(self, who: str) -> None:
        """A worker is gone. What it held may be spent, so it stays taken, and nobody waits for it."""
        self.held.pop(who, None)


Draw = Callable[[Amount, Amount, Amount, Amount], Awaitable[Advance]]
"""``Purse.draw`` of this worker, wherever the purse is: spent, back, least, want."""


class SharedBudget(Budget):
    """A worker's part of a budget: its ceilings are what it has drawn so far."""

    def __init__(self, draw: Draw, *, max_cost: Decimal | None, max_tokens: int | None) -> None:
        super().__init__(None if max_cost is None else Decimal(0), None if max_tokens is None else 0)
        self._draw = draw
        self._whole = (max_cost, max_tokens)
        self._granted = Amount()
        self._told = Amount()
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()
        self._returning: set[asyncio.Task[Advance]] = set()

    async def reserve(self, worst: Amount) -> None:
        """As ``Budget.reserve``; it also waits while another worker may give room back."""
        async with self._turn:
            while not self._fits(worst):
                await self._more(worst)
            self._take(worst)

    def settle(self, worst: Amount, real: Amount) -> None:
        """Put the real amount in a reservation's place."""
        super().settle(worst, real)
        self._settled.set()
        if not self.open:
            asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._return_when_idle)

    async def _more(self, worst: Amount) -> None:
        if self._returning:
            # What comes back from here must be there before more is asked for.
            await asyncio.wait(self._returning)
        self._settled.clear()
        # Calls that end while the question is on its way leave room that it could not give back.
        idle = not self.open
        advance = await self._exchange(worst, Amount(worst.cost * AHEAD, worst.tokens * AHEAD))
        if advance.amount is not None:
            return
        if idle and not advance.others:
            raise BudgetReached(self._said(worst))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), _POLL_SECONDS)

    async def _exchange(self, least: Amount, want: Amount) -> Advance:
        back = Amount() if self.open else self._granted - self.spent
        spent, self._told = self.spent - self._told, self.spent
        # At once: nothing that is on its way back may be reserved.
        self._set(self._granted - back)
        advance = await self._draw(spent, back, least, want)
        if advance.amount is not None:
            self._set(self._granted + advance.amount)
        return advance

    def _return_when_idle(self) -> None:
        if not self.open and not self._turn.locked() and _some(self._granted - self._told):
            task = asyncio.ensure_future(self._exchange(Amount(), Amount()))
            self._returning.add(task)
            task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[Advance]) -> None:
        self._returning.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # It may have arrived or not, so it stays counted as taken: a ceiling errs on the safe side.
            logger.warning("what this worker did not spend could not be given back: %s", error)

    def _set(self, granted: Amount) -> None:
        self._granted = granted
        self.max_cost = None if self.max_cost is None else granted.cost
        self.max_tokens = None if self.max_tokens is None else granted.tokens

    def _said(self, worst: Amount) -> str:
        cost, tokens = self._whole
        told = [] if cost is None else [f"--max-cost {cost} (the next call may cost up to {worst.cost:.6f})"]
        told += [] if tokens is None else [f"--max-tokens {tokens:,} (it may take up to {worst.tokens:,})"]
        return f"reached by all workers together: {' or '.join(told)}"


def _some(amount: Amount) -> bool:
    return amount.cost > 0 or amount.tokens > 0
