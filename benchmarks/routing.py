"""A draft with a final model behind it, against the final model alone: F1, time and CPU time, with the embedded models.

    python -m benchmarks.routing [--set mit_restaurant] [--records 60] [--tune 3] [--live 0.4] [--out routing-out]

The first rows of a set's dev half, asked as ``benchmarks.parts`` has it. Time and CPU time (with the embedded servers') are
of a whole evaluation, from nothing to the scores; run it on a machine that does nothing else. What was measured is kept in
``OUT``, and is not asked again.

With ``--tune EPOCHS`` the draft is first tuned (``quarry tune``) on the rows whose labels are known, the same that the final
is shown examples of; what that takes is printed, and is no part of the draft's time.

The last table asks nobody: the answers of draft and final, each asked alone, are put together as a routed run does it
(``extractors.evaluate.replay``), at several thresholds; CPU time is then the draft's for all records and the final's for its
share. Its last line is what no threshold can do better than: the final is asked about the records on which it helps most,
known from the labels, until F1 is within a point of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import Part, parser, parts
from benchmarks.sets import counts, f1
from extractors.endpoint import Settings
from extractors.evaluate.evaluation import Evaluation, evaluate
from extractors.evaluate.replay import Replay, Replayed, replays
from extractors.evaluate.scoring import Cell

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


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


def measured(name: str, parts: Sequence[Part], options: Callable[[Part], Mapping[str, Any]], out: Path) -> Measured:
    """Evaluate one way of asking and print its line. Its time is kept beside it, since a second run asks nothing."""
    evaluations, times = [], []
    for part in parts:
        began, spent = time.perf_counter(), _cpu()
        found = evaluate(part.golden, part.job(out / name, **options(part)), rules=part.task.rules, settings=Settings())
        kept = out / name / part.name / "took.json"
        if found.report is not None and found.report.calls:
            whole = found.report.records == found.report.rows + found.report.failures
            took = {"seconds": time.perf_counter() - began, "cpu": _cpu() - spent, "whole": whole}
            kept.write_text(json.dumps(took))
        if found.caution is not None:
            print(f"  {name:>8}: {found.caution}")
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


def _label(arguments: argparse.Namespace) -> str:
    """What names the draft in files."""
    tuned = "" if arguments.tune is None else f"-tuned-{arguments.tune:g}"
    return f"{Path(arguments.draft).name.removesuffix('.gguf')}-{arguments.labelled}{tuned}"


def tuned(part: Part, arguments: argparse.Namespace) -> Path:
    """The draft's weights tuned on the part's labelled rows, once for each number of epochs; prints what that took."""
    out: Path = arguments.out
    to = out / f"{part.name}-{_label(arguments)}.gguf"
    told = to.with_suffix(".json")
    if not told.is_file():
        spent = _cpu()
        options = {"schema": part.options["schema"], "instructions": part.options["instructions"]}
        command = [str(Path(sys.executable).with_name("quarry")), "tune", str(part.options["examples"]), "--json"]
        command += [f"--{name}={value}" for name, value in options.items()]
        command += [f"--model={arguments.draft}", f"--to={to}", f"--epochs={arguments.tune:g}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        told.write_text(json.dumps({**json.loads(done.stdout), "cpu": _cpu() - spent}))
    took = json.loads(told.read_text())
    print(
        f"     tuned: {part.name}, {took['learned_from']} records and {took['held_back']} held back, {took['steps']} steps, "
        f"{took['seconds']:.0f} s, {took['cpu']:.0f} s of CPU; nats a token {took['loss_before']:.3f} -> {took['loss_after']:.3f}",
        flush=True,
    )
    return to


def by_labels(both: Sequence[Replay], *, loss: float = 0.01) -> list[Replayed]:
    """As few records of the final as it takes for F1 at most so much lower, chosen one by one where it helps most."""
    chosen = [Replayed(False, one.draft.cells) for one in both]
    drafts = np.array([counts(one.draft.cells) for one in both])
    finals = np.array([counts(one.final.cells) for one in both])
    least = _f1(finals.sum(axis=0)) - loss
    now = drafts.sum(axis=0)
    while _f1(now) < least:
        gains = [-1.0 if chosen[at].asked else _f1(now - drafts[at] + finals[at]) for at in range(len(both))]
        best = int(np.argmax(gains))
        now = now - drafts[best] + finals[best]
        chosen[best] = Replayed(True, both[best].final.cells)
    return chosen


def _f1(counted: Any) -> float:
    right, wrong, missed = counted
    return float(2 * right / max(1, 2 * right + wrong + missed))


def _told(routed: Measured, final: Measured, below: float) -> str:
    """What the pair's own run took beside the final alone, and the records that it routed, which only a run that asked says."""
    reports = [one.report for one in routed.evaluations if one.report is not None and one.report.calls]
    asked = (
        f", {sum(one.routing['routed_records'] for one in reports if one.routing)} records routed" if reports else ""
    )
    share = "" if not routed.cpu or not final.cpu else f", {routed.cpu / final.cpu:.0%} of the final's CPU time"
    return f"            asked live below {below:g}{asked}{share}"


def _line(name: str, replayed: Sequence[Replayed], draft: Measured, final: Measured) -> str:
    routed = sum(one.asked for one in replayed) / len(replayed)
    cost = "" if not draft.cpu or not final.cpu else f", {draft.cpu / final.cpu + routed:4.0%} of the final's CPU time"
    return f"  {name:>8}: F1 {f1([one.cells for one in replayed])}, {routed:4.0%} of the records routed{cost}"


def _cpu() -> float:
    """Seconds of CPU of this process and of the servers it has ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def main() -> int:
    """Measure what is missing and print the tables."""
    options = parser(__doc__, records=60, out="routing-out")
    options.add_argument("--live", type=float, help="ask the routed pair too, with this --route-below")
    options.add_argument("--draft", default="local-0.5b")
    options.add_argument("--tune", type=float, help="tune the draft first, so many epochs")
    options.add_argument("--final", default="local-1.5b")
    arguments = options.parse_args()
    logging.disable(logging.ERROR)
    out: Path = arguments.out
    found = parts(arguments)
    if not found:
        return 0
    drafts = {part.name: arguments.draft for part in found}
    if arguments.tune:
        drafts = {part.name: str(tuned(part, arguments)) for part in found}
    # What is kept is of these models and this many labels.
    named, beside = _label(arguments), f"{arguments.final}-{arguments.labelled}"
    draft = measured("draft", found, lambda part: {"model": drafts[part.name]}, out / named)
    final = measured("final", found, lambda part: {"model": arguments.final}, out / beside)
    if arguments.live is not None:
        pair = {"final": arguments.final, "route_below": arguments.live}
        place = out / f"{named}-{beside}-{arguments.live:g}"
        routed = measured("routed", found, lambda part: {"model": drafts[part.name], **pair}, place)
        print(_told(routed, final, arguments.live), flush=True)
    print("put together from the answers of draft and final:")
    both = [
        one
        for part, drafts, finals in zip(found, draft.evaluations, final.evaluations, strict=True)
        for one in replays(drafts, finals, part.task.model)
    ]
    for threshold in THRESHOLDS:
        print(_line(str(threshold), [one.at(threshold) for one in both], draft, final))
    print(_line("labels", by_labels(both), draft, final))
    return 0


if __name__ == "__main__":
    sys.exit(main())
