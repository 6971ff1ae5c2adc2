"""The tutorial's commands, one after the other, with the embedded model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.examples import ROOT

COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.MULTILINE)


def test_the_tutorial_shows_every_step() -> None:
    assert [one.split()[1] for one in COMMANDS if one.startswith("quarry")] == [
        "plan", "run", "run", "show", "failures", "retry", "report", "run",
    ]  # fmt: skip


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorials_commands_do_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("QWEN_", "DASHSCOPE_"))},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    env.pop("QUARRY_HOME", None)
    said = []
    for command in COMMANDS:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said.append(done.stdout + done.stderr)
    first, again = said[1], said[2]
    assert "12 records" in first
    assert "0 calls" in again
    assert (tmp_path / "tutorial-out" / "report.html").is_file()
