"""Right values for less: Quarry, instructor and LangExtract on the same embedded server, over the labelled sets.

    nice -n 19 python -m benchmarks.quality --models local-0.5b,local-1.5b --limit 20 --langextract /tmp/peers/venv

Every tool is asked one record at a time, at temperature 0, with at most 512 output tokens an answer and three answers a
record, and is told the same of the task: the set's instructions and the schema with its descriptions. instructor: JSON mode
(it writes the schema into the prompt itself) and JSON_SCHEMA mode (decoding is constrained; the schema is given in the
prompt by hand). LangExtract: as its documentation has it, with three few-shot examples from rows that are not measured, and
schema constraints. Quarry has no examples unless ``--option examples={shots}`` gives it the same three.

Results are appended to ``OUT/results.jsonl``, a line for each tool, set, model and record, and what is there is not
asked again: stop it at any time and run it on, with more records, sets or models. ``--report`` only prints. The table's
"of all" line averages over the sets of which every tool has the same records; only those records count.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pydantic import BaseModel, TypeAdapter, ValidationError

from benchmarks.sets import ADAPTERS, DEFAULT, Row, Task, f1, score_task, tasks
from extractors.endpoint import Settings
from extractors.evaluate.outcomes import read_outcomes
from extractors.pipeline import run
from extractors.prompting import describe
from extractors.qwen.local_server import LocalServer, Tuning
from extractors.qwen.weights import ensure
from extractors.sources import open_dataframe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema

OUTPUT = 512
ANSWERS = 3
SHOTS = 3
INSTRUCTOR = {"instructor JSON": "JSON", "instructor JSON_SCHEMA": "JSON_SCHEMA"}
_SYSTEM = "Extract the fields from the record. A field that the record does not tell is null, or an empty list."


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool made of a record. ``value`` is None where it gave no valid answer; ``seconds`` is its calls' time."""

    tool: str
    set: str
    model: str
    record: str
    value: Mapping[str, Any] | None
    error: str | None
    input_tokens: int
    output_tokens: int
    calls: int
    seconds: float | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is asked once."""
        return self.tool, self.set, self.model, self.record


@dataclass(frozen=True, slots=True)
class Bench:
    """A server that is up, where results go, and how Quarry is asked."""

    url: str
    model: str
    out: Path
    options: Mapping[str, str]
    label: str
    langextract: Path | None


def quarry(bench: Bench, task: Task, rows: Sequence[Row]) -> Iterator[Result]:
    """The whole pipeline, evidence and ledger included; its own output folder resumes what was cut off."""
    shots = bench.out / "shots" / f"{task.set}-{Path(task.spec).stem}.jsonl"
    shots.parent.mkdir(parents=True, exist_ok=True)
    shots.write_text(
        "".join(json.dumps({"text": s.text, "expected": dict(s.label.expected)}) + "\n" for s in task.shots)
    )
    table = pa.table({"id": [row.record_id for row in rows], "text": [row.text for row in rows]})
    out = bench.out / "quarry" / bench.label.replace(" ", "_") / task.set
    job = ExtractionJob.model_validate(
        {
            "source": f"<{task.set}>",
            "schema": task.spec,
            "id": "id",
            "out": str(out),
            "model": bench.model,
            "base_url": bench.url,
            "mode": "grammar",
            "instructions": task.instructions,
            "concurrency": 1,
            "max_output_tokens": OUTPUT,
            "max_attempts": ANSWERS,
            "chunk_size": 5,
            **{key: value.replace("{shots}", str(shots)) for key, value in bench.options.items()},
        }
    )
    report = run(job, source=open_dataframe(table, id="id", text="text"), settings=Settings())
    wanted = {row.record_id for row in rows}
    found = read_outcomes(out, name=report.name, recipe=report.recipe, model=task.model, wanted=wanted)
    for one in found.values():
        yield Result(
            bench.label, task.set, bench.model, one.record_id, one.value, one.reason, one.input_tokens,
            one.output_tokens, one.calls, one.seconds,
        )  # fmt: skip


def instructor(bench: Bench, task: Task, rows: Sequence[Row], tool: str) -> Iterator[Result]:
    """instructor's client, with the retries that make as many answers as Quarry may ask for."""
    import instructor as library
    import openai
    from instructor.core.exceptions import IncompleteOutputException, InstructorRetryException

    told = f"{_SYSTEM}\n{task.instructions}"
    if INSTRUCTOR[tool] == "JSON_SCHEMA":
        told += f"\nAnswer with JSON of this JSON Schema:\n{json.dumps(task.model.model_json_schema())}"
    client = library.from_openai(
        openai.OpenAI(base_url=bench.url, api_key="none", max_retries=0, timeout=600),
        mode=library.Mode[INSTRUCTOR[tool]],
    )
    used = {"input_tokens": 0, "output_tokens": 0, "calls": 0}

    def count(reply: Any) -> None:
        used["calls"] += 1
        used["input_tokens"] += reply.usage.prompt_tokens
        used["output_tokens"] += reply.usage.completion_tokens

    client.on("completion:response", count)
    for row in rows:
        used.update(input_tokens=0, output_tokens=0, calls=0)
        clock, value, error = time.perf_counter(), None, None
        try:
            answer = client.chat.completions.create(
                model=bench.model,
                response_model=task.model,
                messages=[{"role": "system", "content": told}, {"role": "user", "content": row.text}],
                max_retries=ANSWERS - 1,
                max_tokens=OUTPUT,
                temperature=0,
            )
            value = answer.model_dump(mode="json", by_alias=True)
        except (InstructorRetryException, IncompleteOutputException) as trouble:
            error = type(trouble).__name__
        yield Result(
            tool, task.set, bench.model, row.record_id, value, error, used["input_tokens"], used["output_tokens"],
            used["calls"], time.perf_counter() - clock,
        )  # fmt: skip


def langextract(bench: Bench, task: Task, rows: Sequence[Row]) -> Iterator[Result]:
    """LangExtract in its own environment: a field is a class of extractions, a list of objects has attributes."""
    assert bench.langextract is not None
    fields = describe(answer_schema(task.model))
    given = {
        "url": bench.url,
        "model": bench.model,
        "most_tokens": OUTPUT,
        "prompt": f"{task.instructions}\nExtract the values of these fields, one extraction each; the extraction class is "
        f"the field's name. Leave out what the record does not tell.\n{fields}",
        "examples": [{"text": shot.text, "extractions": _extractions(shot.label.expected)} for shot in task.shots],
        "records": [{"id": row.record_id, "text": row.text} for row in rows],
    }
    worker = subprocess.Popen(
        [str(bench.langextract / "bin" / "python"), str(Path(__file__).with_name("langextract_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    with worker:
        worker.stdin.write(json.dumps(given))
        worker.stdin.close()
        for line in worker.stdout:
            one = json.loads(line)
            value = None if one["error"] else _object(task.model, one["extractions"])
            yield Result(
                "langextract", task.set, bench.model, one["id"], value, one["error"], one["input_tokens"],
                one["output_tokens"], one["calls"], one["seconds"],
            )  # fmt: skip
    if worker.returncode:
        raise RuntimeError(
            f"LangExtract's process ended with {worker.returncode}: is it installed in {bench.langextract}?"
        )


def _extractions(expected: Mapping[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """A label as LangExtract's extractions."""
    found: list[tuple[str, str, dict[str, str]]] = []
    for name, value in expected.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                first, *rest = one.items()
                found.append((name, str(first[1]), {key: str(inner) for key, inner in rest}))
            elif one is not None and one != "":
                found.append((name, _printed(one), {}))
    return found


def _printed(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _object(model: type[BaseModel], extractions: Sequence[Any]) -> dict[str, Any]:
    """LangExtract's extractions as a value of the schema: the first of a field that holds one, all of a list; what is
    not valid for its field is left out."""
    value: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        mine = [(text, attributes) for kind, text, attributes in extractions if kind == key]
        adapter = TypeAdapter(field.annotation)
        is_list = answer_schema(model)["properties"][key].get("type") == "array"
        items = answer_schema(model)["properties"][key].get("items", {})
        if is_list:
            value[key] = []
            for text, attributes in mine:
                properties = list(items.get("properties", ()))
                one = {properties[0]: text, **attributes} if properties else text
                value[key] += _valid(adapter, [one]) or []
        else:
            value[key] = next((v for text, _ in mine if (v := _valid(adapter, text)) is not None), None)
    return value


def _valid(adapter: TypeAdapter[Any], given: Any) -> Any:
    try:
        return adapter.dump_python(adapter.validate_python(given), mode="json", by_alias=True)
    except ValidationError:
        return None


def measure(bench: Bench, names: Sequence[str], tools: Sequence[str], limit: int) -> None:
    """Ask what has not been asked, set by set, and append each result."""
    done = {one.key for one in read(bench.out)}
    with (bench.out / "results.jsonl").open("ab") as file:
        for name in names:
            for task in tasks(name, limit=limit, shots=SHOTS):
                for tool in tools:
                    label = bench.label if tool == "quarry" else tool
                    rows = [row for row in task.rows if (label, name, bench.model, row.record_id) not in done]
                    if not rows:
                        continue
                    clock, count = time.perf_counter(), 0
                    for result in _ask(bench, task, rows, tool):
                        file.write(orjson.dumps(asdict(result)) + b"\n")
                        file.flush()
                        count += 1
                    seconds = time.perf_counter() - clock
                    print(
                        f"# {bench.model} {name} {Path(task.spec).stem}: {label}, {count} in {seconds:.0f} s",
                        flush=True,
                    )


def _ask(bench: Bench, task: Task, rows: Sequence[Row], tool: str) -> Iterator[Result]:
    if tool == "quarry":
        return quarry(bench, task, rows)
    if tool == "langextract":
        return langextract(bench, task, rows)
    return instructor(bench, task, rows, tool)


def read(out: Path) -> list[Result]:
    """The results so far; a line that was cut off is left out, and its record asked again."""
    path = out / "results.jsonl"
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            found.append(Result(**orjson.loads(line)))
        except orjson.JSONDecodeError:
            continue
    return found


def report(results: Sequence[Result], names: Sequence[str]) -> None:
    """A table for each model: F1 with its interval, valid answers, tokens and seconds a record, of common records."""
    for model in sorted({one.model for one in results}):
        mine = {one.key: one for one in results if one.model == model}
        tools = sorted({one.tool for one in mine.values()}, key=lambda tool: (not tool.startswith("quarry"), tool))
        averages: dict[str, list[tuple[float, float, float, float]]] = {tool: [] for tool in tools}
        print(f"\n{model}")
        for name in names:
            common = set.intersection(*({key[3] for key in mine if key[:2] == (tool, name)} for tool in tools))
            if not common:
                continue
            print(f"  {name}, {len(common)} records")
            every = tasks(name, limit=None)
            for tool in tools:
                chosen = {record: mine[tool, name, model, record] for record in common}
                cells = [
                    cell
                    for task in every
                    for cell in score_task(task, {key: one.value for key, one in chosen.items()}).values()
                ]
                figure = f1(cells)
                tokens = [
                    np.mean([getattr(one, f"{kind}_tokens") for one in chosen.values()]) for kind in ("input", "output")
                ]
                seconds = float(np.median([one.seconds for one in chosen.values() if one.seconds is not None]))
                valid = np.mean([one.value is not None for one in chosen.values()])
                averages[tool].append((figure.value or 0.0, float(tokens[0]), float(tokens[1]), seconds))
                print(
                    f"    {tool:>24}: F1 {figure}, valid {valid:.2f}, {tokens[0]:6.0f} in {tokens[1]:5.0f} out, {seconds:6.1f} s"
                )
        counted = len(next(iter(averages.values()), []))
        if counted:
            print(f"  of all, the mean of {counted} sets")
        for tool, figures in averages.items() if counted else ():
            f, tokens_in, tokens_out, seconds = (float(np.mean(column)) for column in zip(*figures, strict=True))
            print(f"    {tool:>24}: F1 {f:.3f}, {tokens_in:6.0f} in {tokens_out:5.0f} out, {seconds:6.1f} s")


def main() -> int:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="local-0.5b")
    parser.add_argument("--sets", default=",".join(DEFAULT), help=f"of {', '.join(ADAPTERS)}")
    parser.add_argument("--tools", default="quarry,instructor JSON,instructor JSON_SCHEMA,langextract")
    parser.add_argument("--limit", type=int, default=20, help="records of each set, the first of the file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="quality-out", type=Path)
    parser.add_argument(
        "--langextract", type=Path, help="a virtual environment with langextract and openai; made if missing"
    )
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of Quarry's job; see --label")
    parser.add_argument("--label", default="quarry", help="the name under which Quarry's results are kept")
    parser.add_argument("--report", action="store_true", help="ask nothing, print what is there")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    names, tools = arguments.sets.split(","), arguments.tools.split(",")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        if arguments.langextract is None:
            tools = [tool for tool in tools if tool != "langextract"]
        elif "langextract" in tools:
            _install(arguments.langextract)
        for model in arguments.models.split(","):
            tuning = Tuning(threads=arguments.threads)
            with LocalServer(ensure(model), slots=1, alias=model, tuning=tuning) as server:
                bench = Bench(
                    url=server.base_url,
                    model=model,
                    out=arguments.out,
                    options=dict(one.split("=", 1) for one in arguments.option),
                    label=arguments.label,
                    langextract=arguments.langextract,
                )
                measure(bench, names, tools, arguments.limit)
    report(read(arguments.out), names)
    return 0


def _install(folder: Path) -> None:
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "langextract", "openai"]
        subprocess.run(pip, check=True)


if __name__ == "__main__":
    sys.exit(main())
