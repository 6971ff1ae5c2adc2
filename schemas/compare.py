"""``Annotated[str, Compare("fuzzy:0.9")]``: how a field's values are compared with expected ones in an evaluation.

It changes neither what is asked nor what a row means. A JSON Schema says the same with ``"x-compare": "fuzzy:0.9"``.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYWORD = "x-compare"


@dataclass(frozen=True, slots=True)
class Compare:
    """A rule in words; ``extractors.evaluate.comparators`` lists them and says what they mean."""

    rule: str
