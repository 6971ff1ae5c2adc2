"""Look-ups that the tests give to jobs by their import paths."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

VENDORS = {"acme gmbh": "V-0017", "globex": "V-0042"}


def find_vendor(name: str) -> dict[str, str] | None:
    """Finds a vendor's number.

    Args:
        name: The vendor's name as the record prints it.
    """
    found = VENDORS.get(name.casefold())
    return None if found is None else {"vendor_id": found, "name": name}


async def find_slowly(name: str, limit: Annotated[int, Field(ge=1)] = 3, kind: Literal["any", "exact"] = "any") -> Any:
    """Finds a vendor's number, asynchronously."""
    await asyncio.sleep(0.01)
    return find_vendor(name)


def counted(name: str) -> dict[str, str] | None:
    """Finds a vendor's number, and keeps a line of each time that it was called."""
    with Path(os.environ["COUNTED"]).open("a") as file:
        file.write(f"{name}\n")
    time.sleep(0.02)
    return {"vendor_id": f"V-{name}"}


def sleeps(name: str) -> str:
    """Takes too long."""
    time.sleep(1.0)
    return name


async def sleeps_async(name: str) -> str:
    """Takes too long."""
    await asyncio.sleep(30)
    return name


def breaks(name: str) -> str:
    """Raises."""
    raise KeyError(name)


def leaves(name: str) -> str:
    """Calls exit()."""
    raise SystemExit(name)


def naps(seconds: float) -> None:
    """Takes its time."""
    time.sleep(seconds)


def runs_dry(name: str) -> str:
    """Looks for the first of none."""
    return next(iter(()))


async def is_cancelled(name: str) -> str:
    """Waits for what was cancelled."""
    waited = asyncio.get_running_loop().create_future()
    waited.cancel()
    await waited
    return name


def very_long_number(name: str) -> int:
    """Gives more digits than Python reads by default."""
    return int("7" * 4000) ** 2


def of_a_number(value: float) -> float:
    """Gives its argument."""
    return value


def no_json(name: str) -> object:
    """Gives what is no JSON."""
    return object()


def too_long(name: str) -> str:
    """Gives too much."""
    return name * 50_000


def search(name: str) -> str:
    """Has a name that the service refuses."""
    return name


def untyped(name) -> str:  # type: ignore[no-untyped-def]
    """Has a parameter without a type."""
    return str(name)


def anything(**more: str) -> str:
    """Takes what it is given."""
    return str(more)


LIMIT = 3
