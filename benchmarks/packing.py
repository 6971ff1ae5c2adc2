"""Several short records in one call: what `records_per_call` does to F1, tokens and time, and what it can save at most.

    nice -n 19 python -m benchmarks.packing --models local-0.5b --limit 16

Two tables. The arithmetic asks nothing: the tokens, counted by the model's own tokenizer, of the prompts and of the expected
answers of many records for each k, the system message shared by k records and each answer under its number. The
measurement runs Quarry as it is by default, with nothing changed but the switch, over the first records of ``--schemas``
schemas of each set, one call at a time. ``--examples`` shows every record the same three labelled ones. The other switches
that save tokens are variants beside them: ``--variants 1,omit_nulls,prompted,prompted+compact``.

Results are appended to ``OUT/results.jsonl``, a line for each variant and record; what is there is not asked again.
``--report`` only prints. The sets lie in ``QUARRY_DATA``; one that is not there is skipped and named.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson

from benchmarks.quality import read
from benchmarks.quality_tools import Bench, Result, quarry
from benchmarks.sets import DATA, Task, f1, score_task, tasks
from extractors.packing import pack_request
from extractors.qwen.local_server import LocalServer, Tuning
from extractors.qwen.requests import Mode
from extractors.qwen.weights import ensure
from extractors.recipe import ModelPolicy, compile_recipe
from schemas.job import ExtractionJob
from schemas.records import Record, content_fingerprint

SETS = ("snips", "mit_restaurant")
PACKS = (1, 2, 4, 8)
COUNTED = 96
"""Records of a schema in the arithmetic."""
EXAMPLES = "3 examples, "
_OF = 400
"""Records of a set that are looked at; examples come from those after them."""


def options_of(variant: str, *, examples: bool) -> dict[str, str]:
    """The job's options that a variant means: a number is ``records_per_call``, a word a mode or a switch."""
    found = {"chunk_size": "64"}
    for part in variant.split("+"):
        found |= (
            {"records_per_call": part} if part.isdigit() else {"mode": part} if part in list(Mode) else {part: "true"}
        )
    return found | ({"examples": "{shots}", "examples_choice": "fixed"} if examples else {})


def chosen(name: str, *, schemas: int, limit: int) -> list[Task]:
    """The first records of a set's schemas with the most of them. Raises ``FileNotFoundError``."""
    every = sorted(tasks(name, limit=_OF), key=lambda task: -len(task.rows))[:schemas]
    return [replace(task, rows=task.rows[:limit]) for task in every]


def measure(bench: Bench, names: Sequence[str], variants: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Ask what has not been asked, variant by variant, and append each result."""
    done = {one.key for one in read(bench.out)}
    with (bench.out / "results.jsonl").open("ab") as file:
        for name in names:
            for variant in variants:
                label = bench.label + variant
                mine = replace(bench, label=label, options=options_of(variant, examples=bench.label == EXAMPLES))
                for task in chosen(name, **sizes):
                    # All of them, or packs would not be what they are; what is answered is not asked again.
                    if all((label, name, bench.model, row.record_id) in done for row in task.rows):
                        continue
                    for result in quarry(mine, task, task.rows):
                        file.write(orjson.dumps(asdict(result)) + b"\n")
                        file.flush()
                print(f"# {bench.model} {name}: {label}", flush=True)


def report(results: Sequence[Result], names: Sequence[str]) -> None:
    """F1 with its interval, valid answers, tokens, calls and seconds a record, of the records that all variants have.
    Those with examples, and the switches that are no packs, are tables of their own."""
    for model in sorted({one.model for one in results}):
        mine = {one.key: one for one in results if one.model == model}
        for name in names:
            kinds: dict[tuple[bool, bool], list[str]] = {}
            for label in sorted({key[0] for key in mine if key[1] == name}):
                kind = (label.startswith(EXAMPLES), label.removeprefix(EXAMPLES).isdigit())
                kinds.setdefault(kind, []).append(label)
            for (shown, _), labels in kinds.items():
                common = set.intersection(*({key[3] for key in mine if key[:2] == (label, name)} for label in labels))
                print(f"\n{model}, {name}, {EXAMPLES if shown else ''}{len(common)} records")
                for label in labels if common else ():
                    _line(label, {record: mine[label, name, model, record] for record in common}, tasks(name))


def _line(label: str, found: Mapping[str, Result], every: Sequence[Task]) -> None:
    values = {key: one.value for key, one in found.items()}
    cells = [cell for task in every for cell in score_task(task, values).values()]
    given = [
        np.mean([getattr(one, what) or 0 for one in found.values()])
        for what in ("input_tokens", "output_tokens", "calls", "seconds")
    ]
    valid = np.mean([one.value is not None for one in found.values()])
    print(
        f"  {label.removeprefix(EXAMPLES):>18}: F1 {f1(cells)}, valid {valid:.2f}, {given[0]:5.0f} in {given[1]:5.0f} out, "
        f"{given[2]:4.2f} calls, {given[3]:5.1f} s"
    )


def arithmetic(url: str, model: str, names: Sequence[str], *, schemas: int) -> None:
    """Tokens a record for each k: prompts as they are sent, and the expected answers as they would be written."""
    for name in names:
        for task in chosen(name, schemas=schemas, limit=COUNTED):
            records = [Record(row.record_id, row.text, content_fingerprint(row.text)) for row in task.rows]
            print(f"\n{name}, {Path(task.spec).stem}: {len(records)} records, tokens a record")
            for most in PACKS:
                policy = ModelPolicy(model, Mode.GRAMMAR, None, max_input_tokens=6000, max_output_tokens=2048)
                job = ExtractionJob.model_validate(
                    {"source": "x", "schema": task.spec, "out": "o", "instructions": task.instructions}
                )
                recipe = compile_recipe(job, task.model, policy)
                asked = answered = 0
                for at in range(0, len(records), most):
                    part = records[at : at + most]
                    answers = [
                        task.model.model_validate(row.label.expected).model_dump_json(by_alias=True)
                        for row in task.rows[at : at + most]
                    ]
                    if len(part) > 1:
                        messages = pack_request(recipe, part).messages
                        answer = "{" + ",".join(f'"{n}":{one}' for n, one in enumerate(answers, start=1)) + "}"
                    else:
                        messages = recipe.prompter.extract(part[0].text, code=recipe.id + part[0].fingerprint)
                        answer = answers[0]
                    asked += sum(count(url, message.content) + 5 for message in messages)
                    answered += count(url, answer)
                print(f"  k = {most}: {asked / len(records):6.1f} in {answered / len(records):6.1f} out")


def count(url: str, text: str) -> int:
    """The tokens that the server's model makes of a text."""
    body = json.dumps({"content": text}).encode()
    asked = urllib.request.Request(f"{url.removesuffix('/v1')}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return len(json.load(reply)["tokens"])


def main() -> int:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="local-0.5b")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--variants", default=",".join(map(str, PACKS)))
    parser.add_argument("--schemas", type=int, default=2, help="schemas of a set, those of most records first")
    parser.add_argument("--limit", type=int, default=16, help="records of each schema, the first of the file")
    parser.add_argument("--examples", action="store_true", help="show the same three labelled records each time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="packing-out", type=Path)
    parser.add_argument("--no-arithmetic", action="store_true", help="leave the first table out")
    parser.add_argument("--report", action="store_true", help="ask nothing, print what is there")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    names = [name for name in arguments.sets.split(",") if (DATA / name).is_dir()]
    for name in set(arguments.sets.split(",")) - set(names):
        print(f"skipped: {DATA / name} is not there; set QUARRY_DATA to the folder of the labelled sets")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for model in arguments.models.split(",") if names and not arguments.report else ():
        with LocalServer(ensure(model), slots=1, alias=model, tuning=Tuning(threads=arguments.threads)) as server:
            if not arguments.no_arithmetic:
                arithmetic(server.base_url, model, names, schemas=arguments.schemas)
            bench = Bench(
                url=server.base_url,
                model=model,
                out=arguments.out,
                options={},
                label=EXAMPLES if arguments.examples else "",
                verbatim=False,
                langextract=None,
            )
            sizes = {"schemas": arguments.schemas, "limit": arguments.limit}
            measure(bench, names, arguments.variants.split(","), sizes)
    report(read(arguments.out), names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
