"""The door: a golden set, a job and a file for the adapter in, a tuned model out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from extractors.endpoint import DRAFT_MODEL, resolve_endpoint, settings_of
from extractors.errors import JobError
from extractors.examples import Example, read_examples
from extractors.pipeline import model_of
from extractors.qwen.adapters import (
    ADAPTER,
    ALPHA,
    BASE,
    BASE_SHA256,
    KIND,
    LORA,
    OMIT_NULLS,
    SYSTEM_SHA256,
    TEXT_ORDER,
    TYPE,
    instructions_digest,
)
from extractors.qwen.local import is_embedded
from extractors.qwen.weights import ensure, locked, sha256_of
from extractors.recipe import Recipe, TunedWays, compile_recipe
from extractors.store.files import check_writable
from extractors.tuning.lessons import Lessons, lessons_of
from extractors.tuning.settings import Settings, Watcher
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    from extractors.endpoint import Settings as Environment
    from extractors.tuning.training import Trained


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it. Losses are in nats a token, on the records that were held back."""

    path: str
    base: str
    records: int
    learned_from: int
    held_back: int
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
    needs for that lies beside ``to``, as ``to`` with ``.part``, until the adapter is written.

    Raises ``JobError`` for a job that cannot be tuned to (a hosted model, pictures, look-ups), for fewer labelled records
    than can be learned from, and without the extra ``quarry[tune]``; ``ModelMissing``; ``OutputError``."""
    watch = watch or Watcher()
    began = time.monotonic()
    training, network = _libraries()
    made = settings or Settings()
    if to.suffix != ".gguf":
        raise JobError(f"{to}: a tuned model is a file that ends in .gguf")
    check_writable(to)
    recipe, base = _recipe(job, environment)
    weights = ensure(base, progress=watch.fetching)
    examples = read_examples(
        golden, recipe.model, omit_nulls=recipe.shape.omit_nulls, text_order=recipe.shape.text_order
    )
    lessons = lessons_of(recipe, examples, weights, watch=watch.reading)
    about = _about(recipe, base, weights, examples, made)
    part = to.with_name(f"{to.name}.part")
    to.parent.mkdir(parents=True, exist_ok=True)
    watch.compiling()
    with locked(to.with_name(f".{to.name}.lock")):
        trained: Trained = training.train(
            network.Network(weights),
            lessons,
            made,
            identity=_identity(about, lessons),
            part=part,
            watch=watch.stepped,
        )
        if trained.best_step == 0:
            raise JobError(
                f"no step made the answers to the {trained.held_back} records held back likelier than the untuned {base} has "
                "them: try more labelled records, or a lower --learning-rate"
            )
        _write(to, trained, made, {**about, "quarry.loss_before": trained.before, "quarry.loss_after": trained.after})
        with suppress(FileNotFoundError):
            part.unlink()
    return Tuned(
        path=str(to),
        base=base,
        records=len(examples),
        learned_from=trained.learned_from,
        held_back=trained.held_back,
        too_long=lessons.too_long,
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
    if job.tools:
        raise JobError("a model that looks things up cannot be tuned: leave --tools out")
    endpoint = resolve_endpoint(alone, settings_of(job, environment), model=name)
    if endpoint.policy.images is not None:
        raise JobError("records with pictures cannot be learned from: leave --image out")
    if endpoint.policy.tuned is not None:
        raise JobError(f"{name} is tuned already: tune the weights that it was made from")
    policy = replace(endpoint.policy, tuned=TunedWays(None))
    return compile_recipe(alone, model_of(job), policy), name


def _about(
    recipe: Recipe, base: str, weights: Path, examples: Sequence[Example], settings: Settings
) -> dict[str, str | float | bool]:
    """What the file says of itself: enough to use it and to make it again."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(orjson.dumps([example.fingerprint, example.answer]))
    return {
        BASE: base,
        BASE_SHA256: sha256_of(weights),
        SYSTEM_SHA256: instructions_digest(recipe.prompter.system.content),
        OMIT_NULLS: recipe.shape.omit_nulls,
        TEXT_ORDER: recipe.shape.text_order,
        "quarry.schema": recipe.name,
        "quarry.records": float(len(examples)),
        "quarry.records_sha256": digest.hexdigest(),
        **{f"quarry.{name}": float(value) for name, value in asdict(settings).items()},
    }


def _identity(about: Mapping[str, Any], lessons: Lessons) -> str:
    """What is trained, so that a run goes on with nothing else."""
    told = [dict(about), lessons.prefix, [(one.question, one.answer) for one in lessons.lessons]]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _write(to: Path, trained: Trained, settings: Settings, about: Mapping[str, str | float | bool]) -> None:
    """The adapter as llama.cpp reads it (the layout of its ``convert_lora_to_gguf.py``), whole or not at all."""
    import numpy as np
    from gguf import GGUFWriter

    fresh = to.with_name(f".{to.name}.{os.getpid()}")
    writer = GGUFWriter(fresh, "qwen2")
    writer.add_string(TYPE, ADAPTER)
    writer.add_string(KIND, LORA)
    writer.add_float32(ALPHA, settings.alpha)
    writer.add_name(to.stem)
    for key, value in about.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_float32(key, value)
    for name, pair in trained.lora.items():
        for kind, values in pair.items():
            for layer, matrix in enumerate(np.asarray(values, np.float32)):
                writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{kind}", np.ascontiguousarray(matrix))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    fresh.replace(to)
