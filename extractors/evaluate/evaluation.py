"""An evaluation: an ordinary run over the records of a golden set, then scores.

The run goes into an ordinary output folder, so that it resumes, is priced and pays nothing twice. What is scored is the
current outcome of each labelled record under the run's recipe, whenever it was paid for.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import orjson
from pydantic import BaseModel

from extractors.endpoint import Settings, resolve_endpoint, settings_of
from extractors.errors import Interrupted, JobError, QuarryError
from extractors.evaluate.fields import Compared, compared_fields
from extractors.evaluate.golden import Labelled
from extractors.evaluate.outcomes import Given, read_outcomes
from extractors.evaluate.records import LabelledRecords, labels_of, prepared
from extractors.evaluate.scoring import Cell, labels_any, score_record
from extractors.evaluate.statistics import Counts, Interval, Score, ratio, scores, share
from extractors.history import run_documents
from extractors.limits import Permit
from extractors.pipeline import Conductor, Control, Watcher, model_of, run
from extractors.qwen.adapters import adapter_at
from extractors.recipe import compile_recipe, schema_name
from extractors.report import RunReport
from extractors.store import layout
from extractors.store.catalog import outputs
from extractors.store.files import check_writable, is_remote
from schemas.job import ExtractionJob
from schemas.records import content_fingerprint

FOLDER = "evaluations"
"""In the output folder: where the evaluations lie."""
_SCORES = ("f1", "precision", "recall")
_RATES = ("whole", "valid")


@dataclass(frozen=True, slots=True)
class Scored:
    """One labelled record: its text, its outcome, its cells, and whether its label says anything that is scored."""

    label: Labelled
    text: str
    given: Given
    cells: Sequence[Cell]
    labelled: bool = True

    @property
    def whole(self) -> bool | None:
        """Whether every labelled value is right and nothing else was given; None where nothing is labelled."""
        if not self.labelled:
            return None
        return self.given.value is not None and all(not any(one.verdict.counts[1:]) for one in self.cells)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one recipe on one golden set.

    ``asked`` counts labelled records that have an outcome, ``unasked`` those that have none yet (a ceiling, an
    interruption): they are not scored. Rates are shares of records, ``whole`` of those whose labels say anything,
    ``ungrounded`` of values that evidence was looked for. ``seconds`` are the calls' time of a record.
    """

    golden: str
    out: str
    name: str
    recipe: str
    model: str
    fields: Sequence[str]
    rules: Mapping[str, str]
    records: Sequence[Scored]
    unasked: Sequence[str]
    counts: Counts
    micro: Score
    by_field: Mapping[str, Score]
    whole: Interval
    valid: Interval
    ungrounded: Interval
    currency: str | None = None
    """Of the costs; None where it is not known, or more than one was paid in."""
    learned: int = 0
    """Scored records that a tuned model which answered was tuned on."""
    report: RunReport | None = None

    @property
    def caution(self) -> str | None:
        """What to say where the scores are not of records that nobody had shown the model."""
        if not self.learned:
            return None
        return (
            f"{self.learned:,} of {len(self.records):,} labelled records are among those that {self.model} was tuned on: the "
            "scores say nothing about records that it has not seen; evaluate it on others"
        )

    @property
    def unlabelled(self) -> int:
        """Scored records whose labels say nothing that is scored."""
        return sum(not one.labelled for one in self.records)

    @property
    def no_bar(self) -> str | None:
        """Why no figure can be held to a bar, whatever it is; None where they can."""
        if self.unasked:
            return f"{len(self.unasked):,} labelled records were not asked: nothing can be held to a bar"
        if self.caution is not None:
            return "nothing can be held to a bar on records that the model was tuned on"
        if self.unlabelled == len(self.records):
            return "no record labels anything that is scored: nothing can be held to a bar"
        return None

    @property
    def macro_f1(self) -> float | None:
        """The mean of the fields' F1, of those that have one."""
        known = [one.f1.value for one in self.by_field.values() if one.f1.value is not None]
        return statistics.fmean(known) if known else None

    @property
    def input_tokens(self) -> int:
        """Of all scored records."""
        return sum(one.given.input_tokens for one in self.records)

    @property
    def output_tokens(self) -> int:
        """Of all scored records."""
        return sum(one.given.output_tokens for one in self.records)

    @property
    def cost(self) -> Decimal | None:
        """Of all scored records; None where a price or the currency is not known."""
        if self.currency is None:
            return None
        known = [one.given.cost for one in self.records]
        return None if None in known else sum((one for one in known if one is not None), Decimal(0))

    @property
    def price(self) -> str | None:
        """What 1,000 records cost, with the currency; None where that is not known."""
        cost = self.cost
        return None if cost is None else f"{cost / max(1, len(self.records)) * 1000:.4f} {self.currency}"

    @property
    def seconds(self) -> tuple[float | None, float | None]:
        """Median and 95th percentile over the records that were asked themselves."""
        known = [one.given.seconds for one in self.records if one.given.seconds is not None]
        if not known:
            return None, None
        return float(np.median(known)), float(np.quantile(known, 0.95))

    def figure(self, name: str) -> float | None:
        """A figure by the name that ``--fail-under`` uses: ``f1``, ``precision``, ``recall``, ``macro_f1``, ``whole``,
        ``valid``, ``grounded``, or ``f1:FIELD`` and the like. Raises ``JobError`` for any other."""
        check_figure(name, self.fields)
        if name == "macro_f1":
            return self.macro_f1
        if name == "grounded":
            return None if self.ungrounded.value is None else 1 - self.ungrounded.value
        word, _, field = name.partition(":")
        told = self if word in _RATES else self.by_field[field] if field else self.micro
        value: Interval = getattr(told, word)
        return value.value


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an evaluation would be of: its output folder, the recipe's id, and the rule of each field that is compared."""

    out: str
    recipe: str
    rules: Mapping[str, str]


def check_figure(name: str, fields: Collection[str]) -> None:
    """Raises ``JobError`` for a figure that an evaluation of these fields does not have."""
    word, colon, field = name.partition(":")
    if colon and word in _SCORES and field not in fields:
        raise JobError(f"there is no field {field!r} in the evaluation; there are {', '.join(fields)}")
    if name not in (*_SCORES, *_RATES, "macro_f1", "grounded") and not (colon and word in _SCORES):
        raise JobError(
            f"there is no figure {name!r}; there are f1, precision, recall (each also as f1:FIELD), macro_f1, whole, "
            "valid and grounded"
        )


def foreseen(
    golden: Path,
    job: ExtractionJob,
    *,
    rules: Mapping[str, str] | None = None,
    schema: type[BaseModel] | None = None,
    settings: Settings | None = None,
) -> Outlook:
    """What ``evaluate`` would run; nothing is asked and the records are not read.

    Raises ``JobError`` for a set, an option or a model that it would refuse, and the errors of a schema and of an output.
    """
    _check_job(job)
    model = schema or model_of(job)
    root = compared_fields(model, rules)
    labels_of(golden, job, model)
    recipe = compile_recipe(job, model, resolve_endpoint(job, settings_of(job, settings)).policy)
    return Outlook(job.out, recipe.id[:8], _rules_of(root))


def evaluate(
    golden: Path,
    job: ExtractionJob,
    *,
    rules: Mapping[str, str] | None = None,
    schema: type[BaseModel] | None = None,
    settings: Settings | None = None,
    watch: Watcher | None = None,
    control: Control | None = None,
    conduct: Conductor | None = None,
    permit: Permit | None = None,
    engine_name: str = "direct",
) -> Evaluation:
    """Run the job over the records of a golden set and score what became of them.

    The job's source is the golden set itself, or, for a set of labels only, where the records are: they are found by
    their ids, and no other record is asked. ``rules`` override how fields are compared.
    Raises ``JobError`` for a set that cannot be used and for a ceiling that lets no record through, ``Interrupted`` where
    the run was stopped before any record had an outcome, and what a run raises.
    """
    _check_job(job)
    model = schema or model_of(job)
    root = compared_fields(model, rules)
    job, labels, records = prepared(golden, job, model)
    report = run(
        job,
        schema=schema,
        source=records.source(),
        settings=settings,
        watch=watch,
        control=control,
        conduct=conduct,
        permit=permit,
        engine_name=engine_name,
    )
    return score_output(
        golden,
        labels,
        root,
        records=records,
        out=Path(job.out),
        name=report.name,
        recipe=report.recipe,
        model=model,
        answering=report.model,
        report=report,
    )


def score_recipe(
    golden: Path,
    job: ExtractionJob,
    recipe: str,
    *,
    rules: Mapping[str, str] | None = None,
    schema: type[BaseModel] | None = None,
) -> Evaluation:
    """Score what a recipe of the job's output folder made of the labelled records; nothing is asked."""
    check_place(job.out)
    model = schema or model_of(job)
    job, labels, records = prepared(golden, job, model)
    name = schema_name(model)
    held = [one for one in outputs(job.out) if one.name == name and one.recipe.startswith(recipe[:8])]
    if len(held) != 1:
        known = ", ".join(one.recipe for one in outputs(job.out) if one.name == name) or "none"
        raise JobError(f"{job.out} has no recipe {recipe} of {name}; it has {known}")
    document = orjson.loads(
        (layout.recipe_folder(Path(job.out), name=name, recipe_id=held[0].recipe) / "recipe.json").read_bytes()
    )
    return score_output(
        golden,
        labels,
        compared_fields(model, rules),
        records=records,
        out=Path(job.out),
        name=name,
        recipe=held[0].recipe,
        model=model,
        answering=document["model"]["name"],
    )


def check_place(out: str) -> None:
    """Raises ``JobError`` for an output whose evaluation cannot lie in it, ``OutputError`` for one that cannot be written."""
    if is_remote(out):
        raise JobError(f"an evaluation and its page lie in the output folder, on a disk: {out} is on an object store")
    check_writable(Path(out) / FOLDER / "index.html")


def _check_job(job: ExtractionJob) -> None:
    check_place(job.out)
    if job.approve_above is not None or job.sample is not None:
        raise JobError(
            "an evaluation takes no sample and waits for no approval: leave approve_above and sample out, max_cost holds"
        )


def _rules_of(root: Compared) -> dict[str, str]:
    return {one.path: one.comparator.rule for one in root.fields()}


def score_output(
    golden: Path,
    labels: Mapping[str, Labelled],
    root: Compared,
    *,
    records: LabelledRecords,
    out: Path,
    name: str,
    recipe: str,
    model: type[BaseModel],
    answering: str,
    report: RunReport | None = None,
) -> Evaluation:
    """Score what an output folder holds of the labelled records; nothing is asked. What it holds of another text under
    a record's id, such as the one before a change, is none of the record's."""
    found = read_outcomes(out, name=name, recipe=recipe, model=model, wanted=labels.keys())
    scored = []
    unasked = []
    for key, text in records.texts.items():
        given = found.get(key)
        if given is None or given.fingerprint not in records.fingerprints[key]:
            unasked.append(key[0])
            continue
        label = labels[key[0]]
        cells = score_record(root, label, given.value)
        scored.append(Scored(label, text, given, cells, labels_any(root, label)))
    if not scored:
        raise _nothing_scored(f"no labelled record of {golden} has an outcome of {answering} in {out}", recipe, report)
    learned = _learned(out, name=name, recipe=recipe)
    fields = [one.path for one in root.fields()]
    counts = counted([one.cells for one in scored], fields)
    micro, by_field = scores(counts)
    grounded = np.array([one.given.grounded for one in scored], dtype=np.int64).reshape(-1, 2)
    return Evaluation(
        golden=str(golden),
        out=str(out),
        name=name,
        recipe=recipe,
        model=answering,
        fields=fields,
        rules=_rules_of(root),
        records=scored,
        unasked=unasked,
        counts=counts,
        micro=micro,
        by_field=dict(zip(fields, by_field, strict=True)),
        whole=share([one.whole for one in scored if one.whole is not None]),
        valid=share([one.given.value is not None for one in scored]),
        ungrounded=ratio(grounded[:, 0], grounded[:, 1]),
        currency=_currency(out, name=name, recipe=recipe),
        learned=sum(content_fingerprint(one.text) in learned for one in scored),
        report=report,
    )


def _currency(out: Path, *, name: str, recipe: str) -> str | None:
    """What the recipe's runs were paid in, else what the last one would have been."""
    told = [
        (one.get("currency"), Decimal(one.get("cost") or 0)) for one in run_documents(out, name=name, recipe=recipe)
    ]
    paid = {currency for currency, cost in told if cost}
    if len(paid) > 1:
        return None
    return next(iter(paid), told[0][0] if told else None)


def _learned(out: Path, *, name: str, recipe: str) -> frozenset[str]:
    """The fingerprints of the texts that a recipe's tuned models were tuned on, as far as their files are where they were."""
    document = orjson.loads((layout.recipe_folder(out, name=name, recipe_id=recipe) / "recipe.json").read_bytes())
    names = [document["model"]["name"], document.get("routing", {}).get("final", "")]
    adapters = [adapter_at(one) for one in names]
    return frozenset[str]().union(*(one.learned for one in adapters if one is not None))


def _nothing_scored(what: str, recipe: str, report: RunReport | None) -> QuarryError:
    stopped = None if report is None else report.stopped
    if report is None or stopped is None:
        return JobError(f"{what} under recipe {recipe}: nothing can be scored")
    if report.interrupted:
        return Interrupted(f"{what} yet: the run was stopped. The same command goes on")
    why = stopped.removeprefix("budget: ")
    if why != stopped:
        return JobError(f"{what}: the ceiling let none through ({why}). Raise it, and the same command goes on")
    return JobError(f"{what}: the run was stopped ({why}). Mend that, and the same command goes on")


def counted(cells: Iterable[Sequence[Cell]], fields: Sequence[str]) -> Counts:
    """Records x fields x (true positives, false positives, false negatives)."""
    number = {field: at for at, field in enumerate(fields)}
    rows = []
    for record in cells:
        row = np.zeros((len(fields), 3), dtype=np.int64)
        for cell in record:
            row[number[cell.field]] += cell.verdict.counts
        rows.append(row)
    return np.stack(rows)
