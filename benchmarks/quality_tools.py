"""The tools that ``benchmarks/quality.py`` measures: Quarry, instructor, LangExtract, each set up as it should be.

``SHOWN`` are the ways of showing labelled examples: none; the same fixed ones to every tool, Quarry's as its
``examples``, instructor's as turns of the conversation, LangExtract's as its own; or those that Quarry chooses for each
record by likeness from a golden set, which the others have no way to do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, TypeAdapter, ValidationError

from benchmarks.sets import Row, Task, verbatim, write_golden
from extractors.endpoint import Settings
from extractors.evaluate.outcomes import read_outcomes
from extractors.pipeline import run
from extractors.prompting import describe
from extractors.second_look import is_choice
from extractors.sources import open_dataframe
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema

OUTPUT = 512
ANSWERS = 3
SHOTS = 3
"""Fixed examples that are the same for every tool, where ``--shots`` does not say how many."""
SHOWN = ("none", "same", "similar")
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
    verbatim: bool
    langextract: Path | None
    shown: str = "none"
    shots: int = SHOTS

    def named(self, tool: str) -> str:
        """The name under which a tool's results are kept: with what it was shown."""
        name = self.label if tool == "quarry" else tool
        if self.shown == "same" and self.shots != SHOTS:
            name += f" {self.shots}"
        return name if self.shown == "none" else f"{name}, {self.shown} examples"

    def takes(self, tool: str) -> bool:
        """Whether a tool can be asked in this way: LangExtract needs examples, choosing them is Quarry's."""
        return {"none": tool != "langextract", "same": True, "similar": tool == "quarry"}[self.shown]


def quarry(bench: Bench, task: Task, rows: Sequence[Row]) -> Iterator[Result]:
    """The whole pipeline, evidence and ledger included; its own output folder resumes what was cut off."""
    label = bench.named("quarry")
    shown = task.golden if bench.shown == "similar" else task.shots
    count = "" if bench.shots == SHOTS or bench.shown != "same" else f"-{bench.shots}"
    shots = write_golden(shown, bench.out / "shots" / f"{task.set}-{Path(task.spec).stem}-{bench.shown}{count}.jsonl")
    examples: dict[str, Any] = {"examples": str(shots)}
    if bench.shown == "same":
        examples |= {"examples_choice": "fixed", "examples_shown": bench.shots}
    table = pa.table({"id": [row.record_id for row in rows], "text": [row.text for row in rows]})
    out = bench.out / "quarry" / re.sub(r"\W+", "_", label) / task.set
    job = ExtractionJob.model_validate(
        {
            "source": f"<{task.set}>",
            "schema": verbatim(task, bench.out / "schemas") if bench.verbatim else task.spec,
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
            **(examples if bench.shown != "none" and shown else {}),
            **{key: _option(key, value, task) for key, value in bench.options.items()},
        }
    )
    report = run(job, source=open_dataframe(table, id="id", text="text"), settings=Settings())
    wanted = {row.record_id for row in rows}
    found = read_outcomes(out, name=report.name, recipe=report.recipe, model=task.model, wanted=wanted)
    for one in found.values():
        yield Result(
            label, task.set, bench.model, one.record_id, one.value, one.reason, one.input_tokens,
            one.output_tokens, one.calls, one.seconds,
        )  # fmt: skip


def _option(key: str, value: str, task: Task) -> Any:
    """An option's value, in which ``{fields}`` is every field whose values are printed."""
    fields = [one for one, schema in answer_schema(task.model)["properties"].items() if not is_choice(schema)]
    told = value.replace("{fields}", ",".join(fields))
    return tuple(told.split(",")) if key in ("require_evidence", "keep") else told


def instructor(bench: Bench, task: Task, rows: Sequence[Row], tool: str) -> Iterator[Result]:
    """instructor's client, with the retries that make as many answers as Quarry may ask for."""
    import instructor as library
    import openai
    from instructor.core.exceptions import IncompleteOutputException, InstructorRetryException

    told = f"{_SYSTEM}\n{task.instructions}"
    if INSTRUCTOR[tool] == "JSON_SCHEMA":
        told += f"\nAnswer with JSON of this JSON Schema:\n{json.dumps(task.model.model_json_schema())}"
    before = [{"role": "system", "content": told}]
    for shot in task.shots if bench.shown == "same" else ():
        answer = task.model.model_validate(dict(shot.label.expected)).model_dump_json(by_alias=True)
        before += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": answer}]
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
                messages=[*before, {"role": "user", "content": row.text}],
                max_retries=ANSWERS - 1,
                max_tokens=OUTPUT,
                temperature=0,
            )
            value = answer.model_dump(mode="json", by_alias=True)
        except (InstructorRetryException, IncompleteOutputException) as trouble:
            error = type(trouble).__name__
        yield Result(
            bench.named(tool), task.set, bench.model, row.record_id, value, error, used["input_tokens"], used["output_tokens"],
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
                bench.named("langextract"), task.set, bench.model, one["id"], value, one["error"], one["input_tokens"],
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


def ask(bench: Bench, task: Task, rows: Sequence[Row], tool: str) -> Iterator[Result]:
    """Ask a tool for rows of a task."""
    if tool == "quarry":
        return quarry(bench, task, rows)
    if tool == "langextract":
        return langextract(bench, task, rows)
    return instructor(bench, task, rows, tool)


def install(folder: Path) -> None:
    """Make LangExtract's environment, if it is not there."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "langextract", "openai"]
        subprocess.run(pip, check=True)
