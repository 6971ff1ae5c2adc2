"""A draft with a final model behind it, against the final model alone: F1, time and CPU time, with the embedded models.

    python -m benchmarks.routing [--set mit_restaurant] [--records 60] [--out routing-out]

The first rows of a set's dev half, examples chosen by likeness from its last 200 rows, values held to the record's words, one
call at a time. Time and CPU time (with the embedded servers') are of a whole evaluation, from nothing to the scores; run it
on a machine that does nothing else. What was measured is kept in ``OUT``, and is not asked again.

The last table asks nobody: the answers of draft and final, each asked alone, are put together as a routed run does it
(``extractors.routing``), at several thresholds.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmarks.sets import Task, f1, tasks, verbatim, write_golden
from extractors.endpoint import Settings
from extractors.evaluate.evaluation import Evaluation, Scored, evaluate
from extractors.evaluate.scoring import Cell, score_record
from extractors.grounding import ground
from extractors.routing import Draft, asked_whole, completed, doubtful_fields, merged
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema

THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


def measured(name: str, golden: Path, options: dict[str, Any], out: Path, task: Task) -> Evaluation:
    """Evaluate one way of asking and print its line. Its time is kept beside it, since a second run asks nothing."""
    job = ExtractionJob.model_validate({**options, "source": str(golden), "out": str(out / name)})
    began, spent = time.perf_counter(), _cpu()
    found = evaluate(golden, job, rules=task.rules, settings=Settings())
    kept = out / f"{name}.json"
    if found.report is not None and found.report.calls:
        whole = found.report.records == found.report.rows + found.report.failures
        took = {"seconds": time.perf_counter() - began, "cpu": _cpu() - spent, "whole": whole}
        kept.write_text(json.dumps(took))
    told = json.loads(kept.read_text())
    clock = f"{told['seconds']:6.0f} s, {told['cpu']:6.0f} s of CPU" if told["whole"] else "  was interrupted: no time"
    print(
        f"  {name:>8}: F1 {found.micro.f1}, {clock}, {found.output_tokens / len(found.records):4.0f} tokens out",
        flush=True,
    )
    return found


def together(draft: Evaluation, final: Evaluation, task: Task, threshold: float) -> tuple[str, int]:
    """F1 of the two evaluations' answers put together, and how many records the final would have been asked about."""
    others = {one.given.key: one for one in final.records}
    cells: list[list[Cell]] = []
    routed = 0
    for one in draft.records:
        other = others[one.given.key]
        values, asked = _merged(one, other, task.model, threshold)
        routed += asked
        cells.append(list(score_record(task.root, one.label, values)))
    return str(f1(cells)), routed


def _merged(one: Scored, other: Scored, model: type[BaseModel], threshold: float) -> tuple[Any, bool]:
    """A record's values as a routed run would have them, and whether the final was asked."""
    schema, given = answer_schema(model), one.given
    if given.value is None or other.given.value is None:
        return other.given.value, given.value is None
    value = model.model_validate(given.value)
    evidence = ground(value, one.text)
    paths = doubtful_fields(evidence, given.confidence, schema, below=threshold)
    if not paths:
        return given.value, False
    draft = asked_whole(Draft(given.value, value, evidence, paths), schema, given.confidence)

    def validated(data: Any) -> BaseModel | None:
        try:
            return model.model_validate(data)
        except ValidationError:
            return None

    answer = completed(other.given.value, schema, draft.open)
    return merged(draft, answer, validated=validated, grounded=lambda made: ground(made, one.text)).data, True


def _cpu() -> float:
    """Seconds of CPU of this process and of the servers it has ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def main() -> int:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="mit_restaurant", help="one whose records share a schema")
    parser.add_argument("--records", type=int, default=60)
    parser.add_argument("--shown", type=int, default=6, help="examples for each record")
    parser.add_argument("--draft", default="local-0.5b")
    parser.add_argument("--final", default="local-1.5b")
    parser.add_argument("--out", type=Path, default=Path("routing-out"))
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
        "schema": verbatim(task, out),
        "id": "id",
        "text": "text",
        "instructions": task.instructions,
        "examples": str(write_golden(task.golden, out / f"{arguments.set}-examples.jsonl")),
        "examples_shown": arguments.shown,
        "concurrency": 1,
    }
    print(f"{arguments.set}, {arguments.records} records, {arguments.shown} similar examples")
    draft = measured("draft", golden, {**options, "model": arguments.draft}, out, task)
    final = measured("final", golden, {**options, "model": arguments.final}, out, task)
    pair = {"model": arguments.draft, "final": arguments.final}
    measured("routed", golden, {**options, **pair}, out, task)
    print("put together from the answers of draft and final:")
    for threshold in THRESHOLDS:
        figure, routed = together(draft, final, task, threshold)
        print(f"  {threshold:8}: F1 {figure}, {routed / len(draft.records):4.0%} of the records routed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
