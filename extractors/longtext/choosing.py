"""Choosing the chunks that one call shows, within a budget of tokens. Pure.

Every field gets its best chunk before any gets its second. A chunk's score for a field is its own, a share of its
neighbours', and what its place is worth: who, when and what a text is about stands at its beginning, signatures and
dates at its end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from extractors.longtext.chunks import Chunk

_NEIGHBOUR = 0.2
"""Share of a neighbour's score."""
_HEAD, _TAIL = 0.2, 0.1
"""What the first and the last chunk get of a field's best score."""


def weighed(scores: Sequence[float]) -> list[float]:
    """One field's scores with those of the neighbours and of the place."""
    if not scores:
        return []
    spread = [
        score
        + _NEIGHBOUR * (scores[at - 1] if at else 0.0)
        + _NEIGHBOUR * (scores[at + 1] if at + 1 < len(scores) else 0.0)
        for at, score in enumerate(scores)
    ]
    best = max(max(spread), 1e-6)
    spread[0] += _HEAD * best
    spread[-1] += _TAIL * best
    return spread


def chosen(
    chunks: Sequence[Chunk],
    rows: Sequence[Sequence[float]],
    *,
    most_tokens: int,
    without: Collection[int] = (),
    always: Sequence[int] = (0,),
    label: int = 0,
) -> tuple[Chunk, ...]:
    """The chunks of at most ``most_tokens`` tokens in all that the fields' rows of scores ask for, in the text's order.

    ``without`` are numbers of chunks that are not wanted, ``always`` places that come first of all (as far as they fit),
    ``label`` the tokens of the line over a run of neighbours.
    """
    left = most_tokens
    taken: set[int] = set()

    def take(place: int) -> None:
        nonlocal left
        # A neighbour of one that is taken needs no line; one between two runs makes them one.
        cost = chunks[place].tokens + label * (1 - (place - 1 in taken) - (place + 1 in taken))
        if place not in taken and cost <= left:
            taken.add(place)
            left -= cost

    allowed = [place for place, chunk in enumerate(chunks) if chunk.number not in without]
    for place in always:
        if place in allowed:
            take(place)
    orders = [sorted(allowed, key=lambda place: (-row[place], place)) for row in map(weighed, rows)]
    for rank in range(len(allowed)):
        if left < 8:
            break
        for order in orders:
            take(order[rank])
    return tuple(chunks[place] for place in sorted(taken))
