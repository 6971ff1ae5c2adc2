"""The embedded model, the same server and the same receipts: Quarry against instructor.

Records a minute, output tokens a record, and right fields of company, date, address and total (so that nobody is
fast by being wrong). One server with Quarry's settings answers all of them, two records at a time, temperature 0,
at most 512 output tokens an answer and three answers a record. instructor is asked in JSON mode, which writes the
schema into the prompt itself, and in JSON_SCHEMA mode, which constrains decoding to the schema and says nothing of it:
there the schema is given in the prompt by hand. Ways take turns, round by round. Aim: twice the records a minute of
instructor's faster mode and at most 60 % of the output tokens of its shorter one.
Receipts: SROIE's dev half when ``QUARRY_DATA`` has it, else the bundled ones.
Run: ``python -m benchmarks.local --model local-0.5b > benchmarks/results/local.txt``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.choose_model import ROOT, SROIE, score
from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.qwen.local_server import LocalServer
from extractors.qwen.weights import ensure
from extractors.sources import open_dataframe
from extractors.store.catalog import current_rows
from schemas.job import ExtractionJob
from schemas.receipt import Receipt

IN_FLIGHT = 2
OUTPUT = 512
ANSWERS = 3
TASK = "Extract the receipt's fields from its text. A field that the text does not tell is null."

Golden = list[dict[str, Any]]
Given = tuple[dict[str, dict[str, Any]], int]
"""Rows by record id, and output tokens in all."""


@dataclass(slots=True)
class Seen:
    """One way's rounds."""

    minutes: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    failed: int = 0


def receipts(most: int) -> tuple[str, Golden]:
    """The records: ``id``, ``text``, ``expected``, ``accept``."""
    if SROIE.is_file():
        lines = SROIE.read_text(encoding="utf-8").rstrip("\n").split("\n")[:most]
        found = [json.loads(line) for line in lines]
        return "SROIE dev", [{**one, "text": one["text_rows"]} for one in found]
    folder = ROOT / "examples"
    golden = [json.loads(line) for line in (folder / "golden" / "receipts.jsonl").read_text().splitlines()]
    texts = {path.name: path.read_text(encoding="utf-8") for path in (folder / "data" / "receipts").iterdir()}
    return "bundled", [{**one, "text": texts[Path(one["id"]).name]} for one in golden][:most]


def quarry(url: str, model: str, golden: Golden) -> Given:
    """The whole pipeline, evidence and ledger included."""
    table = pa.table({"id": [one["id"] for one in golden], "text": [one["text"] for one in golden]})
    with tempfile.TemporaryDirectory() as out:
        job = ExtractionJob.model_validate(
            {
                "source": "<receipts>",
                "schema": "schemas.receipt:Receipt",
                "id": "id",
                "out": out,
                "model": model,
                "base_url": url,
                "mode": "grammar",
                "concurrency": IN_FLIGHT,
                "max_output_tokens": OUTPUT,
                "max_attempts": ANSWERS,
            }
        )
        report = run(job, source=open_dataframe(table, id="id", text=None, keep=()), settings=Settings())
        rows = current_rows(out, name=report.name, recipe=report.recipe).to_pylist()
    return {row["record_id"]: row for row in rows}, report.output_tokens


async def instructor(url: str, model: str, golden: Golden, *, mode: str) -> Given:
    """instructor's async client, with the retries that make as many answers as Quarry may ask for."""
    import instructor as library
    import openai
    from instructor.core.exceptions import IncompleteOutputException, InstructorRetryException

    told = TASK
    if mode == "JSON_SCHEMA":
        told = f"{TASK} Answer with JSON of this JSON Schema:\n{json.dumps(Receipt.model_json_schema())}"
    client = library.from_openai(
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600), mode=library.Mode[mode]
    )
    tokens = 0

    def count(reply: Any) -> None:
        nonlocal tokens
        tokens += reply.usage.completion_tokens

    client.on("completion:response", count)
    rows: dict[str, dict[str, Any]] = {}
    waiting = iter(golden)

    async def work() -> None:
        for one in waiting:
            try:
                value = await client.chat.completions.create(
                    model=model,
                    response_model=Receipt,
                    messages=[{"role": "system", "content": told}, {"role": "user", "content": one["text"]}],
                    max_retries=ANSWERS - 1,
                    max_tokens=OUTPUT,
                    temperature=0,
                )
            except (InstructorRetryException, IncompleteOutputException):
                continue
            rows[one["id"]] = value.model_dump()

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return rows, tokens


def main() -> int:
    """Measure, print, and say whether the aim is met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local-0.5b")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    where, golden = receipts(arguments.records)
    ways: dict[str, Callable[[str, str, Golden], Given]] = {
        "quarry": quarry,
        "instructor JSON": lambda *a: asyncio.run(instructor(*a, mode="JSON")),
        "instructor JSON_SCHEMA": lambda *a: asyncio.run(instructor(*a, mode="JSON_SCHEMA")),
    }
    seen = {name: Seen() for name in ways}
    with LocalServer(ensure(arguments.model), slots=IN_FLIGHT, alias=arguments.model) as server:
        for way in ways.values():  # imports, connections and each prompt's fixed part are not measured
            way(server.base_url, arguments.model, golden[:IN_FLIGHT])
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                clock = time.perf_counter()
                rows, tokens = way(server.base_url, arguments.model, golden)
                minutes = (time.perf_counter() - clock) / 60
                one = seen[name]
                one.minutes.append(len(golden) / minutes)
                one.tokens.append(tokens / len(golden))
                scores = [
                    right
                    for record in golden
                    for right in score(record["expected"], rows.get(record["id"]), record, Receipt).values()
                ]
                one.right.append(sum(scores) / len(scores))
                one.failed = len(golden) - len(rows)
    print(f"{arguments.model}, {len(golden)} receipts ({where}), {IN_FLIGHT} at a time, median of {arguments.rounds}")
    middle = {name: (statistics.median(one.minutes), statistics.median(one.tokens)) for name, one in seen.items()}
    for name, one in seen.items():
        print(
            f"{name:>22}: {middle[name][0]:5.1f} records a minute, {middle[name][1]:5.0f} output tokens a record, "
            f"{statistics.median(one.right):.3f} of the fields right, {one.failed} failed"
        )
    others = [middle[name] for name in ways if name != "quarry"]
    speed = middle["quarry"][0] / max(each[0] for each in others)
    tokens = middle["quarry"][1] / min(each[1] for each in others)
    print(f"records a minute: {speed:.2f}x instructor's faster mode (aim: 2x)")
    print(f"output tokens: {tokens:.0%} of instructor's shorter mode (aim: 60 %)")
    print(json.dumps({"speed": round(speed, 3), "output_tokens": round(tokens, 3)}))
    return 0 if speed >= 2 and tokens <= 0.6 else 1


if __name__ == "__main__":
    sys.exit(main())
