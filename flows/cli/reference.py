"""``docs/cli.md``: every command with its options, from the commands themselves.

Run: ``python -m flows.cli.reference`` writes it anew; a test compares.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from flows.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def reference() -> str:
    """The page's Markdown."""
    root: Any = typer.main.get_command(app)
    lines = [
        "# The `quarry` command",
        "",
        "Made by `python -m flows.cli.reference` from the commands' own help. Data goes to standard output, talk to "
        'standard error; `--json` prints one JSON object last, `{"error": ...}` where the command could not do its work. Exit '
        "codes: 0 done, also where a ceiling or batches under way left records undone (`stopped` and `undone` tell), 1 more "
        "failures than allowed or a check that did not pass, 2 something that you can mend (an option, a source, a schema, "
        "the output), 3 the output is in use, 4 the provider must act (key, model, address), 6 the estimate waits for "
        "approval, 70 a bug of ours, 130 interrupted.",
        "",
    ]
    for name, command in _commands("quarry", root):
        lines += _section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if getattr(command, "commands", None) is not None:
            yield from _commands(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _section(name: str, command: Any) -> list[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    shown = " ".join(
        [
            name,
            *(_metavar(one) if one.required else f"[{_metavar(one)}]" for one in arguments),
            *(["[OPTIONS]"] if options else []),
        ]
    )
    lines = [f"## {name}", "", f"`{shown}`", "", inspect.cleandoc(command.help or ""), ""]
    rows = [(f"`{_metavar(one)}`", one.help) for one in arguments if one.help]
    rows += [(", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts)), _help(one)) for one in options]
    if rows:
        lines += ["| | |", "|---|---|"]
        lines += [f"| {left} | {_cell(right)} |" for left, right in rows]
        lines.append("")
    return lines


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]")


def _help(option: Any) -> str:
    text = option.help or ""
    default = option.default
    if (
        option.show_default
        and default not in (None, False, "", ())
        and "[default:" not in text
        and not callable(default)
    ):
        text += f" [default: {default}]"
    return text


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}\n")


if __name__ == "__main__":
    main()
