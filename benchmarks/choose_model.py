"""Which embedded model is the default: field accuracy and speed on the examples and on SROIE (dev half).

A field is right when it equals the expected value (or one of ``accept``) after validation by the schema: numbers and
dates by value, text after folding case, spaces, punctuation and currency signs. Free wording (``free`` in the golden
file) does not count. A record that failed has all its fields wrong. Answers stay in ``--out``, so an interrupted
measurement goes on where it stopped. Run: ``python -m benchmarks.choose_model``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from extractors.endpoint import Settings
from extractors.pipeline import model_of, run
from extractors.sources import open_dataframe
from extractors.store.catalog import current_rows, query
from schemas.job import ExtractionJob

ROOT = Path(__file__).parents[1]
SROIE = Path(os.environ.get("QUARRY_DATA", ROOT.parent / "shared" / "data")) / "sroie" / "records.dev.jsonl"


def folded(value: Any) -> Any:
    """A value as it is compared."""
    if isinstance(value, str):
        return "".join(character for character in value.casefold() if character.isalnum())
    if isinstance(value, list):
        return sorted(folded(one) for one in value)
    return value


def score(
    expected: Mapping[str, Any], row: Mapping[str, Any] | None, golden: Mapping[str, Any], model: Any
) -> dict[str, bool]:
    """Right or wrong for each field of one record."""
    accept, free = golden.get("accept", {}), golden.get("free", ())
    found = {}
    for name in expected:
        if name in free:
            continue
        allowed = [expected[name]]
        if name in accept and not isinstance(expected[name], list):
            allowed += accept[name]
        values = [folded(getattr(model.model_validate({**expected, name: value}), name)) for value in allowed]
        found[name] = row is not None and folded(row[name]) in values
    return found


def measure(
    job: ExtractionJob, golden: list[dict[str, Any]], *, source: pa.Table | None = None
) -> tuple[dict[str, list[bool]], float, float, int]:
    """Scores by field, seconds and output tokens of a record, and failures."""
    model = model_of(job)
    frame = None if source is None else open_dataframe(source, id=job.id, text=job.text, keep=())
    report = run(job, source=frame, settings=Settings())
    rows = {row["record_id"]: row for row in current_rows(job.out, name=report.name, recipe=report.recipe).to_pylist()}
    scores: dict[str, list[bool]] = {}
    for one in golden:
        for name, right in score(one["expected"], rows.get(one["id"]), one, model).items():
            scores.setdefault(name, []).append(right)
    told = query(
        job.out,
        f"select sum(latency) as seconds, sum(output_tokens) as tokens, count(distinct record_id) as records "
        f"from {report.name}_calls where recipe = '{report.recipe}'",
    ).to_pylist()[0]
    asked = max(1, told["records"])
    return (
        scores,
        (told["seconds"] or 0) / asked,
        (told["tokens"] or 0) / asked,
        len(golden) - len(rows.keys() & {g["id"] for g in golden}),
    )


def main() -> int:
    """Measure both models and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="local-0.5b,local-1.5b")
    parser.add_argument("--sroie", type=int, default=24, help="records of SROIE")
    parser.add_argument("--out", default="choose-model-out")
    arguments = parser.parse_args()
    sets: list[tuple[str, dict[str, Any], list[dict[str, Any]], pa.Table | None]] = []
    for name in ("products", "receipts", "tickets"):
        job = ExtractionJob.from_toml(ROOT / "examples" / f"{name}.toml").model_dump(exclude_unset=True, by_alias=True)
        golden = [
            json.loads(line) for line in (ROOT / "examples" / "golden" / f"{name}.jsonl").read_text().splitlines()
        ]
        sets.append((f"examples/{name}", job, golden, None))
    if SROIE.is_file() and arguments.sroie:
        lines = SROIE.read_text(encoding="utf-8").rstrip("\n").split("\n")[: arguments.sroie]
        golden = [json.loads(line) for line in lines]
        table = pa.table({"id": [one["id"] for one in golden], "text": [one["text_rows"] for one in golden]})
        job = {"source": "<sroie>", "schema": "schemas.receipt:Receipt", "id": "id", "max_output_tokens": 512}
        sets.append(("sroie dev", job, golden, table))
    else:
        print(f"{SROIE} is not there (set QUARRY_DATA): SROIE is left out")
    for model in arguments.models.split(","):
        rights = total = 0
        for name, base, golden, table in sets:
            job = ExtractionJob.model_validate(
                {**base, "model": model, "out": f"{arguments.out}/{name.replace('/', '-').replace(' ', '-')}"}
            )
            scores, seconds, tokens, failed = measure(job, golden, source=table)
            right, fields = sum(map(sum, scores.values())), sum(map(len, scores.values()))
            rights, total = rights + right, total + fields
            each = ", ".join(f"{field} {sum(s) / len(s):.2f}" for field, s in scores.items())
            print(
                f"{model:>11} {name:<18} {right}/{fields} = {right / fields:.3f}  ({each}); {failed} of {len(golden)} failed; "
                f"{seconds:.1f} s and {tokens:.0f} output tokens a record",
                flush=True,
            )
        print(f"{model:>11} {'all fields':<18} {rights}/{total} = {rights / total:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
