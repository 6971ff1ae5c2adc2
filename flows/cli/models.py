"""``quarry model``: the embedded models' weights, and what is known about the hosted ones."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows.cli import terminal

models = typer.Typer(help="Models: list what is known, pull weights, serve one.", no_args_is_help=True)
_JSON = typer.Option("--json", help="Print one JSON object, for machines.")


@models.command("list")
def list_models(json: Annotated[bool, _JSON] = False) -> None:
    """List the embedded models and the profiles of the hosted ones.

    Example: `quarry model list`
    """
    from extractors.endpoint import DEFAULT_MODEL, Settings
    from extractors.qwen.local import model_states
    from extractors.qwen.profiles import load_profiles

    states = [
        {
            "name": state.name,
            "default": state.name == DEFAULT_MODEL,
            "here": str(state.path) if state.path else None,
            "bytes": state.bytes,
            "licence": state.licence,
            "sha256": state.sha256,
            "source": state.source,
        }
        for state in model_states()
    ]
    profiles = [
        {
            "name": row.name,
            "modes": [mode.value for mode in row.modes],
            "max_input": row.max_input,
            "max_output": row.max_output,
            "thinking": row.thinking,
            "input_per_million": [format(price.input, "f") for price in row.prices],
            "output_per_million": [format(price.output, "f") for price in row.prices],
            "dated": row.dated or None,
        }
        for row in load_profiles(Settings.from_environment().profiles).rows
        if not row.embedded
    ]
    if json:
        terminal.say_json({"embedded": states, "profiles": profiles})
        return
    for one in states:
        mark = "*" if one["default"] else " "
        place = one["here"] or f"not here: quarry model pull {one['name']}"
        terminal.say(f"{mark} {one['name']}  {int(str(one['bytes'])) / 1024**2:,.0f} MiB  {one['licence']}  {place}")
    terminal.table(terminal.talk(), profiles, title="hosted models (international site, USD per million tokens)")


@models.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="A known name (local-0.5b, local-1.5b), a .gguf path, or hf:OWNER/REPO:FILE.")
    ],
) -> None:
    """Fetch a model's weights and check their SHA-256.

    Example: `quarry model pull local-1.5b`
    """
    from extractors.qwen.weights import ensure

    with terminal.Bar(terminal.talk()) as bar:
        path = ensure(name, progress=bar.fetching)
    terminal.say(str(path))


@models.command()
def serve(
    name: Annotated[str | None, typer.Argument(help="The model. Default: the embedded default.")] = None,
    slots: Annotated[int | None, typer.Option(help="Requests worked on at a time.", min=1)] = None,
) -> None:
    """Serve an embedded model on loopback until Ctrl-C; prints its base URL.

    Example: `quarry model serve local-0.5b`
    """
    from extractors.endpoint import DEFAULT_MODEL
    from extractors.qwen.local import EmbeddedModel

    model = EmbeddedModel(name or DEFAULT_MODEL, slots=slots)
    with terminal.Bar(terminal.talk()) as bar, model.serve(progress=bar.fetching) as address:
        terminal.say(address)
        terminal.talk().print(f"serving {model.name} with {model.slots} slots; Ctrl-C ends it")
        while True:
            time.sleep(3600)
