"""The sample: a few texts of a plan, asked first and kept, from which the rest is forecast.

Which ones is decided by their fingerprints, which are hashes: the smallest ones are a simple random sample, the same
one in any process. They are committed like any others, so that the run of the rest finds them done. The run's file
tells what was left when they were; a later plan that has exactly that left takes the sample as measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from extractors.batch.ledger import BatchLedger, State
from extractors.batch.purse import batch_pricing
from extractors.endpoint import Endpoint, Settings, resolve_endpoint
from extractors.forecast import Forecast, Measured, Pace, forecast
from extractors.history import run_documents
from extractors.pipeline import model_of
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import Purpose
from extractors.recipe import Recipe, compile_recipe
from extractors.sources import Source, open_source
from extractors.store import files
from extractors.store.commits import load_commits
from extractors.store.layout import recipe_folder
from extractors.store.plan import Plan, ToAsk
from extractors.store.store import read_keys_of
from extractors.tools.requests import TOOL
from schemas.job import ExtractionJob
from schemas.usage import Usage

USUAL = 20
"""Texts of a sample where the job does not say."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a job would ask, looked at without writing or locking anything."""

    job: ExtractionJob
    recipe: Recipe
    endpoint: Endpoint
    to_ask: ToAsk

    @property
    def in_batches(self) -> bool:
        """Whether batches of this recipe are under way: what they answer is paid, and cannot be sampled live."""
        folder = recipe_folder(files.place(self.job.out), name=self.recipe.name, recipe_id=self.recipe.id)
        entries = BatchLedger(folder).entries() if folder.is_dir() else []
        return any(entry.state is not State.SETTLED for entry in entries)

    def note(self) -> dict[str, Any]:
        """What a sample's run keeps in its file: the texts' lengths, and what is left after them."""
        left = self.to_ask.without_those()
        return {
            "sample": {
                "characters": dict(self.to_ask.characters),
                "left": {"texts": left.texts, "characters": left.total, "digest": f"{left.digest:032x}"},
            }
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that was taken. ``failed`` of its records failed; ``left`` texts of ``left_characters`` in all were to
    ask after it. ``spent`` is what it took, at the price of the live lane, in which it was asked; ``measured`` is told
    at the price of the rest."""

    run_id: str
    measured: tuple[Measured, ...]
    failed: int
    left: int
    left_characters: int
    spent: Usage


def survey(
    job: ExtractionJob,
    size: int,
    *,
    settings: Settings,
    schema: type[BaseModel] | None = None,
    source: Source | None = None,
) -> Survey:
    """Plan ``job`` and choose ``size`` texts. Raises the errors of ``extractors.errors``."""
    endpoint = resolve_endpoint(job, settings)
    recipe = compile_recipe(job, schema or model_of(job), endpoint.policy)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quarry-plan-")))
        opened = stack.enter_context(source or open_source(job))
        keys = read_keys_of(job.out, name=recipe.name, recipe_id=recipe.id)
        plan = stack.enter_context(Plan.make(opened, keys, scratch=scratch, chunk_size=job.chunk_size))
        return Survey(job, recipe, endpoint, plan.to_ask(size))


def find_sample(seen: Survey) -> Sample | None:
    """The sample that was taken of exactly what this plan has left, if there is one."""
    wanted = {
        "texts": seen.to_ask.texts,
        "characters": seen.to_ask.total,
        "digest": f"{seen.to_ask.digest:032x}",
    }
    for told in run_documents(seen.job.out, name=seen.recipe.name, recipe=seen.recipe.id):
        if told.get("sample", {}).get("left") == wanted:
            return read_sample(seen, told)
    return None


def read_sample(seen: Survey, told: Mapping[str, Any]) -> Sample | None:
    """What the calls of a sample's run (its file's content) took; None when they are not there any more."""
    run_id, note = told["run_id"], told["sample"]
    folder = recipe_folder(files.place(seen.job.out), name=seen.recipe.name, recipe_id=seen.recipe.id)
    pricing = seen.endpoint.pricing
    priced = None if seen.job.lane == "live" else batch_pricing(pricing, seen.endpoint.profile.batch_price)
    columns = ["fingerprint", "started_at", "latency", "status", "input_tokens", "cached_tokens", "output_tokens",
               "reasoning_tokens", "cost", "purpose"]  # fmt: skip
    calls: dict[str, list[dict[str, Any]]] = {}
    for commit in load_commits(folder, verify="size"):
        if commit.run_id == run_id and (part := commit.part("calls")) is not None:
            for call in files.read_table(folder / part.path, columns=columns).to_pylist():
                if call["purpose"] == TOOL:
                    continue
                calls.setdefault(call["fingerprint"], []).append(call)
    lengths = note["characters"]
    measured = tuple(_measured(one, lengths[one], calls[one], priced) for one in sorted(lengths) if one in calls)
    if not measured:
        return None
    spent = sum((_usage(call, None) for own in calls.values() for call in own), Usage())
    return Sample(run_id, measured, told["failures"], note["left"]["texts"], note["left"]["characters"], spent)


def forecast_of(seen: Survey, sample: Sample) -> Forecast:
    """What the rest of this run takes; with ``max_records``, of what it may ask."""
    job, left = seen.job, sample.left
    if job.max_records is not None:
        left = max(0, min(left, job.max_records - len(sample.measured)))
    characters = round(sample.left_characters * left / sample.left) if sample.left else 0
    live = job.lane == "live"
    found = forecast(
        sample.measured,
        texts=left,
        characters=characters,
        pace=Pace(seen.endpoint.concurrency, job.rpm, job.tpm) if live else None,
        currency=seen.endpoint.pricing.currency,
        cost_known=seen.endpoint.pricing.known,
        failed=sample.failed,
    )
    return replace(found, name=seen.recipe.name, recipe=seen.recipe.id[:8])


def _measured(fingerprint: str, characters: int, calls: list[dict[str, Any]], priced: Pricing | None) -> Measured:
    """The first answer, with the second one that it is compared with, and all else: later answers, and tries that failed."""
    ordered = sorted(calls, key=lambda call: float(call["started_at"]))
    answered = [place for place, call in enumerate(ordered) if call["status"] == "ok"]
    first = answered[0] if answered else len(ordered) - 1
    usages = [_usage(call, priced) for call in ordered]
    seconds = [float(call["latency"]) for call in ordered]
    # A try that brought no answer is not a further one, but its time and what it may have cost are.
    others = [replace(one, calls=int(place in answered)) for place, one in enumerate(usages)]
    # Asked of every text, so that it grows with its length as the first answer does.
    always = {first, *(place for place in answered if ordered[place]["purpose"] == Purpose.AGREE.value)}
    usual = sum((usages[place] for place in sorted(always)), Usage())
    further = sum((one for place, one in enumerate(others) if place not in always), Usage())
    lasted = sum(seconds[place] for place in sorted(always))
    return Measured(fingerprint, characters, usual, lasted, further, sum(seconds) - lasted)


def _usage(call: Mapping[str, Any], priced: Pricing | None) -> Usage:
    usage = Usage(
        1,
        call["input_tokens"],
        call["output_tokens"],
        call["cached_tokens"],
        call["reasoning_tokens"],
        Decimal(call["cost"]) if call["cost"] is not None else None,
    )
    if call["status"] != "ok" and call["cost"] is None:
        return replace(usage, cost=Decimal(0))
    return usage if priced is None else replace(usage, cost=priced.cost(usage))
