"""``Annotated[str, Compare("fuzzy:0.9")]``: how a field's values are compared with expected ones in an evaluation.

It changes neither what is asked nor what a row means. A JSON Schema says the same with ``"x-compare": "fuzzy:0.9"``.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYWORD = "x-compare"


@dataclass(frozen=True, slots=True)
class Compare:
    """A rule in words; ``extractors.evaluate.comparators`` lists them and says what they mean. ``by_type``: it is what the
    type says of itself, and any other rule goes before it."""

    rule: str
    by_type: bool = False


_EMAILS = ("email", "idn-email", "name-email")
_URLS = ("uri", "uri-reference", "iri", "iri-reference", "url", "multi-host-uri")
ADDRESSES = frozenset((*_EMAILS, *_URLS, "uuid", *(f"uuid{version}" for version in range(1, 9))))
"""The formats of JSON Schema whose values are addresses: their punctuation is no spelling."""
