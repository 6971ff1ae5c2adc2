"""How many examples a record is shown, common to all records and chosen for it: F1, time and CPU time, output tokens.

    python -m benchmarks.examples [--set mit_restaurant] [--records 60] [--ways 0+3,12+3] [--out examples-out]

The first rows of a set's dev half, asked as ``benchmarks.parts`` has it; a way is COMMON+SIMILAR. Time and CPU time (with the
embedded server's) are of a whole evaluation, the reading of the common examples at its beginning included: once for each of
the set's schemas. What was measured is kept in ``OUT``, and is not asked again.
"""

from __future__ import annotations

import argparse
import logging
import sys

from benchmarks.parts import parser, parts
from benchmarks.routing import measured


def main() -> int:
    """Measure what is missing and print a line for each way."""
    options = parser(__doc__, records=60, out="examples-out")
    options.add_argument("--ways", default="0+3,12+3")
    options.add_argument("--model", default="local-1.5b")
    arguments = options.parse_args()
    logging.disable(logging.ERROR)
    for way in arguments.ways.split(","):
        common, shown = map(int, way.split("+"))
        found = parts(argparse.Namespace(**{**vars(arguments), "common": common, "shown": shown}))
        if not found:
            return 0
        measured(f"{arguments.model}-{way}", found, {"model": arguments.model}, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
