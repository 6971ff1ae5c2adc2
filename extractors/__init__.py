"""How to extract: sources, the recipe, the pure core, talking to Qwen, the store, the main path.

``from extractors import extract`` is the door for notebooks and scripts, ``write_report`` makes an HTML page of an
output folder. They are imported on first use,
so that importing one light module of this package does not load everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extractors.api import Extraction, extract
    from extractors.reporting import write_report

__all__ = ["Extraction", "extract", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from extractors.reporting import write_report

        return write_report
    if name in __all__:
        from extractors import api

        return getattr(api, name)
    raise AttributeError(f"module 'extractors' has no attribute {name!r}")
