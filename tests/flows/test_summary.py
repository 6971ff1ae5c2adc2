"""The words of the artifacts: what they tell, that they stay small, and that a record's text is only ever shown."""

from __future__ import annotations

import html.parser
from decimal import Decimal
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from extractors.endpoint import Settings
from extractors.engine import ChunkDone
from extractors.pipeline import Silent, run
from extractors.report import Progress, RunReport
from flows.escaping import escaped
from flows.summary import failures_markdown, fields_markdown, running_markdown, summary_markdown
from flows.tally import Example, Tally
from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://example.com/spy.png)",
    "# not a heading",
    "| a | b |",
    "**bold** _it_ `code` ~~gone~~",
    "https://example.com www.example.com me@example.com",
    "&lt;b&gt; &amp;",
    "line\n\n- item\n\n```\nfence",
    "\\[x\\] $x$ {{ y }}",
    "\u202eright to left",
    "<!-- -->",
]


class Shown(html.parser.HTMLParser):
    """The tags of a page and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(markdown: str) -> Shown:
    shown = Shown()
    shown.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))
    return shown


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_shown_as_it_is_and_makes_nothing(text: str) -> None:
    shown = rendered(f"| a |\n|---|\n| {escaped(text)} |")
    assert set(shown.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert " ".join(text.replace("\u202e", "U+202E").split()) in shown.text


def test_a_long_text_is_cut() -> None:
    assert rendered(escaped("x" * 1_000, 50)).text.strip() == "x" * 49 + "…"


class Adder(Silent):
    def __init__(self) -> None:
        self.tally = Tally()

    def chunk_done(self, done: ChunkDone, progress: Progress) -> None:
        self.tally.add(done, Path(progress.folder))


def test_fields_and_failures_are_counted_from_the_chunks(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(45))

    def answer(body: dict[str, object]) -> str:
        if any(f"thing-000000{n} " in str(body) for n in range(5)):
            return "<b>no</b>"
        return '{"name":"thing-0000009","price":null}' if "thing-0000009" in str(body) else thing_answer(body)

    watch = Adder()
    with FakeQwen(answer) as qwen:
        report = run(job_for(source, tmp_path / "out", qwen, keep=("id",)), settings=Settings(), watch=watch)
    tally = watch.tally
    assert (tally.rows, tally.failures, tally.fields) == (report.rows, report.failures, {"name": 40, "price": 39})
    told = rendered(failures_markdown(tally, out="out")).text
    assert "not_json: 3 of 5" in told.replace("\n", "")
    assert "| price | 39 | 97.5% |" in fields_markdown(tally)
    assert tally.latency()[0] is not None


def test_the_summary_adds_up_and_names_the_report(tmp_path: Path) -> None:
    report = a_report()
    assert "10 = 4 + 3 + 2 + 1" in summary_markdown(report)
    assert "quarry report" in rendered(summary_markdown(report)).text
    file = tmp_path / "report.html"
    assert file.as_uri() in summary_markdown(report, report_file=file)
    assert "latency p50 0.50 s, p95 1.50 s; rate limits hit: 7" in summary_markdown(report)


def test_whatever_a_run_holds_the_artifacts_stay_small() -> None:
    tally = Tally(rows=10**6, failures=10**6)
    tally.fields = {f"field_{number}" * 50: number for number in range(5_000)}
    tally.reasons = {f"reason{number}": number for number in range(100)}
    tally.examples = {name: [Example("#" * 1_000, "<" * 1_000, "|" * 1_000)] * 3 for name in tally.reasons}
    for text in (failures_markdown(tally, out="o"), fields_markdown(tally), running_markdown(tally, Progress())):
        assert len(text.encode()) < 250_000


def a_report() -> RunReport:
    return RunReport(
        run_id="r", recipe="abcd1234", name="thing", out="/data/out", model="qwen-plus", engine="prefect",
        started_at="2026-01-01T00:00:00+00:00", records=10, rows=4, failures=3, skipped=2, merged=0, undone=1, calls=9,
        tries=11, input_tokens=900, cached_tokens=0, output_tokens=90, cost=Decimal("0.5"), currency="USD", seconds=3.0,
        failures_by_reason={"invalid": 3}, rate_limited=7, latency_p50=0.5, latency_p95=1.5,
    )  # fmt: skip
