"""The reference of the command line is what the commands say of themselves."""

from __future__ import annotations

import re

import typer

from flows.cli.app import app
from flows.cli.reference import PAGE, reference


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "make it anew: python -m flows.cli.reference"


def test_every_command_has_help_and_an_example() -> None:
    sections = re.split(r"^## ", reference(), flags=re.MULTILINE)[1:]
    assert len(sections) > 10
    for section in sections:
        name = section.splitlines()[0]
        assert f"Example: `{name} " in section or f"Example: `{name}`" in section, name


def test_every_option_says_what_it_does() -> None:
    for line in reference().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[2].strip(), line


def test_the_help_names_every_group() -> None:
    root = typer.main.get_command(app)
    assert {"run", "plan", "show", "failures", "retry", "review", "report"} <= set(root.commands)  # type: ignore[attr-defined]
