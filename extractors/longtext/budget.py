"""How much of a record's text one call may show, in tokens. Pure, but for the tokenizer that counts them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from extractors.prompting import fence
from extractors.recipe import Recipe
from extractors.tokens import estimate_tokens

MOST_SHOWN = 32_768
"""Tokens of a focused record that one call shows at most, unless ``context_tokens`` says otherwise: what a model that
reads more does not find as surely any more."""
SHARE = 0.4
"""Share of a record's tokens that is shown at most with ``long_text = "chunks"``; ``benchmarks/long_text.py`` has what is
found in it."""
SHORT = 1_024
"""Tokens up to which a record is shown whole with ``long_text = "chunks"``."""
_TEMPLATE = 16
"""Tokens that the chat template adds, about."""
_LATER = 300
"""Tokens kept free for what a correction or a second look adds after the record."""
_LEAST = 256
_UNSURE = 0.85
"""Share of the model's room that is used where tokens are estimated, since an estimate may be 15 % off."""


@dataclass(frozen=True, slots=True)
class Room:
    """``whole``: tokens up to which a record is asked whole; ``shown``: of a longer one, what a call shows at most."""

    whole: int
    shown: int


@lru_cache(maxsize=16)
def _around(system: str) -> int:
    return estimate_tokens(system) + estimate_tokens(fence("==", code="")) + _TEMPLATE + _LATER


def room_of(recipe: Recipe) -> Room:
    """What the recipe's model takes of a record's text beside the prompt, under the job's own bound."""
    policies = [recipe.policy] if recipe.policy.final is None else [recipe.policy, recipe.policy.final]
    room = min(policy.max_input_tokens for policy in policies) - _around(recipe.prompter.system.content)
    room -= recipe.examples.tokens if recipe.examples is not None else 0
    room = max(_LEAST, room)
    sure = room if recipe.policy.tokenizer is not None else int(room * _UNSURE)
    bound = recipe.context_tokens
    if bound is None:
        return Room(room, min(sure, MOST_SHOWN))
    return Room(min(room, bound), min(sure, bound))


def budget_of(recipe: Recipe, text: str) -> int | None:
    """Tokens of ``text`` that one call shows at most; None: it is asked whole.

    The model's tokenizer is asked only where the estimate is near a limit. A text that is short by its characters
    alone is not looked at."""
    if recipe.long_text == "whole":
        return None
    room = room_of(recipe)
    least = SHORT if recipe.long_text == "chunks" else room.whole
    # No token is shorter than a byte, and no character longer than four.
    if len(text) * 4 <= min(least, room.whole):
        return None
    tokens = estimate_tokens(text)
    if recipe.policy.tokenizer is not None and 0.7 < tokens / room.whole < 1.4:
        tokens = recipe.policy.tokenizer(text)
    if recipe.long_text == "chunks" and tokens > SHORT:
        return min(room.shown, int(tokens * SHARE))
    return room.shown if tokens > room.whole else None


def is_longer(recipe: Recipe, text: str) -> bool:
    """Whether a text does not fit into one call, and may be shown in several."""
    if recipe.long_text == "whole":
        return False
    whole = room_of(recipe).whole
    if len(text) * 4 <= whole:
        return False
    tokens = estimate_tokens(text)
    if recipe.policy.tokenizer is not None and 0.7 < tokens / whole < 1.4:
        tokens = recipe.policy.tokenizer(text)
    return tokens > whole
