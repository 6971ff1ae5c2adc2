"""What a job's look-ups are: names, descriptions, the schema of their arguments, and how each is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from extractors.qwen.requests import ToolSpec


@dataclass(frozen=True, slots=True)
class Tool:
    """One look-up. Either ``run`` (in a thread) or ``run_async`` is called with the arguments as ``arguments``
    validated them."""

    spec: ToolSpec
    arguments: type[BaseModel]
    run: Callable[[Mapping[str, Any]], Any] | None = None
    run_async: Callable[[Mapping[str, Any]], Awaitable[Any]] | None = None
    source: str = ""
    """What the job names: ``module:function`` or the database and its query."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The look-ups of a job, with their limits: ``timeout`` in seconds for one, ``most_steps`` look-ups for a record."""

    tools: Mapping[str, Tool]
    timeout: float
    most_steps: int

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of them, in the job's order."""
        return tuple(tool.spec for tool in self.tools.values())

    def as_dict(self) -> dict[str, Any]:
        """What the recipe keeps: what the model is told, not the code behind it."""
        return {
            "look_ups": [
                {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
                for spec in self.specs
            ],
        }
