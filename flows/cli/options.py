"""The job's fields as command-line options: one model, one list of options, one help text."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from extractors.errors import JobError
from flows import environment
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    from extractors.endpoint import Settings

_LISTS = ("keep", "require_evidence", "image_hosts")
_REPEATED = {"tools": "--tool"}
"""Options that are given once for each of their values, which may hold commas."""


def job_options(
    command: Callable[..., None],
    *,
    argument: str = "source",
    about: str = "A file, folder, glob or DuckDB table; or a job file (.toml).",
) -> Callable[..., None]:
    """Give a command the argument SOURCE (or another of that meaning) and one option for each other field of ``ExtractionJob``.

    The command is called with ``given``, a dict of the options that were used, in the place of
    all of them; its own further parameters are kept.
    """
    parameters = [
        inspect.Parameter(
            "source",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Argument(metavar=argument, help=about, show_default=False),
            ],
        )
    ]
    for name, field in ExtractionJob.model_fields.items():
        if name == "source":
            continue
        spelt = (field.alias or name).replace("_", "-")
        option = _REPEATED.get(name) or f"--{spelt}"
        if field.annotation == bool | None:
            # Neither given is something else than no.
            option = f"--{spelt}/--no-{spelt}"
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    _cli_type(name, field), typer.Option(option, help=_help(field), show_default=False)
                ],
            )
        )
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]

    def wrapper(**values: Any) -> None:
        mine = {p.name: values.pop(p.name) for p in own}
        command(given={name: value for name, value in values.items() if value is not None and value != []}, **mine)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    wrapper.__signature__ = inspect.Signature([*parameters, *keyword])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*parameters, *keyword)}
    return wrapper


def job_from(given: Mapping[str, Any]) -> ExtractionJob:
    """The job that the options describe. A SOURCE that ends in ``.toml`` is a job file, and the options
    that were given override it. Raises ``JobError`` naming the option."""
    values = dict(given)
    for name in _LISTS:
        if name in values:
            values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
    source = values.get("source")
    try:
        if source is not None and source.endswith(".toml"):
            values.pop("source")
            path = Path(source)
            if not path.is_file():
                raise JobError(f"there is no job file {source}")
            base = ExtractionJob.from_toml(path).model_dump(exclude_unset=True)
            if "sql" in values:
                base.pop("source", None)
            values = {**base, **values}
        return ExtractionJob.model_validate(values)
    except ValidationError as error:
        from extractors.api import explain

        raise JobError(_as_options(explain(error))) from error
    except (OSError, ValueError) as error:
        raise JobError(f"{source}: {error}") from error


def settings_for(job: ExtractionJob) -> Settings:
    """The environment's settings; with a block's key where the job names one, which starts Prefect's client."""
    from extractors.endpoint import Settings

    if job.credentials is None:
        return Settings.from_environment()
    environment.prepare()
    from flows.blocks import settings_with

    return settings_with(job.credentials)


def _as_options(message: str) -> str:
    for name, field in ExtractionJob.model_fields.items():
        option = _REPEATED.get(name, f"--{field.alias or name}").removeprefix("--").replace("_", "-")
        if message.startswith(f"{field.alias or name}: Field required"):
            return message.replace(f"{field.alias or name}: Field required", f"--{option} is required", 1)
        message = (
            message.replace(f"{field.alias or name}: ", f"--{option}: ", 1)
            if message.startswith(f"{field.alias or name}: ")
            else message
        )
    return message


def _cli_type(name: str, field: FieldInfo) -> Any:
    """The type that typer parses: texts for lists and money, which the job model reads itself."""
    if name in _LISTS:
        return str | None
    if name in _REPEATED:
        return list[str] | None
    kind = field.annotation
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
    if kind is Decimal or typing.get_origin(kind) is Literal:
        return str | None
    return kind | None  # type: ignore[operator]


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    kind = field.annotation
    if typing.get_origin(kind) is Literal:
        text += f" One of {', '.join(map(str, typing.get_args(kind)))}."
    if not field.is_required() and field.default not in (None, "", ()):
        text += f" [default: {field.default}]"
    return text
