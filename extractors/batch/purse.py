"""Money of the batch lane: what a batch costs, and a ceiling that holds before anything is uploaded."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from extractors.budget import Amount
from extractors.errors import JobError
from extractors.qwen.prices import Pricing, Tier


def batch_pricing(pricing: Pricing, share: Decimal) -> Pricing:
    """The price in a batch: a share of the live one, and no discount for cached input."""
    tiers = tuple(
        Tier(
            tier.input * share,
            tier.output * share,
            None,
            None if tier.thinking is None else tier.thinking * share,
            tier.up_to,
        )
        for tier in pricing.tiers
    )
    return replace(pricing, tiers=tiers, writing=Decimal(1), source=f"{pricing.source}, {share} of it in a batch")


class Purse:
    """The ceilings of a run. The worst case of every request is reserved before its file is uploaded, and given
    back against the real amount when its batch has been collected."""

    def __init__(self, max_cost: Decimal | None, max_tokens: int | None, *, pricing: Pricing) -> None:
        if max_cost is not None and not pricing.known:
            raise JobError(
                "--max-cost cannot be held: the price of this model is unknown. Add its `prices` in a profiles file "
                "(QUARRY_PROFILES), or use --max-tokens"
            )
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.spent = Amount()
        self.reserved = Amount()

    @property
    def bounded(self) -> bool:
        """Whether there is a ceiling at all."""
        return self.max_cost is not None or self.max_tokens is not None

    def reserve(self, worst: Amount) -> bool:
        """Set it aside if it fits below the ceilings."""
        taken = self.spent + self.reserved + worst
        if self.max_cost is not None and taken.cost > self.max_cost:
            return False
        if self.max_tokens is not None and taken.tokens > self.max_tokens:
            return False
        self.reserved += worst
        return True

    def settle(self, worst: Amount, real: Amount) -> None:
        """Put the real amount in the place of a reservation."""
        self.reserved -= worst
        self.spent += real

    def reached(self) -> str:
        """Why nothing more is asked."""
        ceiling = f"--max-cost {self.max_cost}" if self.max_cost is not None else f"--max-tokens {self.max_tokens}"
        return f"{ceiling} is reached: {self.spent.cost:.6f} and {self.spent.tokens:,} tokens are spent"
