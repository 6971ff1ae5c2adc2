"""Tokens and money. Usage adds with ``+``; money is ``Decimal``, never float."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

_LEAST = Decimal("0.0000000001")
"""The smallest amount of money that the tables hold."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one or more calls consumed.

    ``cached_tokens`` is the part of ``input_tokens`` that the provider read from its cache, and
    ``reasoning_tokens`` the part of ``output_tokens`` spent thinking. ``cost`` is in ``currency``;
    a model without a known price costs ``None``, which is not the same as zero.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = Decimal(0)

    def __add__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost=cost,
        )

    def shared(self, ways: int) -> tuple[Usage, ...]:
        """The usage of one call shared out among ``ways`` records: what does not divide goes to the first ones, and the
        shares add up to it exactly. Money is shared in ten-billionths, the rest of it to the first."""
        each = None if self.cost is None else (self.cost / ways).quantize(_LEAST, ROUND_DOWN)

        def share(count: int, place: int) -> int:
            return count // ways + (place < count % ways)

        def money(place: int) -> Decimal | None:
            return each if self.cost is None or each is None or place else self.cost - each * (ways - 1)

        return tuple(
            Usage(
                calls=share(self.calls, place),
                input_tokens=share(self.input_tokens, place),
                output_tokens=share(self.output_tokens, place),
                cached_tokens=share(self.cached_tokens, place),
                reasoning_tokens=share(self.reasoning_tokens, place),
                cost=money(place),
            )
            for place in range(ways)
        )

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens
