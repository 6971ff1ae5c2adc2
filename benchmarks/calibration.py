"""How far confidence is from the share of right values, as the model has it and calibrated.

    python -m benchmarks.calibration [--set mit_restaurant] [--records 200] [--model local-1.5b] [--out calibration-out]
    python -m benchmarks.calibration --confidence evidence [--agreement always]

The first rows of a set's dev half, asked as ``benchmarks.parts`` has it; of a set with several schemas the values of all
together. The expected calibration error has ten bins of equal width (Guo et al. 2017). Calibrated ones are by five folds of
records, made in forty ways, since one way of making them says as much about the folds; beside them what as many values would show of
a perfect calibration. Answers stay in ``OUT``: stop it at any time and run it on.
"""

from __future__ import annotations

import logging
import math
import random
import statistics
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.parts import parser, parts
from benchmarks.sets import f1
from extractors.calibration import Pair, error_by_chance, expected_calibration_error, held_out_both
from extractors.endpoint import Settings
from extractors.evaluate.evaluation import evaluate
from extractors.evaluate.reliability import KINDS, ConfidencePairs, confidence_pairs

WAYS = 40


def shuffled(records: Sequence[int], seed: int) -> list[int]:
    """The records with other numbers, and so in other folds."""
    numbers = sorted(set(records))
    other = dict(zip(numbers, random.Random(seed).sample(numbers, len(numbers)), strict=True))
    return [other[one] for one in records]


def area_under_roc(pairs: Sequence[Pair]) -> float:
    """How often a right value has a higher score than a wrong one, ties counted half (Mann and Whitney 1947)."""
    right, wrong = (np.array([score for score, said in pairs if said is which]) for which in (True, False))
    both = right[:, np.newaxis]
    return float(((both > wrong).mean() + (both >= wrong).mean()) / 2) if len(right) and len(wrong) else math.nan


def joined(parts: Sequence[ConfidencePairs]) -> ConfidencePairs:
    """The values of all parts, each record with a number of its own."""
    whole = ConfidencePairs([], [], [])
    of_nulls: list[int] = []
    first = 0
    for values, nulls, records in parts:
        numbers = [first + one for one in records]
        whole.values.extend(values)
        whole.nulls.extend(nulls)
        whole.records.extend(numbers[: len(values)])
        of_nulls.extend(numbers[len(values) :])
        first = max(numbers, default=first) + 1
    whole.records.extend(of_nulls)
    return whole


def main() -> int:
    """Ask what is missing and print the errors."""
    options = parser(__doc__, records=200, out="calibration-out")
    options.add_argument("--model", default="local-1.5b")
    options.add_argument("--url", help="a llama.cpp server that is up already, with that model")
    options.add_argument(
        "--confidence", default="auto", help="evidence: without token probabilities, as many models have none"
    )
    options.add_argument("--agreement", default="never", help="always: each record is asked twice")
    arguments = options.parse_args()
    logging.disable(logging.ERROR)
    # A server at an address could be any; the embedded model is held to a grammar by itself.
    asked = {
        "model": arguments.model,
        "base_url": arguments.url,
        "mode": "grammar" if arguments.url else "auto",
        "confidence": arguments.confidence,
        "agreement": arguments.agreement,
    }
    found = [
        evaluate(part.golden, part.job(arguments.out / "answers", **asked), rules=part.task.rules, settings=Settings())
        for part in parts(arguments)
    ]
    if not found:
        return 0
    values, nulls, records = joined([confidence_pairs(one) for one in found])
    cells = [one.cells for each in found for one in each.records]
    print(f"  {arguments.model}: F1 {f1(cells)}, {len(values)} values and {len(nulls)} nulls with a confidence")
    tokens = sum(one.output_tokens for one in found)
    both = f"{area_under_roc(values):.3f} of values, {area_under_roc([*values, *nulls]):.3f} of values and nulls"
    print(f"  area under ROC {both}; {tokens / len(cells):.0f} output tokens a record")
    print(f"  the values alone, as they are: {expected_calibration_error(values):.3f}")
    print(f"  {'as it is':>8}: {expected_calibration_error([*values, *nulls]):.3f}")
    for kind in KINDS:
        made = [held_out_both(values, nulls, kind=kind, records=shuffled(records, way)) for way in range(WAYS)]
        errors = [expected_calibration_error(one) for one in made]
        chance = statistics.fmean(error_by_chance(one, draws=20) for one in made)
        print(
            f"  {kind:>8}: {statistics.fmean(errors):.3f} ({min(errors):.3f} to {max(errors):.3f}), "
            f"a perfect one {chance:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
