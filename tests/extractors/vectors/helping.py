"""A helper model of the fake service, asked through the policies of a real run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extractors.budget import Budget
from extractors.connect import connect
from extractors.endpoint import Endpoint, Settings, resolve_endpoint
from extractors.qwen.requests import Call
from extractors.vectors.embedding import Embedder
from extractors.vectors.models import HelperModel
from extractors.vectors.stored import StoredVectors
from schemas.job import ExtractionJob
from tests.fakes.qwen import FakeQwen

SIZE = 64


def job_with(qwen: FakeQwen, **options: Any) -> ExtractionJob:
    """A job with vectors of 64 numbers."""
    told = {
        "source": "x.jsonl", "schema": "name", "out": "out", "model": "qwen-plus", "base_url": qwen.base_url,
        "embedding_model": "text-embedding-v4", "embedding_dimensions": SIZE, **options,
    }  # fmt: skip
    return ExtractionJob.model_validate(told)


@dataclass
class Helped:
    """The open way to the models, and the embedder of the first."""

    call: Call
    endpoint: Endpoint
    embedder: Embedder
    stored: StoredVectors
    budget: Budget | None

    @property
    def model(self) -> HelperModel:
        assert self.endpoint.helpers.embedding is not None
        return self.endpoint.helpers.embedding


@asynccontextmanager
async def helped(
    qwen: FakeQwen, out: Path, *, settings: Settings | None = None, most_texts: int | None = None, **options: Any
) -> AsyncIterator[Helped]:
    """As a run opens it. ``most_texts`` is put in the place of the profile's."""
    job = job_with(qwen, **options)
    endpoint = resolve_endpoint(job, settings or Settings())
    model = endpoint.helpers.embedding
    assert model is not None
    if most_texts is not None:
        model = replace(model, profile=model.profile.model_copy(update={"most_texts": most_texts}))
    stored = StoredVectors(out, model=model.name, dimensions=model.dimensions)
    budgets: list[Budget] = []
    async with AsyncExitStack() as stack:
        call = await connect(
            job, endpoint, qwen.base_url, stack, asyncio.Event(), on_limits=lambda stats: None, on_budget=budgets.append
        )
        with ThreadPoolExecutor(1) as writer:
            yield Helped(call, endpoint, Embedder(model, stored, writer=writer), stored, (budgets or [None])[0])
