"""``quarry model``: the embedded models' weights, and what is known about the hosted ones."""

from __future__ import annotations

import time
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import terminal

if TYPE_CHECKING:
    from extractors.qwen.profiles import Profile

models = typer.Typer(help="Models: list what is known, pull weights, serve one.", no_args_is_help=True)
_JSON = typer.Option("--json", help="Print one JSON object, for machines.")


@models.command("list")
def list_models(json: Annotated[bool, _JSON] = False) -> None:
    """List the embedded models, the profiles of the hosted ones, and what was learned of them.

    Example: `quarry model list`
    """
    from extractors.endpoint import DEFAULT_MODEL, Settings
    from extractors.learned import Learned
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
    settings = Settings.from_environment()
    rows = [row for row in load_profiles(settings.profiles).rows if not row.embedded]
    lessons = [
        {
            "host": host,
            "model": model,
            "refused": [mode.value for mode in lesson.refused],
            "refused_thinking": [mode.value for mode in lesson.refused_thinking],
            "switch": lesson.switch,
            "dated": lesson.dated,
            "said": lesson.said,
        }
        for host, model, lesson in Learned(settings.learned)
    ]
    if json:
        terminal.say_json({"embedded": states, "profiles": [_facts(row) for row in rows], "learned": lessons})
        return
    for one in states:
        mark = "*" if one["default"] else " "
        place = one["here"] or f"not here: quarry model pull {one['name']}"
        terminal.say(f"{mark} {one['name']}  {int(str(one['bytes'])) / 1024**2:,.0f} MiB  {one['licence']}  {place}")
    order = ("fast", "balanced", "max", "vision", "long", "embedding", "rerank", "other")
    rows.sort(key=lambda row: order.index(row.bucket))
    terminal.table(
        terminal.talk(),
        [_line(row) for row in rows],
        title="models by bucket; modes: S json_schema, J json_object, T tools, P prompted, G grammar; think: * on by default;\n"
        "USD per million tokens of input/output, +: dearer for long input (--json has all tiers)",
        bare=True,
    )
    if lessons:
        terminal.table(terminal.talk(), lessons, title="learned by asking (quarry model forget NAME)")


def _facts(row: Profile) -> dict[str, Any]:
    """A profile for machines: money as text, so that no digit is lost."""
    facts = row.model_dump(mode="json", exclude={"match", "always", "embedded", "loopback"})
    facts["prices"] = [
        {
            "up_to": price.up_to,
            "input": format(price.input, "f"),
            "output": format(price.output, "f"),
            "cached": None if price.cached_price is None else format(price.cached_price, "f"),
            "thinking": None if price.thinking is None else format(price.thinking, "f"),
        }
        for price in row.prices
    ]
    return facts


def _line(row: Profile) -> dict[str, Any]:
    """A profile as one line of a table that fits a terminal."""
    thinking = {"none": "-", "off-by-default": "yes", "on-by-default": "yes*", "always": "always"}[row.thinking]
    first = row.prices[0] if row.prices else None
    price = "-"
    if first is not None:
        more = "+" if len(row.prices) > 1 else ""
        price = f"{_plain(first.input)}/{_plain(first.output)}{more}" + (
            "" if row.currency == "USD" else f" {row.currency}"
        )
    return {
        "bucket": row.bucket,
        "name": row.name,
        "reads": _thousands(row.context),
        "writes": _thousands(row.max_output),
        "modes": "".join(_SHORT[mode.value] for mode in row.modes),
        "think": thinking,
        "sees": "yes" if row.vision else "-",
        "price": price,
        "date": row.probed or row.dated or "-",
    }


_SHORT = {"json_schema": "S", "json_object": "J", "tools": "T", "prompted": "P", "grammar": "G"}


def _plain(price: Decimal) -> str:
    return format(price.normalize(), "f")


def _thousands(tokens: int) -> str:
    return f"{tokens // 1000}K" if tokens >= 1000 else str(tokens)


@models.command("probe")
def probe_model(
    name: Annotated[str, typer.Argument(help="The model's name at the address.")],
    base_url: Annotated[str | None, typer.Option(help="The address. Default: QWEN_BASE_URL_COMPAT.")] = None,
    region: Annotated[str | None, typer.Option(help="A hosted region in its place, such as beijing or intl.")] = None,
    workspace: Annotated[str | None, typer.Option(help="A workspace id of the hosted service.")] = None,
    write: Annotated[bool, typer.Option(help="Write what was found into your profiles file.")] = True,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Ask a live model what it truly takes, with 10 to 30 tiny calls, and write it into your profiles file.

    Example: `quarry model probe qwen3.7-plus --region intl`
    """
    import asyncio
    import os

    from extractors.endpoint import Settings, resolve_endpoint
    from extractors.errors import JobError
    from extractors.home import profiles_file
    from extractors.qwen.local import is_embedded
    from extractors.qwen.overrides import write_override
    from extractors.qwen.probe import probe
    from schemas.job import ExtractionJob

    settings = Settings.from_environment()
    if is_embedded(name) and base_url is None:
        raise JobError(f"{name} runs on this machine, and what it can do is known: there is nothing to probe")
    job = ExtractionJob(
        source="-", schema_spec="-", out="-", model=name, base_url=base_url, region=region, workspace=workspace
    )
    endpoint = resolve_endpoint(job, settings)
    address = endpoint.base_url or ""
    found = asyncio.run(
        probe(name, address, api_key=endpoint.api_key, profile=endpoint.profile, pricing=endpoint.pricing)
    )
    path = profiles_file(os.environ)
    if write:
        write_override(path, found.row)
    if json:
        findings = [
            {**asdict(one), "cost": None if one.cost is None else format(one.cost, "f")} for one in found.findings
        ]
        cost = None if found.cost is None else format(found.cost, "f")
        terminal.say_json(
            {
                "model": name,
                "base_url": address,
                "cost": cost,
                "currency": endpoint.pricing.currency,
                "findings": findings,
                "row": found.row,
                "written_to": str(path) if write else None,
            }
        )
        return
    lines = [
        {
            "asked for": one.about,
            "": {True: "yes", False: "no", None: "?"}[one.works],
            "what came": one.note,
            "tokens": f"{one.input_tokens} + {one.output_tokens}",
            "cost": "unknown" if one.cost is None else format(one.cost, "f"),
        }
        for one in found.findings
    ]
    terminal.table(terminal.talk(), lines, title=f"{name} at {address}")
    terminal.say(
        f"{sum(one.calls for one in found.findings)} calls, {terminal.money(found.cost, endpoint.pricing.currency)}"
    )
    if write:
        terminal.say(f"written to {path}, row {found.row['name']}")


@models.command()
def forget(
    name: Annotated[str | None, typer.Argument(help="The model. Default: all of them.")] = None,
) -> None:
    """Forget which modes and switches a model was seen to refuse, so that they are tried again.

    Example: `quarry model forget qwen3.7-plus`
    """
    from extractors.endpoint import Settings
    from extractors.learned import Learned

    count = Learned(Settings.from_environment().learned).forget(name)
    terminal.say(f"{count} forgotten")


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
