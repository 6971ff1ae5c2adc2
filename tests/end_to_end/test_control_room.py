"""Server, deployments and worker as ``make ui`` starts them: forms, runs, cancelling, crashes, keys, what is new."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from extractors.store.catalog import current_rows, outputs
from flows.ui import running, surroundings
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer, thing_text
from tests.fakes.qwen import FakeQwen

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]
BROWSER = shutil.which("chromium")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Room:
    """The control room of the tests."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home
        self.env = surroundings(home, url)

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the server; again while it is too busy to write (503: its SQLite is locked), as Prefect's own client does."""
        for pause in (0.5, 1.0, 2.0, 4.0, 0.0):
            reply = httpx.request(method, f"{self.url}/api/{path}", json=body, timeout=30)
            if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(pause)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def deployment(self, name: str) -> str:
        found: str = self.api("GET", f"deployments/name/{name}")["id"]
        return found

    def start(self, name: str, parameters: Mapping[str, Any]) -> str:
        """A new flow run; its id."""
        made: str = self.api(
            "POST", f"deployments/{self.deployment(name)}/create_flow_run", {"parameters": dict(parameters)}
        )["id"]
        return made

    def run(self, flow_run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"flow_runs/{flow_run}")
        return found

    def ended(self, flow_run: str) -> dict[str, Any]:
        """The flow run when it has ended."""
        self.until(lambda: self.run(flow_run)["state"]["type"] in ENDED)
        return self.run(flow_run)

    def until(self, true: Callable[[], Any], seconds: float = 180.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (self.home / "quarry-ui.log").read_text()[-4000:]
            time.sleep(0.3)

    def process_of(self, out: Path) -> psutil.Process:
        """The process that runs the flow over an output, by its lock."""
        for process in psutil.process_iter():
            try:
                if any(Path(file.path) == out / ".lock" for file in process.open_files()):
                    return process
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue
        raise AssertionError(f"nobody holds {out}")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    home = tmp_path_factory.mktemp("prefect")
    clean = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("QWEN_", "DASHSCOPE_"))}
    port = _free()
    try:
        with running(home=home, port=port) as url:
            yield Room(url, home)
    finally:
        os.environ.update(clean)


def _free() -> int:
    from flows.ui import free_port

    return free_port(0)


def job(source: Path, out: Path, qwen: FakeQwen, **more: Any) -> dict[str, Any]:
    """The job as the form sends it: the source by its kind, the rest in its groups."""
    return {
        "source": {"kind": "files", "path": str(source)},
        "schema": "tests.end_to_end.things:Thing",
        "out": str(out),
        "id": "id",
        "model": "qwen-plus",
        "service": {"base_url": qwen.base_url},
        "advanced": {"chunk_size": 10},
        **more,
    }


def rows_of(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.glob("thing/*/*/*.parquet"))
        if "calls" not in p.parts
    }


@pytest.mark.slow
def test_a_deployment_gives_the_same_output_as_the_direct_engine(room: Room, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(25))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "direct", qwen)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("prefect")), "deployment", "run", "extract/extract", "--watch",
             "--param", f"job={json.dumps(job(source, tmp_path / 'deployed', qwen))}"],
            env=room.env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert qwen.count == 50
    assert rows_of(tmp_path / "deployed") == rows_of(tmp_path / "direct") != {}


def test_a_job_that_cannot_be_is_refused_naming_the_field(room: Room, tmp_path: Path) -> None:
    wrong = {"source": {"kind": "files", "path": "x"}, "schema": "name", "out": str(tmp_path / "o")}
    for more, named in (
        ({"limits": {"concurrency": 0}}, "concurrency"),
        ({"limits": {"concurency": 4}}, "concurency"),
        ({"lane": "fast"}, "lane"),
        ({"out": None}, "out"),
    ):
        reply = httpx.post(
            f"{room.url}/api/deployments/{room.deployment('extract/extract')}/create_flow_run",
            json={"parameters": {"job": {**wrong, **more}}}, timeout=30,
        )  # fmt: skip
        assert reply.status_code in (409, 422), more
        assert named in reply.text, reply.text


def test_cancelling_ends_within_seconds_commits_what_is_done_and_the_next_run_asks_the_rest(
    room: Room, tmp_path: Path
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    out = tmp_path / "out"
    with FakeQwen(thing_answer, latency=0.5) as qwen:
        parameters = {"job": job(source, out, qwen, limits={"concurrency": 2})}
        first = room.start("extract/extract", parameters)
        room.until(lambda: qwen.count >= 12)
        start = time.monotonic()
        room.api(
            "POST",
            f"flow_runs/{first}/set_state",
            {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False},
        )
        assert room.ended(first)["state"]["type"] == "CANCELLED"
        took = time.monotonic() - start
        assert took < 30, took
        committed = current_rows(out).num_rows
        asked = qwen.count
        assert 10 <= committed <= asked < 60
        qwen.latency = 0.0
        assert room.ended(room.start("extract/extract", parameters))["state"]["name"] == "Completed"
        assert qwen.count <= 60 + 2, "at most what was in flight is asked again"
    assert (outputs(out)[0].rows, outputs(out)[0].failures) == (60, 0)


@pytest.mark.slow
def test_a_killed_flow_run_is_started_again_and_only_the_rest_is_asked(room: Room, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    out = tmp_path / "out"
    with FakeQwen(thing_answer, latency=0.3) as qwen:
        parameters = {"job": job(source, out, qwen, limits={"concurrency": 2})}
        first = room.start("extract/extract", parameters)
        room.until(lambda: qwen.count >= 15)
        room.process_of(out).send_signal(signal.SIGKILL)
        assert room.ended(first)["state"]["type"] == "CRASHED"
        qwen.latency = 0.0
        assert room.ended(room.start("extract/extract", parameters))["state"]["name"] == "Completed"
        assert qwen.count <= 60 + 2
    assert (outputs(out)[0].rows, outputs(out)[0].failures) == (60, 0)


def test_a_key_comes_from_a_block_and_is_nowhere_else(room: Room, tmp_path: Path) -> None:
    key = "sk-marked-7f3a9c51d2"
    source = write_things(tmp_path / "things.jsonl", range(5))
    with FakeQwen(thing_answer) as qwen:
        made = subprocess.run(
            [sys.executable, "-m", "flows.blocks", "our-qwen"], capture_output=True, text=True, check=False,
            env={**room.env, "DASHSCOPE_API_KEY": key, "QWEN_BASE_URL_COMPAT": qwen.base_url},
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        asked = job(source, tmp_path / "out", qwen, service={"credentials": "our-qwen"})
        ended = room.ended(room.start("extract/extract", {"job": asked}))
        assert ended["state"]["name"] == "Completed"
        assert {one.headers["authorization"] for one in qwen.requests} == {f"Bearer {key}"}
    told = json.dumps([ended, room.api("POST", "artifacts/filter", {}), room.api("POST", "logs/filter", {})])
    assert key not in told
    for path in [*(tmp_path / "out").rglob("*"), *room.home.rglob("*")]:
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_block_that_is_not_there_is_told(room: Room, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(thing_answer) as qwen:
        asked = job(source, tmp_path / "out", qwen, service={"credentials": "nobody"})
        ended = room.ended(room.start("extract/extract", {"job": asked}))
    assert ended["state"]["type"] == "FAILED"
    assert "no Qwen credentials block 'nobody'" in ended["state"]["message"]


def test_an_active_schedule_has_its_next_runs_on_the_server(room: Room) -> None:
    deployment = room.deployment("extract/nightly-products")
    asked = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    assert room.api("POST", "flow_runs/filter", asked) == []
    [made] = room.api(
        "POST", f"deployments/{deployment}/schedules", [{"schedule": {"interval": 86_400}, "active": True}]
    )  # fmt: skip
    try:
        room.until(lambda: room.api("POST", "flow_runs/filter", asked))
    finally:
        room.api("DELETE", f"deployments/{deployment}/schedules/{made['id']}")


@pytest.mark.slow
def test_a_schedule_picks_up_what_is_new_and_changed_and_reports_what_is_gone(room: Room, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(thing_text(number))
    out = tmp_path / "out"
    with FakeQwen(thing_answer) as qwen:
        asked = {**job(folder / "*.txt", out, qwen), "id": None}
        deployment = room.deployment("extract/nightly-products")
        [schedule] = room.api("GET", f"deployments/{deployment}/schedules")
        assert schedule["active"] is False, "an example's schedule is off until somebody wants it"
        [made] = room.api(
            "POST", f"deployments/{deployment}/schedules",
            [{"schedule": {"interval": 20, "anchor_date": "2026-01-01T00:00:00Z"}, "active": True, "parameters": {"job": asked}}],
        )  # fmt: skip
        try:
            room.until(lambda: qwen.count == 4)
            (folder / "new.txt").write_text(thing_text(77))
            (folder / "0.txt").write_text(thing_text(100))
            (folder / "1.txt").unlink()
            room.until(lambda: qwen.count == 6)
            reports: list[dict[str, Any]] = []

            def seen() -> bool:
                reports[:] = [json.loads(one.read_text()) for one in sorted((out / "runs").glob("*.json"))]
                return any(one["removed"] == 1 for one in reports)

            room.until(seen)
        finally:
            room.api("DELETE", f"deployments/{deployment}/schedules/{made['id']}")
        assert qwen.count == 6
    assert sorted(current_rows(out).column("name").to_pylist()) == [
        f"thing-{number:07}" for number in (1, 2, 3, 77, 100)
    ], "what is gone from the folder stays in the table"


def submit(page: Any) -> None:
    """Send the form, again where the page takes no notice: on a busy machine it may not have taken in the last field."""
    from playwright.sync_api import TimeoutError as NothingHappened

    for _ in range(3):
        page.get_by_role("button", name="Submit").click()
        try:
            page.wait_for_url(lambda url: not url.endswith("/run"), timeout=20_000)
            return
        except NothingHappened:
            continue
    pytest.fail(f"the form stays: {page.inner_text('body')[-3000:]}")


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: `make browser` installs it")
def test_a_run_is_started_from_the_form_in_the_browser(room: Room, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    source = write_things(tmp_path / "things.jsonl", range(12))
    out = tmp_path / "out"
    with FakeQwen(thing_answer) as qwen, sync_playwright() as play:
        run_things(source, tmp_path / "direct", qwen, model="qwen-plus")
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 6000})
        page.set_default_timeout(60_000)
        page.goto(f"{room.url}/deployments/deployment/{room.deployment('extract/extract')}/run")

        def field(label: str) -> Any:
            return page.locator(
                f"xpath=//label[normalize-space()='{label}' or normalize-space()='{label} (Optional)']/following::textarea[1]"
            )

        field("Path").fill(str(source))
        page.locator(
            "xpath=//*[normalize-space()='What to extract']/following::button[normalize-space()='Another'][1]"
        ).click()
        page.locator("xpath=//*[normalize-space()='What to extract']/following::textarea[1]").fill(
            "tests.end_to_end.things:Thing"
        )
        field("Output folder").fill(str(out))
        field("Id column").fill("id")
        page.locator(
            "xpath=//*[starts-with(normalize-space(),'Model')]/following::button[normalize-space()='Another'][1]"
        ).click()
        page.locator("xpath=//*[normalize-space()='Model (Optional)']/following::textarea[1]").fill("qwen-plus")
        field("Base URL").fill(qwen.base_url)
        page.locator("xpath=//label[starts-with(normalize-space(),'Chunk Size')]/following::input[1]").fill("10")
        submit(page)
        room.until(lambda: (out / "runs").is_dir() and list((out / "runs").glob("*.json")))
        browser.close()
    assert rows_of(out) == rows_of(tmp_path / "direct") != {}


@pytest.mark.slow
def test_a_killed_workers_run_is_started_again_by_another_worker(room: Room, tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    out = tmp_path / "out"
    with FakeQwen(thing_answer, latency=0.3) as qwen:
        parameters = {"job": job(source, out, qwen, limits={"concurrency": 2})}
        room.start("extract/extract", parameters)
        room.until(lambda: qwen.count >= 15)
        [worker] = [
            one
            for one in psutil.Process().children(recursive=True)
            if one.is_running() and "worker start" in " ".join(one.cmdline())
        ]
        for process in (*worker.children(recursive=True), worker):
            process.send_signal(signal.SIGKILL)
        qwen.latency = 0.0
        fresh = subprocess.Popen(
            [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", "quarry", "--type", "process"],
            env=room.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            assert room.ended(room.start("extract/extract", parameters))["state"]["name"] == "Completed"
        finally:
            os.killpg(fresh.pid, signal.SIGKILL)
            fresh.wait(60)
        assert qwen.count <= 60 + 2
    assert (outputs(out)[0].rows, outputs(out)[0].failures) == (60, 0)
