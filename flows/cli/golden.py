"""``quarry golden``: make and check golden sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from extractors.errors import JobError
from extractors.parsing import loads_exact
from flows.cli import terminal
from flows.cli.evaluate import JSON, RULES, rules_of

golden = typer.Typer(
    name="golden", help="Make and check golden sets: records with their right values.", no_args_is_help=True
)


@golden.command("add")
def add_command(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The output folder of a run.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The golden set to add to; it is made if it is not there.")
    ],
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="A record to add, several times; or several with commas between, where no record has that id."
        ),
    ] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="Add every row that was accepted or confirmed in a review.")
    ] = False,
    expected: Annotated[
        str | None, typer.Option(help="The right values of the one record that is named, as JSON.")
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Add as drafts, to be put right in the file by hand.")] = False,
    name: Annotated[str | None, typer.Option(help="The schema's name, where the output has several.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe's id, where the schema has several.")] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Add records of an output folder to a golden set: rows as they are, failures with the values that are given.

    Example: `quarry golden add out --id P-1001,P-1002 -o golden.jsonl`
    """
    from extractors.evaluate.promotion import promote_records
    from extractors.store.files import place

    values = None if expected is None else _values(expected)
    added = promote_records(
        place(out),
        Path(output),
        ids=ids or (),
        reviewed=reviewed,
        expected=values,
        draft=draft,
        name=name,
        recipe=recipe,
    )
    if json:
        told = [{"id": one.record_id, "was": one.kind, "draft": one.draft} for one in added]
        terminal.say_json({"golden": output, "added": told})
        return
    drafts = sum(one.draft for one in added)
    terminal.talk().print(
        f"{len(added):,} records added to {output}" + (f", {drafts:,} of them drafts" if drafts else "")
    )


@golden.command("check")
def check_command(
    path: Annotated[str, typer.Argument(metavar="GOLDEN", help="A golden set: JSON Lines or Parquet.")],
    schema: Annotated[str, typer.Option(help="`package.module:Model`, a JSON Schema file or a one-line spec.")],
    text: Annotated[
        str | None, typer.Option(help="The column with the text, or a template, as for `quarry eval`.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="The column with the picture, as for `quarry eval`.")] = None,
    compare: Annotated[list[str] | None, RULES] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Check a golden set against a schema, and show how each field would be compared. Nothing is called.

    A set that holds its records must hold one in every line.

    Example: `quarry golden check golden.jsonl --schema schemas.product:Product`
    """
    from extractors.evaluate.comparators import blank
    from extractors.evaluate.fields import compared_fields
    from extractors.evaluate.golden import read_golden, record_columns
    from extractors.evaluate.line_texts import line_texts
    from extractors.evaluate.scoring import labels_any
    from schemas.loading import load_schema
    from schemas.pointers import split

    model = load_schema(schema)
    labels = read_golden(Path(path), model)
    if set(record_columns(Path(path))) - {"id"}:
        line_texts(Path(path), id=None, text=text, image=image)
    root = compared_fields(model, rules_of(compare))
    silent = [record_id for record_id, label in labels.items() if not labels_any(root, label)]
    lines = [
        {
            "field": one.path,
            "compared by": one.comparator.rule,
            "labelled": sum(bool(_at(label.expected, split(one.path))) for label in labels.values()),
            "with a value": sum(
                any(not blank(value) for value in _at(label.expected, split(one.path))) for label in labels.values()
            ),
        }
        for one in root.fields()
    ]
    if json:
        terminal.say_json({"golden": path, "records": len(labels), "unlabelled": len(silent), "fields": lines})
        return
    terminal.talk().print(f"{path}: {len(labels):,} labelled records", markup=False)
    if silent:
        terminal.talk().print(
            f"{len(silent):,} of them without a label that is scored (the first is {silent[0]!r}): left out of the records wholly "
            "right",
            markup=False,
        )
    terminal.table(terminal.talk(), lines)


def _values(text: str) -> dict[str, Any]:
    """Raises ``JobError`` for what is no JSON object."""
    try:
        found = loads_exact(text)
    except (ValueError, RecursionError) as error:
        raise JobError(f"--expected is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise JobError('--expected is no JSON object: give the values by their keys, such as {"price": 4.5}')
    return found


def _at(expected: Any, steps: Sequence[str]) -> list[Any]:
    """The labels at a path, of a list those of its items; what is labelled as not there has a null below. None where
    nothing is labelled."""
    if not steps:
        return [expected]
    if isinstance(expected, Mapping):
        return _at(expected[steps[0]], steps[1:]) if steps[0] in expected else []
    if isinstance(expected, list) and expected:
        return [value for item in expected for value in _at(item, steps[1:])]
    return [None]
