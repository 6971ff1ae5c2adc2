"""The ceilings that a cluster's workers share are those of the stage that they work for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings
from extractors.stages import run_in_stages, take_sample
from flows import on_dask
from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen


class Seen(Exception):
    """The ceilings were told."""


def test_what_a_sample_took_is_no_room_for_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    told: list[dict[str, Any]] = []

    @contextmanager
    def no_cluster(job: object, window: int) -> Iterator[Any]:
        yield type("Runner", (), {"client": None})

    def limits(run_id: str, **ceilings: Any) -> None:
        told.append(ceilings)
        raise Seen

    monkeypatch.setattr(on_dask, "_runner", no_cluster)
    monkeypatch.setattr(on_dask, "SharedLimits", limits)
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, sample=10, max_cost="1", max_tokens=100_000)
        sample = take_sample(job, settings=Settings()).report
        assert sample is not None and sample.cost is not None and sample.cost > 0
        on_cluster = job.model_copy(update={"runner": "dask"})
        with pytest.raises(Seen):
            run_in_stages(on_cluster, settings=Settings(), conduct=on_dask.conduct_on_dask(on_cluster))
    assert told == [
        {
            "max_cost": 1 - sample.cost,
            "max_tokens": 100_000 - sample.input_tokens - sample.output_tokens,
            "rpm": None,
        }
    ]
