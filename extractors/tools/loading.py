"""From what a user writes after ``--tool`` to look-ups.

==================================================  =========================================================
``module:function``, ``file.py:function``            a typed Python function, sync or async
``name=module:function``                             the same under another name
``name=duckdb:FILE:select ... where x = $x``         a read-only query of a DuckDB file
``name(x: int)=duckdb:FILE:select ...``              the same, with the types of its parameters
==================================================  =========================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from extractors.errors import JobError
from extractors.tools.functions import tool_of
from extractors.tools.toolbox import Tool, Toolbox
from schemas.arrow_types import SchemaMappingError
from schemas.loading import load_object

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMED = re.compile(r"\s*(?P<name>[A-Za-z0-9_-]+)\s*(?:\((?P<declared>[^()]*)\))?\s*=\s*(?P<rest>.+)", re.DOTALL)
_QUERY = re.compile(r"duckdb:(?P<file>(?:[A-Za-z]:[\\/])?[^:\n]+):(?P<sql>.+)", re.DOTALL)
_REFUSED = "search"
"""The service refuses a function of this name."""


def load_tools(specs: Sequence[str], *, timeout: float, most_steps: int) -> Toolbox | None:
    """The job's look-ups; None where it has none. Raises ``JobError`` for one that cannot be loaded."""
    tools: dict[str, Tool] = {}
    for spec in specs:
        tool = _load(spec.strip(), timeout)
        if tool.spec.name in tools:
            raise JobError(
                f"two look-ups are called {tool.spec.name}; name one of them: --tool other_name={tool.source}"
            )
        tools[tool.spec.name] = tool
    return Toolbox(tools, timeout, most_steps) if tools else None


def _load(spec: str, timeout: float) -> Tool:
    named = _NAMED.fullmatch(spec)
    rest = named["rest"].strip() if named else spec
    declared = (named["declared"] or "") if named else ""
    if query := _QUERY.fullmatch(rest):
        if named is None:
            raise JobError(f"--tool {spec}: a query needs a name: --tool find_vendor=duckdb:FILE:select ...")
        from extractors.tools.database import tool_of_query

        name = _checked(named["name"], spec)
        return tool_of_query(
            name, Path(query["file"]), query["sql"].strip(), declared=declared, source=rest, timeout=timeout
        )
    if declared:
        raise JobError(f"--tool {spec}: a function's parameters are those of its own hints; leave ({declared}) out")
    try:
        found = load_object(rest)
    except SchemaMappingError as error:
        raise JobError(f"--tool {error}") from error
    if not callable(found) or isinstance(found, type):
        raise JobError(f"--tool {rest}: this is a {type(found).__name__}, not a function")
    own = getattr(found, "__name__", rest.rpartition(":")[2])
    return tool_of(found, name=_checked(named["name"] if named else own, spec), source=rest)


def _checked(name: str, spec: str) -> str:
    if name == _REFUSED:
        raise JobError(
            f"--tool {spec}: Qwen's service refuses a function called {name}; give it another name: NAME=..."
        )
    if not _NAME.fullmatch(name):
        raise JobError(f"--tool {spec}: a name is of letters, digits, _ and -, 64 at most; give it one: NAME=...")
    return name
