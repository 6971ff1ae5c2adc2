"""How far confidence is from the share of right values, as the model has it and calibrated.

    python -m benchmarks.calibration [--set mit_restaurant] [--records 200] [--model local-1.5b] [--out calibration-out]

The first rows of a set's dev half, examples chosen by likeness from its last 200 rows, values held to the record's words. The expected calibration error has ten bins of equal width (Guo et al. 2017). Calibrated ones are by five
folds, made in forty ways, since one way of making them says as much about the folds; beside them what as many values would show
of a perfect calibration. Answers stay in ``OUT``: stop it at any time and run it on.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
from pathlib import Path

from benchmarks.sets import tasks, verbatim, write_golden
from extractors.calibration import Pair, error_by_chance, expected_calibration_error, held_out_both
from extractors.endpoint import Settings
from extractors.evaluate.evaluation import evaluate
from extractors.evaluate.reliability import KINDS, confidence_pairs
from schemas.job import ExtractionJob

WAYS = 40


def shuffled(pairs: list[Pair], seed: int) -> list[Pair]:
    """The pairs in another order, and so in other folds."""
    return random.Random(seed).sample(pairs, len(pairs))


def main() -> int:
    """Ask what is missing and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="mit_restaurant", help="one whose records share a schema")
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--shown", type=int, default=3, help="examples for each record")
    parser.add_argument("--model", default="local-1.5b")
    parser.add_argument("--url", help="a llama.cpp server that is up already, with that model")
    parser.add_argument("--out", type=Path, default=Path("calibration-out"))
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    try:
        [task] = tasks(arguments.set, limit=arguments.records)
    except FileNotFoundError as error:
        print(f"skipped: {error.filename} is not here; QUARRY_DATA says where the labelled sets are")
        return 0
    out: Path = arguments.out
    golden = write_golden(task.rows, out / f"{arguments.set}-{arguments.records}.jsonl")
    options = {
        "source": str(golden),
        "schema": verbatim(task, out),
        "id": "id",
        "text": "text",
        "out": str(out / "answers"),
        "model": arguments.model,
        "base_url": arguments.url,
        # A server at an address could be any; the embedded model is held to a grammar by itself.
        "mode": "grammar" if arguments.url else "auto",
        "instructions": task.instructions,
        "examples": str(write_golden(task.golden, out / f"{arguments.set}-examples.jsonl")),
        "examples_shown": arguments.shown,
        "concurrency": 1,
    }
    found = evaluate(golden, ExtractionJob.model_validate(options), rules=task.rules, settings=Settings())
    values, nulls = confidence_pairs(found)
    print(f"{arguments.set}, {len(found.records)} records, {arguments.model}, {arguments.shown} similar examples")
    print(f"  F1 {found.micro.f1}, {len(values)} values and {len(nulls)} nulls with a confidence")
    print(f"  {'as it is':>8}: {expected_calibration_error([*values, *nulls]):.3f}")
    for kind in KINDS:
        made = [held_out_both(shuffled(values, way), shuffled(nulls, way), kind=kind) for way in range(WAYS)]
        errors = [expected_calibration_error(one) for one in made]
        chance = statistics.fmean(error_by_chance(one, draws=20) for one in made)
        print(
            f"  {kind:>8}: {statistics.fmean(errors):.3f} ({min(errors):.3f} to {max(errors):.3f}), "
            f"a perfect one {chance:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
