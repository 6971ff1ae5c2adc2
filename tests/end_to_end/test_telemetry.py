"""Telemetry of real processes: silent when not configured, never in the way of an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.collector import FakeCollector
from tests.fakes.qwen import FakeQwen, Reply

QUARRY = Path(sys.executable).with_name("quarry")
WATCHED = """
import sys
reached = set()
def hook(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        reached.add(tuple(arguments[1][:2]))
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.add(("name", str(arguments[0])))
sys.addaudithook(hook)
from pathlib import Path
from tests.end_to_end.things import run_things
report = run_things(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
loaded = sorted(name for name in sys.modules if name.split(".")[0] in ("opentelemetry",))
import json
print(json.dumps({"rows": report.rows, "reached": sorted(map(list, reached)), "loaded": loaded}))
"""


def clean(**more: str) -> dict[str, str]:
    """This environment without what configures telemetry, logs or the model."""
    left = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "QWEN_", "DASHSCOPE_", "QUARRY_LOG"))}
    return {**left, **more}


def watched(source: Path, out: Path, url: str, **more: str) -> dict[str, Any]:
    """A run in a process of its own, and every address that it connected to or looked up."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(source), str(out), url],
        capture_output=True, text=True, env=clean(**more), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_not_configured_it_reaches_the_model_and_nothing_else_and_loads_nothing(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        found = watched(source, tmp_path / "out", qwen.base_url)
        port = int(qwen.base_url.split(":")[2].split("/")[0])
    assert found == {"rows": 12, "reached": [["127.0.0.1", port]], "loaded": []}


def test_the_guard_of_that_test_sees_a_collector(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen, FakeCollector() as collector:
        found = watched(source, tmp_path / "out", qwen.base_url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        port = int(collector.url.split(":")[2])
    assert ["127.0.0.1", port] in found["reached"]
    assert "opentelemetry.sdk.trace" in found["loaded"]


def started(source: Path, out: Path, url: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--out", str(out), "--id", "id",
         "--model", "qwen-plus", "--base-url", url, "--chunk-size", "5", "--concurrency", "5", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean(**more),
    )  # fmt: skip


def wait_for(there: Any, process: subprocess.Popen[str], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("trouble", ["slow", "down"])
def test_ctrl_c_ends_within_seconds_whatever_the_collector_does(tmp_path: Path, trouble: str) -> None:
    source = write_things(tmp_path / "things.jsonl", range(400))
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.1)) as qwen, FakeCollector(delay=60) as collector:
        url = collector.url if trouble == "slow" else "http://127.0.0.1:9"
        process = started(source, tmp_path / "out", qwen.base_url, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        wait_for(lambda: qwen.count > 20, process)
        process.send_signal(signal.SIGINT)
        clock = time.monotonic()
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - clock
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["stopped"] == "interrupted"
    assert report["rows"] + report["undone"] == 400
    assert took < 20, f"{took:.1f} s after Ctrl-C"
    assert err.count("WARNING") == 1, err
    assert "could not be sent to 127.0.0.1:" in err


def test_a_killed_run_goes_on_and_its_metrics_file_still_says_running(tmp_path: Path) -> None:
    source, out = write_things(tmp_path / "things.jsonl", range(100)), tmp_path / "out"
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.1)) as qwen, FakeCollector(delay=60) as collector:
        process = started(source, out, qwen.base_url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        wait_for(lambda: any(out.glob("thing/*/commits/*.json")), process)
        process.send_signal(signal.SIGKILL)
        clock = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - clock < 5
        report = run_things(source, out, qwen, chunk_size=5)
    assert report.rows + report.skipped == 100
    old, new = sorted((out / "runs").glob("*.prom"), key=lambda path: path.stat().st_mtime)
    assert 'state="running"} 1.0' in old.read_text()
    assert 'state="completed"} 1.0' in new.read_text()


def test_log_format_json_makes_every_line_of_stderr_an_object(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(lambda body: "no" if "thing-0000003" in str(body) else thing_answer(body)) as qwen:
        done = subprocess.run(
            [str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--id", "id", "--json",
             "--out", str(tmp_path / "out"), "--model", "qwen-plus", "--base-url", qwen.base_url, "--log-format", "json"],
            capture_output=True, text=True, env=clean(), timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    run_id = json.loads(done.stdout)["run_id"]
    assert {line["run_id"] for line in lines} == {run_id}
    assert [line["record_id"] for line in lines if line["message"].startswith("a record failed")] == ["r00003"]


def test_an_error_is_an_object_too_and_a_wrong_format_is_refused(tmp_path: Path) -> None:
    def fails(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            [str(QUARRY), "run", "nowhere.csv", "--schema", "name", "--out", str(tmp_path / "o"), *arguments],
            capture_output=True, text=True, env=clean(**more), timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        return done.stderr

    told = json.loads(fails("--json", QUARRY_LOG_FORMAT="json").splitlines()[-1])
    assert (told["level"], told["kind"]) == ("ERROR", "source")
    assert "choose text or json" in fails("--log-format", "xml")
