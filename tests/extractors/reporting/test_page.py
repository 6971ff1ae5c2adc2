"""The report as a person has it: opened from disk in Chromium, with nothing else to be reached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from extractors.reporting import write_report
from tests.extractors.reporting.orders import SOURCES, run_orders, usual_orders, write_orders

Visit = Callable[..., Page]
MANY = 130


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orders")
    return write_report(usual_orders(folder), folder / "page.html").path


@pytest.fixture(scope="module")
def long_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    texts = {f"r{number:03}": f"Customer {number} orders; colour {number % 7}." for number in range(MANY)}
    answers = {text: {"customer": f"Customer {number}"} for number, text in enumerate(texts.values())}
    run_orders(write_orders(folder / "a.jsonl", texts), folder / "out", answers, chunk_size=50)
    return write_report(folder / "out", folder / "page.html").path


def ids(page: Page) -> list[str]:
    """The records in the list."""
    return page.locator("#list .name").all_text_contents()


def settled(page: Page, act: Callable[[], Any]) -> None:
    """Do something and wait for the list that answers it."""
    before = page.evaluate("document.body.dataset.applied")
    act()
    page.wait_for_function("before => document.body.dataset.applied !== before", arg=before)


def choose(page: Page, control: str, value: str) -> None:
    settled(page, lambda: page.select_option(f"#by-{control}", value))


def search(page: Page, words: str) -> None:
    settled(page, lambda: page.fill("#by-q", words))


def opened(page: Page, record: str) -> None:
    """Open a record of the list."""
    place = ids(page).index(record)
    page.locator("#list a").nth(place).click()
    page.wait_for_function("id => document.querySelector('#record h3 bdi')?.textContent === id", arg=record)


def test_it_opens_from_disk_with_its_counts_and_first_record(visit: Visit, report: Path) -> None:
    page = visit(report)
    assert page.inner_text("#status") == "9 of 9 records: 6 rows, 3 failures"
    assert len(ids(page)) == 9
    assert page.inner_text("#record h3") == "astral"


def test_evidence_is_highlighted_where_it_stands_beyond_the_basic_plane_too(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "astral")
    assert page.text_content("#record .source") == SOURCES["astral"][0]
    marked = page.locator("#record mark").all_text_contents()
    assert marked == ["Zoë 𝒜𝒷", "lamp", "💡", "7.25", "e\u0301clair"]


def test_values_inside_each_other_are_both_marked(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "overlap")
    titles = {mark.text_content(): mark.get_attribute("title") for mark in page.locator("#record mark").all()}
    assert titles["Torvalds"] == "the/note, customer"
    assert page.text_content("#record .source") == SOURCES["overlap"][0]


def test_a_value_leads_to_its_place_and_the_place_to_its_value(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "plain")
    page.click("#record tr:has(bdi:text-is('placed')) button.evidence")
    assert page.locator("#record mark.pointed").all_text_contents() == ["3 May 2026"]
    page.click("#record mark:text-is('kettles')")
    assert page.evaluate("document.activeElement.textContent") == "exact"


def test_what_was_invented_is_marked_as_not_found_and_a_choice_is_not(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "invented")
    badges = {
        field: page.locator(f"#record .values tr:has(bdi:text-is('{field}')) .evidence").first.text_content()
        for field in ("total", "tags", "customer", "channel")
    }
    assert badges == {"total": "not found", "tags": "not found", "customer": "exact", "channel": "chosen"}


def test_a_failure_shows_its_raw_answers_and_errors(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "spoilt")
    shown = page.inner_text("#record")
    assert '{"customer": 17, "total": "a lot"' in shown
    assert "lines › 0 › quantity" in shown
    assert "the same error came back after a correction" in shown


def test_calls_are_priced(visit: Visit, report: Path) -> None:
    page = visit(report)
    opened(page, "mended")
    costs = page.locator("#record section[aria-label=Calls] tbody tr td:nth-child(8)").all_text_contents()
    assert len(costs) == 2
    total = sum(float(cost.removesuffix(" USD")) for cost in costs)
    assert f"{total:.7f}".rstrip("0") + " USD" in page.inner_text("#record .chips")


def test_search_finds_ids_values_texts_messages_and_kept_columns(visit: Visit, report: Path) -> None:
    page = visit(report)
    for words, found in {
        "lovelace": ["plain", "twin"],
        "SPOILT": ["spoilt"],
        "grace mirror": ["invented"],
        '"one mirror"': ["invented"],
        "💡": ["astral"],
        "declined": ["prose"],
        "p. overlap": ["overlap"],
        '"mirror one"': [],
    }.items():
        search(page, words)
        assert ids(page) == found, words
    assert "No record fits" in page.inner_text("#status")


def test_filters_narrow_the_list(visit: Visit, report: Path) -> None:
    page = visit(report)
    choose(page, "show", "failures")
    assert ids(page) == ["blank", "prose", "spoilt"]
    choose(page, "reason", "invalid")
    assert ids(page) == ["spoilt"]
    settled(page, lambda: page.click("#filters button[type=reset]"))
    choose(page, "show", "low")
    assert ids(page) == ["invented", "plain", "twin"]
    settled(page, lambda: page.click("#filters button[type=reset]"))
    page.select_option("#by-empty", label="total")
    page.wait_for_function("document.querySelectorAll('#list li').length === 2")
    assert ids(page) == ["mended", "overlap"]
    settled(page, lambda: page.click("#filters button[type=reset]"))
    page.select_option("#by-missing", label="tags")
    page.wait_for_function("document.querySelectorAll('#list li').length === 1")
    assert ids(page) == ["invented"]


def test_the_order_can_be_by_cost(visit: Visit, report: Path) -> None:
    page = visit(report)
    choose(page, "order", "cost")
    assert ids(page)[0] == "mended" or ids(page)[0] == "spoilt"
    assert set(ids(page)[-2:]) == {"blank", "twin"}, "what cost nothing comes last"


def test_links_of_the_written_part_open_the_records_that_they_count(visit: Visit, report: Path) -> None:
    page = visit(report)
    settled(page, lambda: page.click("#failures .examples a:has-text('spoilt')"))
    page.wait_for_function("document.querySelector('#record h3 bdi')?.textContent === 'spoilt'")
    assert ids(page) == ["spoilt"]
    settled(page, lambda: page.click("#fields article:has(h3:has-text('total')) a:text-is('2 empty')"))
    assert ids(page) == ["mended", "overlap"]


def test_a_bookmark_brings_back_the_search_and_the_record(visit: Visit, report: Path) -> None:
    page = visit(report)
    search(page, "lovelace")
    opened(page, "twin")
    page.wait_for_function("location.hash.includes('record=twin')")
    again = visit(report, page.evaluate("location.hash"))
    assert ids(again) == ["plain", "twin"]
    again.wait_for_function("document.querySelector('#record h3 bdi')?.textContent === 'twin'")
    assert again.input_value("#by-q") == "lovelace"


def test_pages_of_many_records(visit: Visit, long_report: Path) -> None:
    page = visit(long_report)
    assert (len(ids(page)), ids(page)[0]) == (50, "r000")
    page.click("#later")
    page.click("#later")
    assert ids(page) == [f"r{number:03}" for number in range(100, MANY)]
    assert page.locator("#later").is_disabled()
    page.fill("#page", "2")
    page.press("#page", "Enter")
    assert ids(page)[0] == "r050"
    search(page, '"colour 3"')
    assert (page.input_value("#page"), ids(page)[0]) == ("1", "r003")


def test_the_keyboard_is_enough(visit: Visit, long_report: Path) -> None:
    page = visit(long_report)

    def shown(record: str) -> None:
        page.wait_for_function("id => document.querySelector('#record h3 bdi')?.textContent === id", arg=record)

    page.keyboard.press("j")
    shown("r001")
    page.keyboard.press("k")
    shown("r000")
    page.keyboard.press("]")
    assert ids(page)[0] == "r050"
    page.keyboard.press("j")
    shown("r001")
    page.keyboard.press("/")
    settled(page, lambda: page.keyboard.type("jk129"))
    assert page.input_value("#by-q") == "jk129", "a letter in the search box is a letter"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_every_control_has_a_label_and_every_plot_words(visit: Visit, report: Path) -> None:
    page = visit(report)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, svg[role=img], [role=region]')]
             .filter((one) => !(one.labels?.[0]?.textContent || one.getAttribute('aria-label') || one.textContent).trim())
             .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(visit: Visit, report: Path, dark: bool) -> None:
    page = visit(report, "#show=all&record=spoilt", dark=dark)
    page.wait_for_selector("#record .error")
    too_faint: list[str] = page.evaluate(_CONTRAST)
    opened(page, "plain")
    too_faint += page.evaluate(_CONTRAST)
    assert too_faint == []


@pytest.mark.parametrize("width", [360, 800])
def test_a_narrow_window_never_scrolls_sideways(visit: Visit, report: Path, width: int) -> None:
    page = visit(report, "#show=all&record=plain", width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_on_paper_the_controls_are_gone_and_the_open_record_stays(visit: Visit, report: Path) -> None:
    page = visit(report, "#show=all&record=plain")
    page.emulate_media(media="print")
    assert not page.is_visible("#filters") and not page.is_visible("nav") and not page.is_visible("#list")
    assert page.is_visible("#record mark") and page.is_visible("#costs svg.plot")


def test_without_the_source_the_quotes_are_shown_and_why(visit: Visit, tmp_path: Path) -> None:
    out = usual_orders(tmp_path)
    page = visit(write_report(out, texts=False).path)
    opened(page, "plain")
    assert page.locator("#record mark").count() == 0
    assert "3 May 2026" in page.locator("#record q").all_text_contents()
    assert "--no-text" in page.inner_text("#record .notice")


def test_a_record_without_kept_columns_has_no_word_of_them(visit: Visit, tmp_path: Path) -> None:
    text = "Ada orders."
    run_orders(write_orders(tmp_path / "a.jsonl", {"a": text}), tmp_path / "out", {text: {"customer": "Ada"}}, keep=[])
    page = visit(write_report(tmp_path / "out").path)
    sections = page.evaluate(
        "[...document.getElementById('record').childNodes].map((one) => one.ariaLabel ?? one.nodeName)"
    )
    assert sections == ["HEADER", "Values", "Source", "Calls", "P"]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "'-alert(4)-'",
    "javascript:alert(5)",
    "<!--<script>alert(6)",
    "]]><iframe src=//example.com>",
    "${alert(7)}{{alert(8)}}",
    "<style>*{display:none}</style>",
    "<base href=//example.com>",
    "&lt;b&gt; &amp;amp; &#60;script&#62;",
    "__proto__",
    "constructor",
    "\u2028\u2029\u202etxt.exe\u202c\u0000\u001b[31m",
    "<meta http-equiv=refresh content=0;url=//example.com>",
    "a#&=%26%3D+b?c",
]
NAUGHTY = Path(__file__).parents[4] / "shared" / "data" / "naughty_strings" / "records.jsonl"


def test_hostile_ids_values_messages_and_texts_are_only_ever_text(visit: Visit, tmp_path: Path) -> None:
    texts = {f"{one}": f"Order by {one} today" for one in HOSTILE}
    answers: dict[str, Any] = {
        text: {"customer": one, "tags": [one], "the/note": one}
        for one, text in zip(HOSTILE, texts.values(), strict=True)
    }
    texts |= {f"fails {one}": f"Fails: {one}" for one in HOSTILE}
    replies = {one: json.dumps({"customer": [one], one: one}, ensure_ascii=False) for one in HOSTILE}
    answers |= {f"Fails: {one}": reply for one, reply in replies.items()}
    out = tmp_path / "<b>out & 'co'</b>"
    run_orders(write_orders(tmp_path / "a.jsonl", texts), out, answers)
    page = visit(write_report(out, tmp_path / "page.html").path)
    assert page.inner_text("#status").startswith("32 of 32 records: 16 rows, 16 failures")
    for one in HOSTILE:
        shown = signs(one)
        opened(page, shown)
        assert page.text_content("#record .source") == f"Order by {shown} today"
        assert page.locator("#record .values td bdi").first.text_content() == shown
        opened(page, f"fails {shown}")
        assert page.locator("#record .reply pre").first.text_content() == signs(replies[one])
    assert page.locator("#record iframe, #record img, #list img, main iframe, main base, main style").count() == 0


def test_a_link_to_a_record_survives_any_id(visit: Visit, tmp_path: Path) -> None:
    names = [*HOSTILE, "a b", "ü/ß?x=1#y"]
    texts = {one: f"Nothing {place}" for place, one in enumerate(names)}
    run_orders(write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", {})
    page = visit(write_report(tmp_path / "out").path)
    links: dict[str, str] = dict(
        page.evaluate(
            "[...document.querySelectorAll('#list a')].map((a) => [a.querySelector('.name').textContent, a.getAttribute('href')])"
        )
    )
    for one in names:
        page.evaluate("link => { location.hash = link; }", links[signs(one)])
        page.wait_for_function("id => document.querySelector('#record h3 bdi')?.textContent === id", arg=signs(one))


@pytest.mark.skipif(not NAUGHTY.is_file(), reason="the naughty strings are not beside this checkout")
@pytest.mark.slow
def test_the_list_of_naughty_strings_is_shown_as_it_is(visit: Visit, tmp_path: Path) -> None:
    naughty = [json.loads(line) for line in NAUGHTY.read_text().split("\n") if line]
    usable = {one["id"]: f"Order: {one['text']}" for one in naughty}
    answers: dict[str, Any] = {
        f"Order: {one['text']}": json.dumps({"customer": one["text"], "the/note": one["category"]}) for one in naughty
    }
    run_orders(write_orders(tmp_path / "a.jsonl", usable), tmp_path / "out", answers, chunk_size=200, concurrency=32)
    page = visit(write_report(tmp_path / "out").path)
    shown: dict[str, str] = page.evaluate(
        """async () => {
            const shown = {};
            for (;;) {
              for (const link of document.querySelectorAll('#list a')) {
                link.click();
                while (document.body.dataset.open !== link.dataset.at) await new Promise((go) => setTimeout(go, 0));
                shown[document.querySelector('#record h3 bdi').textContent] = document.querySelector('#record .source').textContent;
              }
              if (document.getElementById('later').disabled) return shown;
              document.getElementById('later').click();
            }
        }"""
    )
    assert len(shown) == len(naughty)
    wrong = [one["id"] for one in naughty if shown[one["id"]] != signs(usable[one["id"]])]
    assert wrong == []


def test_a_script_that_got_in_would_not_run(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    refused = page.evaluate(
        """() => { const made = document.createElement('script');
                  try { made.textContent = 'window.ran = true'; document.body.append(made); } catch (error) { return error.name; }
                  return window.ran ? 'ran' : 'blocked'; }"""
    )
    page.close()
    assert refused in ("TypeError", "blocked")


@pytest.mark.slow
def test_ten_thousand_records_are_searched_without_a_stall(visit: Visit, tmp_path: Path) -> None:
    texts = {
        f"r{number:05}": f"Customer {number} orders item {number % 97}. " + "More words. " * 40
        for number in range(10_000)
    }
    answers = {text: {"customer": f"Customer {number}"} for number, text in enumerate(texts.values())}
    run_orders(write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", answers, chunk_size=500, concurrency=64)
    page = visit(write_report(tmp_path / "out").path)
    assert float(page.evaluate("document.body.dataset.ready")) < 5_000
    search(page, '"item 96."')
    search(page, '"customer 4321 "')
    assert ids(page) == ["r04321"]
    assert float(page.evaluate("document.body.dataset.took")) < 1_000


def signs(text: str) -> str:
    """The text as the page shows it: control characters as their signs."""
    return re.sub(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
        lambda one: "\u2421" if one[0] == "\x7f" else chr(0x2400 + ord(one[0])),
        text,
    )


_CONTRAST = """() => {
  const rgb = (colour) => { const found = colour.match(/[\\d.]+/g).map(Number); return found.length === 4 ? found : [...found, 1]; };
  const light = (colour) => { const [r, g, b] = colour.map((one) => { one /= 255; return one <= .03928 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (one) => { for (; one; one = one.parentElement) { const found = rgb(getComputedStyle(one).backgroundColor); if (found[3] === 1) return found; } return [255, 255, 255, 1]; };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !one.checkVisibility() || one.closest('script, style, svg, option, :disabled, .unseen, .skip')) continue;
    const [above, below] = [light(rgb(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
    const ratio = (above + .05) / (below + .05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${one.tagName}.${one.className} ${walker.currentNode.textContent.slice(0, 30)}`);
  }
  return [...new Set(faint)];
}"""
