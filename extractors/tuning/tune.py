"""The door: a golden set, a job and a file for the adapter in, a tuned model out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from extractors.endpoint import DRAFT_MODEL, resolve_endpoint, settings_of
from extractors.errors import JobError
from extractors.pipeline import model_of
from extractors.qwen.adapters import (
    BASE,
    BASE_SHA256,
    IDENTITY,
    LEARNED,
    OMIT_NULLS,
    SYSTEM_SHA256,
    TEXT_ORDER,
    adapter_at,
    write_adapter,
)
from extractors.qwen.local import is_embedded
from extractors.qwen.weights import ensure, sha256_of
from extractors.recipe import Recipe, compile_recipe
from extractors.sources import has_pictures
from extractors.store import files
from extractors.store.lock import Lock
from extractors.tuned import TunedWays, instructions_digest
from extractors.tuning.labelled import Taught, taught
from extractors.tuning.lessons import Lessons, check_count, lessons_of
from extractors.tuning.settings import Settings, Watcher
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    from extractors.endpoint import Settings as Environment
    from extractors.tuning.training import Trained

FORMAT = 1
"""Raise when the code changes what comes of the same training: an interrupted one is then begun anew."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it. ``partly_labelled`` and ``too_long`` records were left out. Losses are in nats a token, on the records
    that were held back."""

    path: str
    base: str
    learned_from: int
    held_back: int
    partly_labelled: int
    too_long: int
    loss_before: float
    loss_after: float
    steps: int
    best_step: int
    resumed_at: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def tune(
    golden: Path,
    job: ExtractionJob,
    to: Path,
    *,
    settings: Settings | None = None,
    environment: Environment | None = None,
    watch: Watcher | None = None,
) -> Tuned:
    """Train an adapter on the labelled records of ``golden`` for the job's schema, prompt and instructions, on the weights
    of its embedded model (by default the smallest), and write it to ``to``. A run that was killed is gone on from: what it
    needs for that lies in the folder ``to`` with ``.part``, until the adapter is written.

    Raises ``JobError`` for a job that cannot be tuned to (a hosted model, pictures, look-ups), for fewer labelled records
    than can be learned from, for a training that comes to nothing, where ``to`` is something else already, and without the
    extra ``quarry[tune]``; ``ModelMissing``, ``ServerUnreachable``, ``OutputError``, ``OutputBusy``."""
    watch, settings = watch or Watcher(), settings or Settings()
    began = time.monotonic()
    training, network = _libraries()
    if to.suffix != ".gguf":
        raise JobError(f"{to}: a tuned model is a file that ends in .gguf")
    files.check_writable(to)
    recipe, base = _recipe(job, environment)
    records = taught(golden, job, recipe)
    check_count(len(records.examples), records.left_out)
    weights = ensure(base, progress=watch.fetching)
    about = _about(recipe, base, weights, records, settings)
    _check_free(to, str(about[IDENTITY]))
    lessons = lessons_of(recipe, records.examples, weights, watch=watch.reading)
    part = to.with_name(f"{to.name}.part")
    files.make_folder(part)
    lock = Lock(part, option="--to")
    lock.take()
    try:
        _check_free(to, str(about[IDENTITY]))
        watch.compiling()
        trained: Trained = training.train(
            network.Network(weights),
            lessons,
            settings,
            identity=_identity(about, lessons),
            part=part / "state.npz",
            watch=watch.stepped,
        )
        if trained.best_step:
            _write(to, trained, settings, about)
        files.remove_folder(part)
    finally:
        lock.release()
    if not trained.best_step:
        raise JobError(
            f"no step made the right answers to the {trained.held_back} records held back likelier than {base} has them "
            "untuned: try more labelled records, more --epochs, or another --learning-rate"
        )
    return Tuned(
        path=str(to),
        base=base,
        learned_from=trained.learned_from,
        held_back=trained.held_back,
        partly_labelled=records.partly,
        too_long=records.in_parts + lessons.too_long,
        loss_before=trained.before,
        loss_after=trained.after,
        steps=trained.steps,
        best_step=trained.best_step,
        resumed_at=trained.resumed_at,
        seconds=time.monotonic() - began,
    )


def _libraries() -> tuple[Any, Any]:
    """The modules that need JAX. Raises ``JobError`` where it is not installed."""
    try:
        from extractors.tuning import qwen2, training
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("jax", "jaxlib", "optax"):
            raise
        raise JobError(
            f"tuning needs {error.name}, which is not installed: install the extra, pip install 'quarry[tune]'"
        ) from error
    return training, qwen2


def _recipe(job: ExtractionJob, environment: Environment | None) -> tuple[Recipe, str]:
    """What the tuned model will be asked, and the name of the weights. Raises ``JobError``."""
    # Whatever answers beside it or before it now, the tuned model will answer by itself.
    alone = job.model_copy(
        update={"draft": None, "final": None, "high_accuracy": False, "examples": None, "calibration": None}
    )
    name = job.draft or job.model or DRAFT_MODEL
    if not is_embedded(name) or job.base_url is not None:
        raise JobError(f"{name} is not on this machine: only embedded models can be tuned, such as {DRAFT_MODEL}")
    if has_pictures(job):
        raise JobError("a model is tuned on records of text: leave out --image, and pages as pictures")
    if job.tools:
        raise JobError("a model that looks things up cannot be tuned: leave --tool out")
    endpoint = resolve_endpoint(alone, settings_of(job, environment), model=name)
    if endpoint.policy.tuned is not None:
        raise JobError(f"{name} is tuned already: tune the weights that it was made from")
    policy = replace(endpoint.policy, tuned=TunedWays(None))
    return compile_recipe(alone, model_of(job), policy), name


def _about(recipe: Recipe, base: str, weights: Path, records: Taught, settings: Settings) -> dict[str, Any]:
    """What the file says of itself: enough to use it and to make it again."""
    shown = [[example.fingerprint, example.answer] for example in records.examples]
    about = {
        "quarry.format": FORMAT,
        BASE: base,
        BASE_SHA256: sha256_of(weights),
        SYSTEM_SHA256: instructions_digest(recipe.prompter.system.content),
        OMIT_NULLS: recipe.shape.omit_nulls,
        TEXT_ORDER: recipe.shape.text_order,
        LEARNED: sorted({example.fingerprint for example in records.examples}),
        "quarry.schema": recipe.name,
        "quarry.records": len(shown),
        "quarry.records_sha256": _digest(shown),
        **{f"quarry.{name}": value for name, value in asdict(settings).items()},
    }
    return {**about, IDENTITY: _digest(about)}


def _identity(about: Mapping[str, Any], lessons: Lessons) -> str:
    """What is trained, down to its tokens, so that a run goes on with nothing else."""
    return _digest([about[IDENTITY], lessons.prefix, [(one.question, one.answer) for one in lessons.lessons]])


def _digest(told: Any) -> str:
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check_free(to: Path, identity: str) -> None:
    """Raises ``JobError`` where there is a file that writing would replace: recipes may need it."""
    if not to.exists():
        return
    there = adapter_at(str(to))
    if there is not None and there.identity == identity:
        raise JobError(f"{to} is there already, of just this training: use it, or take it away to train anew")
    raise JobError(
        f"{to} is there already, and is something else: give another name with --to, or take it away. Rows that a tuned model "
        "made can be made again only with its file"
    )


def _write(to: Path, trained: Trained, settings: Settings, about: Mapping[str, Any]) -> None:
    """The adapter's file, whole or not at all."""
    made = {**about, "quarry.loss_before": trained.before, "quarry.loss_after": trained.after}
    temp = files.temporary(to)
    files.remove_stale(to.parent, f"{to.name}.*")
    try:
        write_adapter(temp, trained.matrices(), alpha=settings.alpha, about=made)
        with temp.open("rb") as file:
            files.sync(file.fileno())
        files.rename(temp, to)
    except OSError as error:
        files.remove(temp)
        raise files.explained(error, to) from error
