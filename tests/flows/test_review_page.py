"""The review page: over HTTP what it refuses, and in a real browser what a person does with it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from extractors.review.queue import queues
from extractors.store.catalog import current_rows, open_failures, query
from flows.review.server import Options, ReviewServer
from tests.extractors.review.things import copied, waiting
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

BROWSER = shutil.which("chromium")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: `make browser` installs it")
WRITE = {"X-Quarry-Review": "1", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waiting(tmp_path_factory.mktemp("made")).parent


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


@contextmanager
def serving(out: Path, **options: Any) -> Iterator[str]:
    """The server in a thread of its own; its address."""
    server = ReviewServer(queues(out), Options(golden=out / "golden.jsonl", **options))
    ready: Future[str] = Future()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def main() -> None:
        await server.start()
        ready.set_result(server.address)
        await ended.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        yield ready.result(30)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def decision(address: str, record_id: str, **more: Any) -> dict[str, Any]:
    """What the page sends about a record that waits."""
    with httpx.Client() as http:
        [queue] = http.get(f"{address}api/start").json()["queues"]
        entries = http.get(f"{address}api/queue", params={"queue": queue["key"]}).json()["entries"]
    one = next(one for one in entries if one["record_id"] == record_id)
    return {"queue": queue["key"], **{k: one[k] for k in ("kind", "record_id", "occurrence", "sequence")}, **more}


def post(address: str, act: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(f"{address}api/{act}", content=orjson.dumps(body), headers=WRITE if headers is None else headers)


def test_without_the_token_there_is_nothing(out: Path) -> None:
    with serving(out) as address:
        root, token = address.rstrip("/").rsplit("/", 1)
        assert address.startswith("http://127.0.0.1:")
        assert len(token) >= 32
        # One token of 64 ends with an x itself.
        nearly = token[:-1] + ("y" if token.endswith("x") else "x")
        for path in ("/", "/api/start", f"/{nearly}/api/start", "/wrong/review.js"):
            assert httpx.get(root + path).status_code == 404
        assert httpx.get(address).status_code == 200


def test_another_name_for_this_machine_is_refused(out: Path) -> None:
    with serving(out) as address:
        assert httpx.get(address, headers={"Host": "evil.example:80"}).status_code == 404


def test_a_page_of_another_site_cannot_write(out: Path) -> None:
    with serving(out) as address:
        body = decision(address, "r00003", note="because")
        refused = [
            {"Content-Type": "application/json"},
            {"Content-Type": "text/plain", "X-Quarry-Review": "1"},
            {**WRITE, "Origin": "http://evil.example"},
            {**WRITE, "Sec-Fetch-Site": "cross-site"},
        ]
        assert [post(address, "ignore", body, headers).status_code for headers in refused] == [403] * 4
        preflight = httpx.options(f"{address}api/ignore", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in preflight.headers
        assert open_failures(out).num_rows == 2
        assert post(address, "ignore", body).status_code == 200
    assert open_failures(out).num_rows == 1


def test_the_page_may_load_nothing_from_elsewhere(out: Path) -> None:
    with serving(out) as address:
        policy = httpx.get(address).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_values_that_do_not_fit_come_back_with_their_fields(out: Path) -> None:
    with serving(out) as address:
        reply = post(address, "accept", decision(address, "r00003", value={"name": None}))
    assert reply.status_code == 422
    assert [one["path"] for one in reply.json()["problems"]] == ["name"]


def test_a_decision_that_came_too_late_is_told(out: Path) -> None:
    with serving(out) as address:
        body = decision(address, "r00003", value={"name": "thing-0000003", "price": "3.03"})
        assert post(address, "accept", body).status_code == 200
        late = post(address, "accept", body)
    assert (late.status_code, "reload the page" in late.json()["error"]) == (409, True)


def test_nonsense_is_refused_and_the_server_stays(out: Path) -> None:
    with serving(out) as address:
        for content in (b"", b"{", b"[]", b'{"queue": "x"}', orjson.dumps({"queue": 1, "kind": "x"})):
            reply = httpx.post(f"{address}api/accept", content=content, headers=WRITE)
            assert reply.status_code in (400, 404), content
        assert httpx.get(f"{address}api/start").status_code == 200


@contextmanager
def page_of(address: str, **options: Any) -> Iterator[Any]:
    """A page of a real browser, which must show no error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(**options)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("#list button")
        yield page
        browser.close()
    assert troubles == []


@needs_browser
def test_the_queue_is_worked_through_with_the_keyboard_alone(out: Path) -> None:
    with FakeQwen(thing_answer) as qwen, serving(out, base_url=qwen.base_url) as address, page_of(address) as page:
        page.wait_for_selector("#title:text-is('r00003')")
        assert "costs 3.03 euros" in page.inner_text("#source")
        page.keyboard.press("e")
        page.keyboard.type("thing-0000003")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#title:text-is('r00007')")
        page.keyboard.press("r")
        page.wait_for_selector("#title:text-is('r00005')")
        assert page.inner_text("#source mark") == "5.05"
        page.keyboard.press("g")
        page.wait_for_selector("#toast:has-text('added to')")
        page.keyboard.press("c")
        page.wait_for_selector("#nothing", state="visible")
    rows = {one["record_id"]: one for one in current_rows(out).to_pylist()}
    assert rows["r00003"]["_meta"]["model"] == "person"
    assert rows["r00007"]["name"] == "thing-0000007"
    assert open_failures(out).num_rows == 0
    actions = query(out, "select action from thing_reviews order by decided_at").column("action").to_pylist()
    assert actions == ["accepted", "retried", "promoted", "confirmed"]
    assert orjson.loads((out / "golden.jsonl").read_bytes())["id"] == "r00005"


@needs_browser
def test_a_failure_is_ignored_with_a_reason_in_the_page(out: Path) -> None:
    with serving(out) as address, page_of(address) as page:
        page.wait_for_selector("#title:text-is('r00003')")
        page.keyboard.press("i")
        page.keyboard.type("not one of ours")
        page.keyboard.press("Enter")
        page.wait_for_selector("#title:text-is('r00007')")
    assert open_failures(out).column("record_id").to_pylist() == ["r00007"]
    [kept] = query(out, "from thing_reviews").to_pylist()
    assert (kept["action"], kept["note"]) == ("ignored", "not one of ours")


@needs_browser
def test_a_field_of_low_confidence_says_so_in_the_page(out: Path, tmp_path: Path) -> None:
    from tests.end_to_end.things import run_things

    with FakeQwen(thing_answer) as qwen:
        run_things(tmp_path / "things.jsonl", out, qwen, keep=("id:sku",), review_below=0.95)
    with serving(out) as address, page_of(address) as page:
        page.wait_for_selector("#title:not(:empty)")
        for _ in range(9):
            if page.inner_text("#title") == "r00000":
                break
            before = page.inner_text("#title")
            page.keyboard.press("j")
            page.wait_for_selector(f"#title:not(:text-is('{before}'))")
        assert page.inner_text("#title") == "r00000"
        name = page.inner_text("[data-field=name].doubtful")
        assert "confidence 0.9: less than the run's --review-below" in name


@needs_browser
def test_script_in_the_data_is_text_on_the_page(tmp_path: Path) -> None:
    from tests.end_to_end.things import run_things

    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    source = tmp_path / "things.jsonl"
    source.write_bytes(orjson.dumps({"id": hostile, "text": f"thing-0000001 {hostile}"}) + b"\n")
    with FakeQwen(hostile) as qwen:
        run_things(source, tmp_path / "out", qwen)
    with serving(tmp_path / "out") as address, page_of(address) as page:
        page.wait_for_selector("#title:not(:empty)")
        page.keyboard.press("s")
        assert page.inner_text("#title") == hostile
        assert hostile in page.inner_text("#source")
        assert page.title() == "Quarry review"
        assert page.query_selector("#record img, #record script, #list img") is None
