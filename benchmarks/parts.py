"""A labelled set's records as golden sets, one for each of its schemas, with the options that ask about them: one call at a
time, examples chosen by likeness from the set's last rows, values held to the record's words where the set has it so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sets import LABELLED, Task, tasks, verbatim, write_golden
from schemas.job import ExtractionJob


@dataclass(frozen=True, slots=True)
class Part:
    """The records of a set that share a schema, and the options that ask about them."""

    name: str
    task: Task
    golden: Path
    options: Mapping[str, Any]

    def job(self, out: Path, **more: Any) -> ExtractionJob:
        """What asks about them, into ``out / name``, with the further options."""
        where = {"source": str(self.golden), "out": str(out / self.name)}
        return ExtractionJob.model_validate({**self.options, **where, **more})


def parser(doc: str | None, *, records: int, out: str) -> argparse.ArgumentParser:
    """Takes the options of ``parts``; ``records`` and ``out`` are defaults."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--set", default="mit_restaurant")
    made.add_argument("--records", type=int, default=records)
    made.add_argument("--shown", type=int, default=3, help="examples for each record")
    made.add_argument(
        "--common", type=int, help="examples before them that are common to all; the job's own number if not given"
    )
    made.add_argument(
        "--labelled", type=int, default=LABELLED, help="rows at the end of the set that are known with their labels"
    )
    made.add_argument("--out", type=Path, default=Path(out))
    return made


def parts(arguments: argparse.Namespace) -> list[Part]:
    """The first records of the set. Says so and gives none where the set is not there."""
    try:
        found = tasks(arguments.set, limit=arguments.records, labelled=arguments.labelled)
    except FileNotFoundError as error:
        print(f"skipped: {error.filename} is not here; QUARRY_DATA says where the labelled sets are")
        return []
    made = [_part(task, arguments) for task in found if task.rows]
    common = "" if arguments.common is None else f"{arguments.common} common and "
    records = sum(len(one.task.rows) for one in made)
    print(
        f"{arguments.set}, {records} records, {common}{arguments.shown} similar examples of the last {arguments.labelled}",
        flush=True,
    )
    return made


def _part(task: Task, arguments: argparse.Namespace) -> Part:
    name = f"{task.set}-{Path(task.spec).stem}-{arguments.records}"
    out: Path = arguments.out
    options = {
        "schema": verbatim(task, out),
        "id": "id",
        "text": "text",
        "instructions": task.instructions,
        "examples": str(write_golden(task.golden, out / f"{name}-examples-{arguments.labelled}.jsonl")),
        "examples_shown": arguments.shown,
        "examples_common": arguments.common,
        "concurrency": 1,
    }
    return Part(name, task, write_golden(task.rows, out / f"{name}.jsonl"), options)
