"""Asking again under a recipe whose prompt files are gone or were edited: ``recipe.json`` keeps their texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import orjson
from pydantic import BaseModel

from extractors.errors import JobError
from extractors.recipe import ModelPolicy, Recipe, compile_recipe, schema_name
from extractors.store import files, layout
from schemas.job import ExtractionJob

logger = logging.getLogger(__name__)


def compile_again(job: ExtractionJob, model: type[BaseModel], policy: ModelPolicy, *, recipe: str | None) -> Recipe:
    """The job's recipe; where that is not the ``recipe`` of this short id, the one that the prompts which it keeps make, if
    it is that very recipe. Raises what ``compile_recipe`` raises."""
    try:
        made = compile_recipe(job, model, policy)
    except JobError:
        kept = _kept(job, model, policy, recipe=recipe)
        if kept is None:
            raise
        return kept
    if recipe in (None, made.id[:8]):
        return made
    return _kept(job, model, policy, recipe=recipe) or made


def _kept(job: ExtractionJob, model: type[BaseModel], policy: ModelPolicy, *, recipe: str | None) -> Recipe | None:
    """None where the recipe keeps no prompts, or these do not make it."""
    if recipe is None or job.prompt is None or ".txt" not in job.prompt:
        return None
    path = layout.recipe_folder(files.place(job.out), name=schema_name(model), recipe_id=recipe) / "recipe.json"
    try:
        document = orjson.loads(files.read(path))
    except (OSError, ValueError):
        return None
    prompts: Mapping[str, str] = document.get("prompt", {}).get("own", {})
    if not prompts:
        return None
    try:
        made = compile_recipe(job, model, policy, prompts=prompts)
    except JobError:
        return None
    if made.id != document.get("id"):
        return None
    logger.warning(
        "the prompt %s is not what it was: recipe %s is asked with the text that %s keeps", job.prompt, recipe, path
    )
    return made
