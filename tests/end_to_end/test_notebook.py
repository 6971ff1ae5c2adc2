"""The notebook runs from top to bottom over the examples' output, as ``make demo`` leaves it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.end_to_end.examples import ROOT, run_examples


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    reports = run_examples(out)
    assert sum(report.records for report in reports) == 40
    assert sum(report.undone for report in reports) == 0
    return out


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "plots", "tables"),
    [
        ("first_look", 3, 6),
        ("1_query_and_join", 2, 7),
        ("2_failures_and_evidence", 2, 4),
        ("3_cost_and_latency", 3, 3),
    ],
)
def test_a_notebook_runs_and_shows_tables_and_plots(
    output: Path, monkeypatch: pytest.MonkeyPatch, name: str, plots: int, tables: int
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("QUARRY_OUT", str(output))
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    kinds = [
        kind
        for cell in notebook.cells
        if cell.cell_type == "code"
        for one in cell.outputs
        for kind in one.get("data", {})
    ]
    assert kinds.count("image/png") == plots
    assert kinds.count("text/html") >= tables
    assert all(not cell.get("outputs") for cell in nbformat.read(path, 4).cells), "committed without output"
