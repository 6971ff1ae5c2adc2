"""Right values for less: Quarry, instructor and LangExtract on the same embedded server, over the labelled sets.

    nice -n 19 python -m benchmarks.quality --models local-0.5b,local-1.5b --limit 20 --langextract /tmp/peers/venv

Every tool is asked one record at a time, at temperature 0, with at most 512 output tokens an answer and three answers a
record, and is told the same of the task: the set's instructions and the schema with its descriptions. instructor: JSON mode
(it writes the schema into the prompt itself) and JSON_SCHEMA mode (decoding is constrained; the schema is given in the
prompt by hand). LangExtract: as its documentation has it, with schema constraints.

``--shown`` says what each is shown besides, and only tools that were shown the same are compared:

- ``none``: no labelled example (Quarry shows its made-up ones, as it does by itself). LangExtract takes part in no such
  comparison, since it refuses to work without.
- ``same``: three fixed labelled rows (``--shots`` for more) that are not measured, the same for all: as Quarry's examples, as
  turns of instructor's conversation, as LangExtract's examples. The name of a tool that was shown another number ends with it.
- ``similar``: Quarry alone, with rows it chooses for each record from the last rows of the set (golden set). A last table
  sets this beside the others with their ``same`` ones, since a golden set is what both have: it says what each tool makes of
  one, and is no comparison of like prompts.

Results are appended to ``OUT/results.jsonl``, a line for each tool, set, model and record, and what is there is not
asked again: stop it at any time and run it on, with more records, sets or models. ``--report`` only prints. The table's
"of all" lines average over the sets of which every tool of a comparison has the same records; only those records count.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson

from benchmarks.quality_tools import INSTRUCTOR, SHOTS, SHOWN, Bench, Result, ask, install
from benchmarks.sets import ADAPTERS, DEFAULT, f1, score_task, tasks
from extractors.qwen.local_server import LocalServer, Tuning
from extractors.qwen.weights import ensure


def measure(bench: Bench, names: Sequence[str], tools: Sequence[str], limit: int) -> None:
    """Ask what has not been asked, set by set, and append each result."""
    done = {one.key for one in read(bench.out)}
    with (bench.out / "results.jsonl").open("ab") as file:
        for name in names:
            for task in tasks(name, limit=limit, shots=bench.shots):
                for tool in tools:
                    if not bench.takes(tool):
                        continue
                    label = bench.named(tool)
                    rows = [row for row in task.rows if (label, name, bench.model, row.record_id) not in done]
                    if not rows:
                        continue
                    clock, count = time.perf_counter(), 0
                    for result in ask(bench, task, rows, tool):
                        file.write(orjson.dumps(asdict(result)) + b"\n")
                        file.flush()
                        count += 1
                    seconds = time.perf_counter() - clock
                    print(
                        f"# {bench.model} {name} {Path(task.spec).stem}: {label}, {count} in {seconds:.0f} s",
                        flush=True,
                    )


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


def report(results: Sequence[Result], names: Sequence[str], labels: Sequence[str] = ()) -> None:
    """A table for each model and each comparison of tools that were shown the same; ``labels`` are Quarry's, where
    not all of them are to be in it."""
    for model in sorted({one.model for one in results}):
        mine = {one.key: one for one in results if one.model == model}
        for shown in SHOWN:
            tools = sorted({one.tool for one in mine.values() if shown_to(one.tool) == shown}, key=_order)
            tools = [tool for tool in tools if not labels or not tool.startswith("quarry") or _plain(tool) in labels]
            if tools:
                _compare(mine, model, tools, names, _TITLES[shown])
        every = {one.tool for one in mine.values()}
        chosen = {tool for tool in every if shown_to(tool) == "similar" and (not labels or _plain(tool) in labels)}
        others = {tool for tool in every if shown_to(tool) == "same" and not tool.startswith("quarry")}
        if chosen and others:
            _compare(mine, model, sorted(chosen | others, key=_order), names, _WORTH)


_TITLES = {
    "none": "no examples",
    "same": "the same fixed examples shown to every tool (three where no number is told)",
    "similar": "examples chosen for each record from a golden set, which only Quarry does",
}
_WORTH = "what each makes of a golden set: Quarry shows each record those like it, the others the same to all"


def shown_to(tool: str) -> str:
    """Which examples the results of this name were made with."""
    return next((shown for shown in SHOWN if tool.endswith(f", {shown} examples")), "none")


def _plain(tool: str) -> str:
    return tool.removesuffix(f", {shown_to(tool)} examples")


def _without_count(tool: str) -> str:
    """Another tool's name without the number of examples that it was shown."""
    plain = _plain(tool)
    return next((name for name in (*INSTRUCTOR, "langextract") if plain.rstrip("0123456789").rstrip() == name), plain)


def _order(tool: str) -> tuple[bool, str]:
    return not tool.startswith("quarry"), tool


def _compare(
    mine: Mapping[tuple[str, str, str, str], Result], model: str, tools: Sequence[str], names: Sequence[str], title: str
) -> None:
    """F1 with its interval, valid answers, tokens and seconds a record, of the records that all of ``tools`` have."""
    averages: dict[str, list[tuple[float, float, float, float]]] = {tool: [] for tool in tools}
    print(f"\n{model}, {title}")
    records = 0
    for name in names:
        common = set.intersection(*({key[3] for key in mine if key[:2] == (tool, name)} for tool in tools))
        if not common:
            continue
        records += len(common)
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
                f"    {_plain(tool):>24}: F1 {figure}, valid {valid:.2f}, "
                f"{tokens[0]:6.0f} in {tokens[1]:5.0f} out, {seconds:6.1f} s"
            )
    counted = len(averages[tools[0]])
    if counted:
        print(f"  of all, the mean of {counted} sets, {records} records")
    for tool, figures in averages.items() if counted else ():
        f, tokens_in, tokens_out, seconds = (float(np.mean(column)) for column in zip(*figures, strict=True))
        print(f"    {_plain(tool):>24}: F1 {f:.3f}, {tokens_in:6.0f} in {tokens_out:5.0f} out, {seconds:6.1f} s")


@contextmanager
def serving(model: str, *, url: str | None, threads: int) -> Iterator[str]:
    """The address of a server with ``model``: one that is up at ``url``, else one of its own."""
    if url is not None:
        yield url
        return
    with LocalServer(ensure(model), slots=1, alias=model, tuning=Tuning(threads=threads)) as server:
        yield server.base_url


def main() -> int:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="local-0.5b")
    parser.add_argument("--sets", default=",".join(DEFAULT), help=f"of {', '.join(ADAPTERS)}")
    parser.add_argument(
        "--tools", default="quarry,instructor JSON,instructor JSON_SCHEMA,langextract", help="asked, and in the table"
    )
    parser.add_argument("--shown", default="none,same,similar", help="labelled examples: none, same, similar")
    parser.add_argument("--shots", type=int, default=SHOTS, help="examples of --shown same")
    parser.add_argument("--limit", type=int, default=20, help="records of each set, the first of the file")
    parser.add_argument("--url", help="a server that is up already, with the one model of --models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="quality-out", type=Path)
    parser.add_argument(
        "--langextract", type=Path, help="a virtual environment with langextract and openai; made if missing"
    )
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of Quarry's job; see --label")
    parser.add_argument("--label", default="quarry", help="the name under which Quarry's results are kept")
    parser.add_argument("--verbatim", action="store_true", help="hold Quarry to spans where a set's values are spans")
    parser.add_argument("--only", default="", help="the labels of Quarry that the table has; all, where not given")
    parser.add_argument("--report", action="store_true", help="ask nothing, print what is there")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    names, tools = arguments.sets.split(","), arguments.tools.split(",")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        if arguments.langextract is None:
            tools = [tool for tool in tools if tool != "langextract"]
        elif "langextract" in tools:
            install(arguments.langextract)
        for model in arguments.models.split(","):
            with serving(model, url=arguments.url, threads=arguments.threads) as url:
                bench = Bench(
                    url=url,
                    model=model,
                    out=arguments.out,
                    options=dict(one.split("=", 1) for one in arguments.option),
                    label=arguments.label,
                    verbatim=arguments.verbatim,
                    langextract=arguments.langextract,
                    shots=arguments.shots,
                )
                for shown in arguments.shown.split(","):
                    measure(replace(bench, shown=shown), names, tools, arguments.limit)
    asked = [
        one
        for one in read(arguments.out)
        if one.tool.startswith("quarry") or _without_count(one.tool) in arguments.tools.split(",")
    ]
    report(asked, names, arguments.only.split(",") if arguments.only else ())
    return 0


if __name__ == "__main__":
    sys.exit(main())
