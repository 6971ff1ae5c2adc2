"""``quarry doctor``: can this machine do the work, and if not, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from extractors.endpoint import DEFAULT_MODEL, Settings, settings_without_secrets
from extractors.errors import QuarryError
from flows.cli import terminal

_PACKAGES = ("duckdb", "pyarrow", "pydantic", "httpx", "xllamacpp", "instructor", "prefect", "fastapi")
_NEEDED_DISK = 2 * 1024**3
_NEEDED_MEMORY = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    state: Literal["ok", "warning", "error"]
    found: str


def examine(*, as_json: bool) -> bool:
    """Print every check; True when none is an error."""
    checks = [*_machine(), *_packages(), *_model(), *_address()]
    if as_json:
        terminal.say_json({check.name: {"state": check.state, "found": check.found} for check in checks})
    else:
        for check in checks:
            terminal.say(f"{check.state:>7}  {check.name}: {check.found}")
    return all(check.state != "error" for check in checks)


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    free = shutil.disk_usage(Path.cwd()).free
    memory = _memory()
    return [
        Check("python", "ok" if supported else "error", f"{platform.python_version()} (3.11 to 3.13 are supported)"),
        Check("cores", "ok", str(cores)),
        Check("disk", "ok" if free > _NEEDED_DISK else "warning", f"{free / 1024**3:.1f} GiB free here"),
        Check(
            "memory",
            "ok" if memory is None or memory > _NEEDED_MEMORY else "warning",
            "unknown" if memory is None else f"{memory / 1024**3:.1f} GiB; the embedded models need about 2",
        ),
    ]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _packages() -> list[Check]:
    return [Check(name, "ok", version(name)) for name in _PACKAGES]


def _model() -> list[Check]:
    from extractors.qwen.weights import KNOWN, find

    path = find(DEFAULT_MODEL)
    if path is not None:
        return [Check("embedded model", "ok", f"{DEFAULT_MODEL} at {path}")]
    size = KNOWN[DEFAULT_MODEL].bytes / 1024**2
    return [
        Check(
            "embedded model",
            "warning",
            f"{DEFAULT_MODEL} is not here yet: `quarry model pull {DEFAULT_MODEL}` fetches {size:,.0f} MiB",
        )
    ]


def _address() -> list[Check]:
    """The hosted side: what is set, and whether the address answers. The key itself is never shown."""
    import asyncio

    from extractors.connect import liveness
    from extractors.qwen.regions import PLAN_KEY, key_advice, region_of

    try:
        settings = Settings.from_environment()
    except QuarryError as error:
        return [Check("environment", "error", str(error))]
    shown = settings_without_secrets(settings)
    checks = [Check(name, "ok", str(value or "not set")) for name, value in shown.items()]
    try:
        address = settings.credentials.address()
    except QuarryError as error:
        return [*checks, Check("region", "error", str(error))]
    if address is None:
        return checks
    region = region_of(address)
    checks.append(Check("region", "ok", f"{region.place} ({region.id})" if region else "not the provider's own"))
    if settings.credentials.is_plan_key_at(address):
        checks.append(Check("key", "warning", key_advice(address, PLAN_KEY)))
    trouble = asyncio.run(liveness(address)())
    checks.append(Check("address", "ok" if trouble is None else "error", trouble or f"{address} answers"))
    return checks
