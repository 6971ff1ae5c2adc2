"""Settings that Prefect reads from the environment when it is imported; set before, never over the user's."""

from __future__ import annotations

import os

DEFAULTS = {
    # Prefect's own server takes 15 to 30 s to start on a small machine and gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "extractors",
    # A line from a thread that belongs to no flow run goes to the console only.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def prepare() -> None:
    """Give Prefect its defaults, in this process and in those that it starts."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if os.environ.get("QUARRY_LOG_FORMAT", "").strip().lower() == "json":
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
