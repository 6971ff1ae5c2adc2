"""A real Chromium for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
_WATCH = "window.broken = []; addEventListener('securitypolicyviolation', (one) => window.broken.push(one.violatedDirective));"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the session: while it is open its event loop is in the way of asynchronous tests.
    if not CHROMIUM.is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}: `make browser` as root installs Debian's")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a report from disk. What a good page never does fails the test at its end: an error, a line in the
    console, a request, a breach of its own policy, a dialog."""
    seen: list[str] = []
    pages: list[Page] = []

    def go(file: Path, anchor: str = "", *, width: int = 1280, dark: bool = False) -> Page:
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        pages.append(page)
        address = file.as_uri()
        page.add_init_script(_WATCH)
        page.on("console", lambda told: seen.append(f"console: {told.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda one: None if one.url.startswith(address) else seen.append(f"request: {one.url}"))
        page.goto(address + anchor)
        page.wait_for_selector("body[data-ready]")
        return page

    yield go
    broken = [one for page in pages for one in page.evaluate("window.broken")]
    for page in pages:
        page.close()
    assert seen + broken == []
