"""The example with a look-up: its job, its books, and a run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.store.catalog import current_rows
from extractors.tools.loading import load_tools
from schemas.job import ExtractionJob
from tests.fakes.plausible import Plausible
from tests.fakes.qwen import FakeQwen

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_the_project_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_books_know_a_vendor_in_another_spelling_and_no_stranger() -> None:
    job = ExtractionJob.from_toml(ROOT / "examples" / "catalogue.toml")
    box = load_tools(job.tools, timeout=1, most_steps=1)
    assert box is not None
    find = box.tools["find_vendor"].run
    assert find is not None
    assert [
        (find({"name": name}) or {}).get("vendor_id") for name in ("ACME Gmbh", "Müller & Söhne", "Vandelay Imports")
    ] == [
        "V-0017",
        "V-0031",
        None,
    ]


def test_the_job_runs_against_the_simulator_with_a_look_up_for_each_line(tmp_path: Path) -> None:
    job = ExtractionJob.from_toml(ROOT / "examples" / "catalogue.toml")
    with FakeQwen(Plausible()) as qwen:
        changes = {"model": "qwen-plus", "base_url": qwen.base_url, "out": str(tmp_path / "out")}
        report = run(job.model_copy(update=changes), settings=Settings())
    assert report.rows == 5 and report.calls >= 15
    assert current_rows(tmp_path / "out").num_rows == 5
