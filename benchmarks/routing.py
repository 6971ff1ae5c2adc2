"""A draft with a final model behind it, against the final model alone: F1, time and CPU time, with the embedded models.

    python -m benchmarks.routing [--set mit_restaurant] [--records 60] [--live] [--out routing-out]

The first rows of a set's dev half, examples chosen by likeness from its last 200 rows, values held to the record's words, one
call at a time. Time and CPU time (with the embedded servers') are of a whole evaluation, from nothing to the scores; run it
on a machine that does nothing else. What was measured is kept in ``OUT``, and is not asked again.

The last table asks nobody: the answers of draft and final, each asked alone, are put together as a routed run does it
(``extractors.evaluate.routes``), at several thresholds; CPU time is then the draft's for all records and the final's for its share.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sets import Task, f1, tasks, verbatim, write_golden
from extractors.endpoint import Settings
from extractors.evaluate.evaluation import Evaluation, evaluate
from extractors.evaluate.routes import Putting
from extractors.evaluate.scoring import Cell, score_record
from schemas.job import ExtractionJob

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Part:
    """The records of a set that share a schema, and the options that ask about them."""

    name: str
    task: Task
    golden: Path
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of asking the records of a set, one evaluation for each of its schemas, and what they took together in
    seconds; None where one of them was interrupted."""

    evaluations: Sequence[Evaluation]
    seconds: float | None
    cpu: float | None

    @property
    def cells(self) -> list[Sequence[Cell]]:
        """The values of every record."""
        return [one.cells for found in self.evaluations for one in found.records]


def measured(name: str, parts: Sequence[Part], options: Mapping[str, Any], out: Path) -> Measured:
    """Evaluate one way of asking and print its line. Its time is kept beside it, since a second run asks nothing."""
    evaluations, times = [], []
    for part in parts:
        here = out / name / part.name
        job = ExtractionJob.model_validate({**part.options, **options, "source": str(part.golden), "out": str(here)})
        began, spent = time.perf_counter(), _cpu()
        found = evaluate(part.golden, job, rules=part.task.rules, settings=Settings())
        kept = here / "took.json"
        if found.report is not None and found.report.calls:
            whole = found.report.records == found.report.rows + found.report.failures
            took = {"seconds": time.perf_counter() - began, "cpu": _cpu() - spent, "whole": whole}
            kept.write_text(json.dumps(took))
        evaluations.append(found)
        times.append(json.loads(kept.read_text()))
    whole = all(one["whole"] for one in times)
    made = Measured(
        evaluations,
        sum(one["seconds"] for one in times) if whole else None,
        sum(one["cpu"] for one in times) if whole else None,
    )
    clock = "  was interrupted: no time" if made.cpu is None else f"{made.seconds:6.0f} s, {made.cpu:6.0f} s of CPU"
    tokens = sum(found.output_tokens for found in evaluations) / len(made.cells)
    print(f"  {name:>8}: F1 {f1(made.cells)}, {clock}, {tokens:4.0f} tokens out", flush=True)
    return made


def together(draft: Measured, final: Measured, parts: Sequence[Part], threshold: float) -> tuple[str, float]:
    """F1 of the answers of the two put together, and the share of the records that the final would have been asked about."""
    cells: list[Sequence[Cell]] = []
    routed = 0
    for part, drafted, asked in zip(parts, draft.evaluations, final.evaluations, strict=True):
        putting = Putting(part.task.model, part.task.root, exemplified=True)
        others = {one.given.key: one for one in asked.records}
        for one in drafted.records:
            values = putting.together(one, others[one.given.key], threshold)
            routed += values is not None
            cells.append(one.cells if values is None else score_record(part.task.root, one.label, values[0]))
    return str(f1(cells)), routed / len(cells)


def _cpu() -> float:
    """Seconds of CPU of this process and of the servers it has ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def main() -> int:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="mit_restaurant")
    parser.add_argument("--records", type=int, default=60)
    parser.add_argument("--shown", type=int, default=3, help="examples for each record")
    parser.add_argument("--live", action="store_true", help="ask the routed pair too, not only put answers together")
    parser.add_argument("--draft", default="local-0.5b")
    parser.add_argument("--final", default="local-1.5b")
    parser.add_argument("--out", type=Path, default=Path("routing-out"))
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    try:
        found = tasks(arguments.set, limit=arguments.records)
    except FileNotFoundError as error:
        print(f"skipped: {error.filename} is not here; QUARRY_DATA says where the labelled sets are")
        return 0
    out: Path = arguments.out
    parts = [_part(task, out, shown=arguments.shown, records=arguments.records) for task in found if task.rows]
    print(f"{arguments.set}, {sum(len(part.task.rows) for part in parts)} records, {arguments.shown} similar examples")
    draft = measured("draft", parts, {"model": arguments.draft}, out)
    final = measured("final", parts, {"model": arguments.final}, out)
    if arguments.live:
        measured("routed", parts, {"model": arguments.draft, "final": arguments.final}, out)
    print("put together from the answers of draft and final:")
    for threshold in THRESHOLDS:
        figure, routed = together(draft, final, parts, threshold)
        cost = (
            "" if not draft.cpu or not final.cpu else f", {draft.cpu / final.cpu + routed:4.0%} of the final's CPU time"
        )
        print(f"  {threshold:8}: F1 {figure}, {routed:4.0%} of the records routed{cost}")
    return 0


def _part(task: Task, out: Path, *, shown: int, records: int) -> Part:
    name = f"{task.set}-{Path(task.spec).stem}-{records}"
    return Part(
        name,
        task,
        write_golden(task.rows, out / f"{name}.jsonl"),
        {
            "schema": verbatim(task, out),
            "id": "id",
            "text": "text",
            "instructions": task.instructions,
            "examples": str(write_golden(task.golden, out / f"{name}-examples.jsonl")),
            "examples_shown": shown,
            "concurrency": 1,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
