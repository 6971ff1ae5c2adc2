"""What a call costs: dated price rows, tiers chosen by the request's input tokens, all in ``Decimal``."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from schemas.usage import Usage

if TYPE_CHECKING:
    from extractors.qwen.profiles import Profile

_MILLION = Decimal(1_000_000)
_FREE = Decimal(0)
_WRITING = Decimal("1.25")
"""An explicit cache entry costs 125 % of the input's price to make."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices per million tokens for requests of at most ``up_to`` input tokens (None: any number).

    ``cached`` is for input read from the provider's cache, ``thinking`` for every output token of a
    reply that thought; None: as ``input``, as ``output``."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    thinking: Decimal | None = None
    up_to: int | None = None

    def cost(self, usage: Usage) -> Decimal:
        """Money for this usage at this tier's rates."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        rate = self.output if self.thinking is None or not usage.reasoning_tokens else self.thinking
        total = (usage.input_tokens - cached) * self.input + usage.output_tokens * rate
        if cached:
            total += cached * (self.input if self.cached is None else self.cached)
        return total / _MILLION


@dataclass(frozen=True, slots=True)
class Pricing:
    """A model's price: tiers in rising order, the last one open-ended. No tiers: the price is unknown.

    ``max_thinking`` is how many tokens the model may think beyond ``max_output_tokens``;
    ``always_thinks`` is for models that cannot be told not to."""

    tiers: tuple[Tier, ...] = ()
    currency: str = "USD"
    source: str = ""
    dated: str = ""
    max_thinking: int = 0
    always_thinks: bool = False
    writing: Decimal = Decimal(1)
    """What input costs at most as a share of its price: more than 1 where it is written to an explicit cache."""

    @classmethod
    def free(cls, source: str = "runs on this machine") -> Pricing:
        """A price of nothing."""
        return cls((Tier(_FREE, _FREE),), source=source)

    @property
    def known(self) -> bool:
        """Whether costs can be told at all."""
        return bool(self.tiers)

    @property
    def is_free(self) -> bool:
        """Whether every call costs nothing."""
        return self.known and all(not tier.input and not tier.output for tier in self.tiers)

    def cost(self, usage: Usage) -> Decimal | None:
        """Money for one call's usage; None when the price is unknown. The tier is chosen by the call's whole
        input, cached tokens included, and holds for all of its tokens."""
        for tier in self.tiers:
            if tier.up_to is None or usage.input_tokens <= tier.up_to:
                return tier.cost(usage)
        return self.tiers[-1].cost(usage) if self.tiers else None

    def worst_cost(self, input_tokens_max: int, output_tokens_max: int, *, thinks: bool = False) -> Decimal | None:
        """The most that a call may cost: the dearest of the tiers that so many input tokens can reach.

        ``thinks``: the reply may think, so that the thinking rate can hold for its output."""
        worst: Decimal | None = None
        for tier in self.tiers:
            tokens = input_tokens_max if tier.up_to is None else min(input_tokens_max, tier.up_to)
            out = max(tier.output, tier.thinking or _FREE) if thinks else tier.output
            cost = (tokens * max(tier.input * self.writing, tier.cached or _FREE) + output_tokens_max * out) / _MILLION
            worst = cost if worst is None else max(worst, cost)
            if tier.up_to is not None and input_tokens_max <= tier.up_to:
                break
        return worst


def pricing_for(profile: Profile, model: str, *, base_url: str | None, thinking: int | None = None) -> Pricing:
    """The price of ``model`` at ``base_url`` (None: the embedded server). ``thinking``: the tokens that it is
    allowed to think, where they were limited.

    Nothing on this machine; else the profile's own dated rows; else what the ``genai-prices`` package
    knows about that address; else unknown."""
    from extractors.qwen.profiles import is_loopback

    thinks = profile.thinking == "always"
    max_thinking = profile.max_thinking if thinking is None else thinking
    writing = _WRITING if profile.cache == "explicit" else Decimal(1)
    if profile.prices:
        own = profile.prices[-1]
        return Pricing(
            tuple(Tier(row.input, row.output, row.cached_price, row.thinking, row.up_to) for row in profile.prices),
            currency=own.currency,
            source=f"Quarry's table, row {profile.name}",
            dated=own.dated,
            max_thinking=max_thinking,
            always_thinks=thinks,
            writing=writing,
        )
    if base_url is None or is_loopback(base_url):
        return Pricing.free()
    tiers = _published(model, base_url)
    return Pricing(
        tiers,
        source="genai-prices" if tiers else "",
        max_thinking=max_thinking,
        always_thinks=thinks,
        writing=writing,
    )


def _published(model: str, base_url: str) -> tuple[Tier, ...]:
    """The ``genai-prices`` package's rows for a model at an address; imported only here, it is heavy."""
    from genai_prices import Usage as Used
    from genai_prices import calc_price

    try:
        price = calc_price(Used(input_tokens=1, output_tokens=1), model, provider_api_url=base_url).model_price
    except LookupError:
        return ()
    edges = sorted(
        {
            step.start
            for rate in (price.input_mtok, price.output_mtok, price.cache_read_mtok)
            for step in getattr(rate, "tiers", ())
        }
    )
    tiers = []
    for start, end in zip([0, *edges], [*edges, None], strict=True):
        if price.input_mtok is None or price.output_mtok is None:
            return ()
        cached = None if price.cache_read_mtok is None else _rate(price.cache_read_mtok, start)
        tiers.append(Tier(_rate(price.input_mtok, start), _rate(price.output_mtok, start), cached, None, end))
    return tuple(tiers)


def _rate(rate: object, start: int) -> Decimal:
    """A plain price, or the price of the last step that starts at or below ``start``."""
    found = getattr(rate, "base", rate)
    for step in getattr(rate, "tiers", ()):
        if step.start <= start:
            found = step.price
    return Decimal(str(found))
