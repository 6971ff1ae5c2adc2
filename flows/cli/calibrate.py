"""``quarry calibrate``: what confidence is worth on labelled records, and a map that makes probabilities of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from extractors.errors import Interrupted, JobError
from flows.cli import terminal
from flows.cli.evaluate import JOB, RECORDS, golden_job, golden_options, say_caution, stopped_early, watching

_SAVE = typer.Option(help="The calibration's file, for `--calibration`.")
_KIND = typer.Option(help="isotonic, platt, or auto: the better of both by folds.")
_ERROR = typer.Option(help="Share of wrong values for which a threshold is told.", min=0.001, max=0.5)


@golden_options
def calibrate(
    given: dict[str, Any],
    job: Annotated[str | None, JOB] = None,
    records: Annotated[str | None, RECORDS] = None,
    save: Annotated[str, _SAVE] = "calibration.json",
    kind: Annotated[str, _KIND] = "auto",
    max_error: Annotated[float, _ERROR] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Fit a calibration of `_confidence` on a golden set.

    It runs the job over the set, compares, and writes the map; run with `--calibration FILE` to apply it. The error
    that it tells is by folds: no value is judged by a map that was fitted on it. Of a draft with a final model behind it
    the draft is calibrated, alone: its confidence decides what is routed.

    Example: `quarry calibrate golden.jsonl --schema schemas.product:Product --out out --save calibration.json`
    """
    from extractors.endpoint import resolve_endpoint, settings_of
    from extractors.evaluate.evaluation import evaluate
    from extractors.evaluate.reliability import draft_alone, reliability_of
    from extractors.store.files import check_writable

    path, made = golden_job(given, job, records)
    if made.calibration is not None:
        raise JobError("a calibration is fitted on confidences as they are: leave --calibration out")
    if kind not in ("auto", "isotonic", "platt"):
        raise JobError(f"--kind is auto, isotonic or platt, not {kind!r}")
    check_writable(Path(save))
    pair = resolve_endpoint(made, settings_of(made, None))
    if pair.final is not None:
        terminal.talk().print(
            f"calibrated is the draft, {pair.model}: {pair.final.model} behind it is not asked, and its values will keep "
            "their scores",
            markup=False,
        )
    made = draft_alone(made, pair)
    with watching(quiet=json) as (watch, control):
        evaluation = evaluate(path, made, watch=watch, control=control)
    if (stopped := stopped_early(evaluation)) is not None:
        raise Interrupted(stopped)
    if evaluation.unasked:
        terminal.talk().print(
            f"[red]{len(evaluation.unasked):,} labelled records were not asked: the calibration is of the others[/red]"
        )
    say_caution(evaluation)
    agrees = made.agreement == "always"
    found = reliability_of(evaluation, kind=cast(Any, kind), max_error=max_error, agreement=agrees)
    if not found.wrong:
        terminal.talk().print(
            f"[red]none of the {found.pairs:,} labelled values is wrong: the set does not show how sure the model is of what it "
            "gets wrong. Label more records, hard ones too, before the map decides anything[/red]"
        )
    found.calibration.save(Path(save))
    if json:
        terminal.say_json({**found.as_dict(), "saved": save})
        return
    terminal.say("confidence        values  mean confidence  share right")
    for one in found.bins:
        bar_of_right = "#" * round(30 * one.right)
        terminal.say(
            f"{one.low:.1f} to {one.high:.1f}  {one.count:12,}  {one.confidence:15.3f}  {one.right:11.3f}  {bar_of_right}"
        )
    terminal.say(
        f"expected calibration error {found.before:.3f}, calibrated ({found.calibration.kind}) {found.after:.3f}; of "
        f"{found.pairs:,} values a perfect calibration would show about {found.chance:.3f}"
    )
    if found.threshold > 1:
        terminal.say(f"no confidence is enough to say that at most {max_error:.0%} of the values above it are wrong")
    else:
        terminal.say(
            f"of values of calibrated confidence {found.route_below:.4f} or more at most {max_error:.0%} are wrong (95 % sure): "
            f"{'--agreement always ' if agrees else ''}--calibration {save} --route-below {found.route_below:.4f}"
        )
    terminal.say(f"the calibration is in {save}")
