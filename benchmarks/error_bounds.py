"""How often a stated error bound is false, by value and by record: drawn golden sets whose values are wrong just above it.

    python -m benchmarks.error_bounds [--sets 1000]

Each set has values that are wrong at a rate of 5.05 %, in one of several ways, and all the same confidence. ``threshold_for``
is asked whether at most 5 % of them are wrong, 95 % sure; whoever says so is mistaken. By value each counts as a record of its
own, by record those of a record count together.
"""

from __future__ import annotations

import argparse
import random
import sys

from extractors.routing import threshold_for

RATE, BOUND = 0.0505, 0.05
WAYS = ("independent", "whole records", "half of a record", "both", "of all sizes")
SIZES = (60, 150, 400)


def drawn(draw: random.Random, how: str) -> tuple[int, int]:
    """(wrong, values) of a record: six values, or one to twelve ("of all sizes", whole records wrong)."""
    count = draw.randint(1, 12) if how == "of all sizes" else 6
    if how == "independent":
        return sum(draw.random() < RATE for _ in range(count)), count
    if how == "half of a record":
        bad = 0.5 if draw.random() < 2 * RATE else 0.0
        return sum(draw.random() < bad for _ in range(count)), count
    if how == "both":
        alone = 0.3 * RATE / (1 - 0.7 * RATE)
        return (count if draw.random() < 0.7 * RATE else sum(draw.random() < alone for _ in range(count))), count
    return count * (draw.random() < RATE), count


def false_bounds(how: str, records: int, sets: int) -> tuple[float, float]:
    """The share of sets that state the bound, counted by value and by record."""
    stated = [0, 0]
    for seed in range(sets):
        draw = random.Random(seed)
        pairs: list[tuple[float, bool]] = []
        whose: list[int] = []
        for record in range(records):
            wrong, values = drawn(draw, how)
            pairs += [(0.9, at >= wrong) for at in range(values)]
            whose += [record] * values
        for number, of in enumerate((None, whose)):
            stated[number] += threshold_for(pairs, max_error=BOUND, records=of) <= 1
    return stated[0] / sets, stated[1] / sets


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"share of {arguments.sets:,} golden sets with a false bound, by value and by record")
    for how in WAYS:
        cells = (false_bounds(how, records, arguments.sets) for records in SIZES)
        told = (f"{records}: {one:.3f} {other:.3f}" for records, (one, other) in zip(SIZES, cells, strict=True))
        print(f"  {how:>16}   " + "   ".join(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
