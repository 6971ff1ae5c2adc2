"""Switches that may be on, off, or left to the recipe, on the command line."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.options import job_from, job_options


@pytest.mark.parametrize(("given", "meant"), [([], None), (["--omit-nulls"], True), (["--no-omit-nulls"], False)])
def test_nulls_are_left_out_where_told_not_where_forbidden_and_else_as_the_recipe_has_it(
    given: list[str], meant: bool | None
) -> None:
    seen: dict[str, Any] = {}

    def command(given: dict[str, Any]) -> None:
        seen.update(given)

    app = typer.Typer()
    app.command()(job_options(command))
    done = CliRunner().invoke(app, ["in.csv", "--schema", "name", "--out", "o", *given])
    assert done.exit_code == 0, done.output
    assert job_from(seen).omit_nulls is meant
