"""How a command ends that could not do its work: its exit code, and what it prints for machines."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest

from extractors.errors import ApprovalNeeded, KeyRejected, OutputBusy, QuarryError
from flows.cli import app


def ended(error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setattr(sys, "argv", ["quarry", "run", *arguments])
    with pytest.raises(SystemExit) as ending:
        app.main()
    return ending.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [(OutputBusy("held"), 3), (KeyRejected("no"), 4), (ApprovalNeeded("dear"), 6), (RuntimeError("oh"), 70)],
)
def test_an_error_is_an_exit_code_and_with_json_an_object(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(error, monkeypatch, "--json") == code
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["exit_code"] == code
    assert told["kind"] == (error.kind if isinstance(error, QuarryError) else "internal")
    assert str(error) in told["message"]


def test_without_json_an_error_leaves_standard_output_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(OutputBusy("held"), monkeypatch) == 3
    assert ended(KeyboardInterrupt(), monkeypatch, "--json") == 130
    assert capsys.readouterr().out == ""


def test_the_version_is_that_of_the_installed_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quarry", "--version"])
    with pytest.raises(SystemExit) as ending:
        app.main()
    assert (ending.value.code, capsys.readouterr().out) == (0, f"quarry {version('quarry')}\n")
