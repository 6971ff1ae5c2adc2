"""The engine's lines in Prefect's logs: inside of a run, and only there."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_line_logged_after_a_flow_and_outside_of_any_is_no_ones_trouble() -> None:
    """Prefect was imported before its settings named our logger, as in a notebook: its handler would warn of each."""
    program = (
        "import logging, prefect\n"
        "from flows.run_logs import show_ids\n"
        "show_ids()\n"
        "show_ids()\n"
        "ours = logging.getLogger('extractors')\n"
        "logging.getLogger('extractors.engine').info('run begins')\n"
        "print(len(ours.handlers), [len(one.filters) for one in ours.handlers])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1 [2]"), done.stderr
