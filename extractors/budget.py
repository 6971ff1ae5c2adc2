"""Ceilings on money and tokens that cannot be passed: the worst case is reserved before, settled after.

The worst case of a call is a bound, not an estimate. Qwen's byte-level tokenizer makes at most one token of
each UTF-8 byte, so the input is at most the bytes of the messages (after NFC, which the tokenizer applies
and which can lengthen text) and of the answer's shape, plus what the chat template adds. The output is at
most ``max_output_tokens`` (in a dialect that knows no such limit: all that the model can write), and the thinking
budget where the model thinks. All of it is priced at the dearest tier that it can reach.

After the call the real usage takes the place of the reservation. Where the other side may have charged
without saying what (a time-out, a connection cut after the request left, a reply without usage, a
stream not heard to its end or with an error in its middle, a usage without its input, a call cancelled in flight, a
gateway's 502 or 504), the worst case stays charged: a ceiling errs on the safe side.
"""

from __future__ import annotations

import asyncio
import logging
import unicodedata
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

import orjson

from extractors.errors import BudgetReached, JobError
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, ErrorKind
from extractors.qwen.tool_calls import offered
from extractors.qwen.transport import NOT_SENT
from extractors.tokens import most_image_tokens, most_tokens
from schemas.usage import Usage

logger = logging.getLogger(__name__)

_PER_MESSAGE = 16
"""Role, markers and line breaks of one message in the chat template."""
_PER_CALL = 96
"""The template's own system message, and the marker that starts the answer."""
_PER_TOOLS = 384
"""The template's words around a tool."""
_OUTPUT_SLACK = 16
"""Services overrun the output limit by up to 10 tokens."""
_NO_MONEY = Decimal(0)
_NOT_CHARGED = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.OVERLOADED,
        ErrorKind.REFUSED,
        ErrorKind.TOO_LONG,
        ErrorKind.BAD_REQUEST,
        ErrorKind.UNSUPPORTED,
        ErrorKind.KEY,
        ErrorKind.MODEL,
    }
)
_GATEWAYS = frozenset({502, 504})


@dataclass(frozen=True, slots=True)
class Amount:
    """Money and tokens, of a reservation or a sum."""

    cost: Decimal = _NO_MONEY
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cost + other.cost, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cost - other.cost, self.tokens - other.tokens)


class Budget:
    """The ceilings of a run, what is spent, and what calls in flight may still take. One event loop's.

    ``spent + reserved`` never passes a ceiling. None: no ceiling of that sort."""

    def __init__(self, max_cost: Decimal | None = None, max_tokens: int | None = None) -> None:
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.spent = Amount()
        self.reserved = Amount()
        self.open = 0
        """Reservations that are not settled yet."""
        self._waiting: deque[tuple[Amount, asyncio.Future[None]]] = deque()

    @property
    def left(self) -> tuple[Decimal | None, int | None]:
        """Money and tokens that are neither spent nor reserved; None where there is no ceiling."""
        taken = self.spent + self.reserved
        return (
            None if self.max_cost is None else self.max_cost - taken.cost,
            None if self.max_tokens is None else self.max_tokens - taken.tokens,
        )

    async def reserve(self, worst: Amount) -> None:
        """Set ``worst`` aside. Waits while calls in flight may give room back; raises ``BudgetReached`` when
        none is and it does not fit. First come, first served."""
        if not self._waiting and self._fits(worst):
            self._take(worst)
            return
        if not self.open:
            raise self._reached(worst)
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((worst, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.open -= 1
                self.reserved -= worst
            self._wake()
            raise

    def settle(self, worst: Amount, real: Amount) -> None:
        """Put the real amount in a reservation's place, and let in who fits now."""
        self.open -= 1
        self.reserved -= worst
        self.spent += real
        self._wake()

    def _take(self, worst: Amount) -> None:
        self.open += 1
        self.reserved += worst

    def _fits(self, worst: Amount) -> bool:
        if self.max_cost is not None and self.spent.cost + self.reserved.cost + worst.cost > self.max_cost:
            return False
        return self.max_tokens is None or self.spent.tokens + self.reserved.tokens + worst.tokens <= self.max_tokens

    def _wake(self) -> None:
        while self._waiting:
            worst, place = self._waiting[0]
            if place.done():
                self._waiting.popleft()
            elif self._fits(worst):
                self._waiting.popleft()
                self._take(worst)
                place.set_result(None)
            elif not self.open:
                self._waiting.popleft()
                place.set_exception(self._reached(worst))
            else:
                return

    def _reached(self, worst: Amount) -> BudgetReached:
        if self.max_cost is not None and self.spent.cost + worst.cost > self.max_cost:
            return BudgetReached(
                f"--max-cost {self.max_cost} is reached: {self.spent.cost:.6f} is spent, and the next call may "
                f"cost up to {worst.cost:.6f}"
            )
        return BudgetReached(
            f"--max-tokens {self.max_tokens:,} is reached: {self.spent.tokens:,} are spent, and the next call may "
            f"take up to {worst.tokens:,}"
        )


class Budgeted:
    """A ``Call`` within a ``Budget``; raises ``BudgetReached`` instead of asking when the next one may not fit.

    It belongs around the transport itself (``Retrying(Limited(Budgeted(transport)))``): every try can be
    charged, so every try is reserved; and a call that queues for a slot or a minute reserves nothing, so that
    a small ceiling is not blocked by calls that have not begun. A call that waits here for room does hold a
    slot, but it waits only for calls that are through the limiter already, so it cannot wait for ever.

    ``least_output``: see ``worst_case``.
    Raises ``JobError`` at once for a ceiling on money where the price is unknown.
    """

    def __init__(self, call: Call, budget: Budget, *, pricing: Pricing, least_output: int = 0) -> None:
        if budget.max_cost is not None and not pricing.known:
            raise JobError(
                "--max-cost cannot be held: the price of this model is unknown. Add its `prices` in a profiles file "
                "(QUARRY_PROFILES), or use --max-tokens"
            )
        self._call = call
        self._budget = budget
        self._pricing = pricing
        self._least_output = least_output

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """Reserve, ask, settle."""
        worst = worst_case(request, self._pricing, least_output=self._least_output)
        await self._budget.reserve(worst)
        real = worst
        try:
            result = await self._call(request)
            real = _charged(result, worst, self._pricing)
        finally:
            self._budget.settle(worst, real)
        if real.tokens > worst.tokens or real.cost > worst.cost:
            logger.warning(
                "%s told a usage of %d tokens, more than the bound of %d", request.model, real.tokens, worst.tokens
            )
        return result


def worst_case(request: ChatRequest, pricing: Pricing, *, least_output: int = 0) -> Amount:
    """The most that one HTTP try of this request may take. The cost is 0 where the price is unknown.

    ``least_output`` is for a service that may not heed the request's own output limit."""
    fresh = _PER_CALL
    for message in request.messages:
        fresh += _PER_MESSAGE + _most(message.content)
        fresh += sum(most_image_tokens(image.width, image.height) for image in message.images)
        fresh += sum(_PER_MESSAGE + _most(call.name) + _most(call.arguments) for call in message.tool_calls)
    if request.tools:
        fresh += len(orjson.dumps(offered(request.tools))) + _PER_TOOLS
    wire = {key: value for key, value in request.shape.wire.items() if key != "grammar"}
    if wire:
        fresh += len(orjson.dumps(wire)) + (_PER_TOOLS if "tools" in wire else 0)
    thinks = bool(request.thinking) or (request.thinking is None and pricing.always_thinks)
    made = max(request.max_output_tokens, least_output) + _OUTPUT_SLACK + (pricing.max_thinking if thinks else 0)
    return Amount(pricing.worst_cost(fresh, made, thinks=thinks) or _NO_MONEY, fresh + made)


def _most(text: str) -> int:
    if text.isascii():
        return len(text)
    return max(most_tokens(text), most_tokens(unicodedata.normalize("NFC", text)))


def _charged(result: ChatReply | CallError, worst: Amount, pricing: Pricing) -> Amount:
    """What a finished call took: its usage where one was told, else nothing or the worst case."""
    usage = result.usage
    if isinstance(result, ChatReply) and result.usage_estimated:
        return worst
    if usage.input_tokens:
        return _amount(usage, pricing)
    if isinstance(result, CallError) and not usage.total_tokens:
        # Usage without input is half of one: no call has none.
        free = result.kind in _NOT_CHARGED and result.http_status not in _GATEWAYS and not result.begun
        if free or result.code == NOT_SENT:
            return Amount()
    return worst


def _amount(usage: Usage, pricing: Pricing) -> Amount:
    cost = usage.cost if usage.cost is not None else pricing.cost(usage)
    return Amount(cost or _NO_MONEY, usage.total_tokens)
