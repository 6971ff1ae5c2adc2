"""Documents through the whole pipeline: records, pages and boxes, scanned pages, and a folder of hostile ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from extractors import extract
from extractors.errors import JobError, SourceError
from extractors.store.catalog import current_rows
from tests.fakes import hostile
from tests.fakes.qwen import FakeQwen

SCAN = hostile.one_page(hostile.stream(b"q 600 0 0 700 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x80 EI Q", packed=b""))


def price_in(body: dict[str, Any]) -> str:
    """What a model that finds the last price would say."""
    found = re.findall(r"\d+\.\d\d", str(body["messages"][-1]["content"]))
    return json.dumps({"price": found[-1] if found else "none"})


def run(source: Path, out: Path, answer: Any = price_in, **options: Any) -> Any:
    with FakeQwen(answer) as qwen:
        return extract(str(source), "price: str", out=out, **{"base_url": qwen.compat_url, "model": "m", **options})


def test_a_folder_of_documents_is_a_record_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(hostile.pdf("A kettle for 12.50 EUR.", pages=2))
    (folder / "b.docx").write_bytes(hostile.docx("A pan for 9.90."))
    (folder / "c.html").write_text("<title>Wok</title><p>It costs <b>30.00</b>")
    (folder / "d.md").write_text("# Lid\n\n5.00")
    (folder / "e.txt").write_text("Spoon 1.00")
    found = run(folder, tmp_path / "out", keep=["kind", "pages", "title"])
    assert [(one["record_id"], one["price"], one["kind"], one["pages"]) for one in found.rows().to_pylist()] == [
        ("a.pdf", "12.50", "pdf", 2),
        ("b.docx", "9.90", "docx", None),
        ("c.html", "30.00", "html", None),
        ("d.md", "5.00", "markdown", None),
        ("e.txt", "1.00", "text", None),
    ]
    assert found.rows().column("title").to_pylist() == [None, None, "Wok", None, None]
    again = run(folder, tmp_path / "out", keep=["kind", "pages", "title"])
    assert (again.report.skipped, again.report.calls) == (5, 0)


def test_evidence_of_a_pdf_has_page_and_box(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 72 700 Td (Kettle 12.50) Tj ET"
    (tmp_path / "b.pdf").write_bytes(hostile.one_page(hostile.stream(content, packed=b"")))
    found = run(tmp_path / "b.pdf", tmp_path / "out")
    [[evidence]] = [row["_evidence"] for row in found.rows().to_pylist()]
    assert (evidence["quote"], evidence["page"]) == ("12.50", 1)
    left, top, right, bottom = evidence["box"]
    assert 100 < left < right < 160
    assert 78 < top < bottom < 95


def test_a_box_is_that_of_the_words_also_behind_a_template_s(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 72 700 Td (Kettle 12.50) Tj ET"
    (tmp_path / "b.pdf").write_bytes(hostile.one_page(hostile.stream(content, packed=b"")))
    plain = run(tmp_path / "b.pdf", tmp_path / "plain").rows().to_pylist()[0]["_evidence"][0]
    found = run(tmp_path / "b.pdf", tmp_path / "out", text="{name}:\n{text}").rows().to_pylist()[0]["_evidence"][0]
    assert found["start"] == plain["start"] + len("b.pdf:\n")
    assert found["box"] == plain["box"] is not None


def test_a_file_that_changed_since_it_was_read_gives_no_boxes(tmp_path: Path) -> None:
    place = tmp_path / "b.pdf"
    place.write_bytes(hostile.pdf("Kettle 12.50"))

    def answer(body: dict[str, Any]) -> str:
        place.write_bytes(hostile.pdf("Other words, no price"))
        return price_in(body)

    [[evidence]] = [row["_evidence"] for row in run(place, tmp_path / "out", answer).rows().to_pylist()]
    assert (evidence["quote"], evidence["page"], evidence["box"]) == ("12.50", 1, None)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode there")
def test_a_pdf_s_name_need_not_be_text(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "s\udcffeite.pdf").write_bytes(hostile.pdf("Kettle 12.50"))
    (folder / "t\udcff.pdf").write_bytes(SCAN)
    options = {"scanned_pages": "pictures", "model": "qwen3-vl-plus"}
    found = run(folder, tmp_path / "out", '{"price": "12.50"}', **options).rows().to_pylist()
    assert [(row["record_id"], row["price"]) for row in found] == [
        ("s\ufffdeite.pdf", "12.50"),
        ("t\ufffd.pdf", "12.50"),
    ]
    assert found[0]["_evidence"][0]["box"] is not None


def test_the_same_text_in_two_pdfs_is_asked_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.pdf", "b.pdf"):
        (folder / name).write_bytes(hostile.pdf("A kettle for 12.50 EUR."))
    found = run(folder, tmp_path / "out")
    assert (found.report.rows, found.report.calls, found.report.merged) == (2, 1, 1)


def test_a_scanned_document_goes_to_the_ledger_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(SCAN)
    found = run(tmp_path / "scan.pdf", tmp_path / "out")
    [failure] = found.failures().to_pylist()
    assert failure["reason"] == "bad_input"
    assert failure["message"].startswith(
        "scan.pdf has no text: 1 of its 1 pages are pictures. Ask about them as pictures"
    )


def test_scanned_pages_are_shown_to_a_model_that_reads_pictures(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(SCAN)
    seen: list[int] = []

    def answer(asked: Any) -> str:
        seen.append(asked.images)
        return json.dumps({"price": "12.50"})

    found = run(tmp_path / "scan.pdf", tmp_path / "out", answer, model="qwen3-vl-plus", scanned_pages="pictures")
    assert found.report.rows == 1
    assert seen == [1]
    [[evidence]] = [row["_evidence"] for row in found.rows().to_pylist()]
    assert evidence["match"] == "image"


def test_scanned_pages_need_a_model_that_reads_pictures(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(SCAN)
    with pytest.raises(JobError, match="cannot see"):
        run(tmp_path / "scan.pdf", tmp_path / "out", model="qwen-plus", scanned_pages="pictures")


@pytest.mark.parametrize("source", ["x" * 300 + ".pdf", "A kettle for 12.50 EUR. " * 300])
def test_a_text_in_the_place_of_a_path_is_told_of(source: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        extract(source, "price: str", out=tmp_path / "out", base_url="http://127.0.0.1:9", model="m")


def test_documents_beside_tables_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(hostile.pdf())
    (folder / "b.csv").write_text("text\nx\n")
    with pytest.raises(SourceError, match="mixes kinds of files"):
        run(folder, tmp_path / "out")


def everything_has_its_reason(folder: Path, out: Path, count: int, *, seed: int) -> None:
    made = dict((path.name, name) for name, path in hostile.write(folder, count, seed=seed))
    found = run(folder, out, document_timeout=20, concurrency=8)
    report = found.report
    assert report.records == count == report.rows + report.failures
    assert report.undone == 0
    told = {one["record_id"]: one for one in found.failures().to_pylist()}
    rows = set(found.rows().column("record_id").to_pylist())
    assert told.keys() | rows == made.keys()
    assert not told.keys() & rows
    for record_id, failure in told.items():
        assert failure["reason"] in ("bad_input", "too_long"), (record_id, failure["message"])
        assert failure["message"], record_id
    refused = ("encrypted pdf", "noise named pdf", "packed docx", "laughs", "old word", "empty", "picture named pdf")
    assert [record_id for record_id, name in made.items() if name in refused and record_id not in told] == []
    readable = ("many pages", "utf-16 html", "pdf named html", "html named pdf")
    assert [record_id for record_id, name in made.items() if name in readable and record_id not in rows] == []


def test_hostile_documents_are_rows_or_in_the_ledger_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    everything_has_its_reason(folder, tmp_path / "out", len(hostile.MAKERS), seed=1)


@pytest.mark.slow
def test_two_hundred_hostile_documents(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    everything_has_its_reason(folder, tmp_path / "out", 200, seed=2)


def test_a_retry_reads_the_document_again(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 72 700 Td (Kettle 12.50) Tj ET"
    (tmp_path / "a.pdf").write_bytes(hostile.one_page(hostile.stream(content, packed=b"")))
    run(tmp_path / "a.pdf", tmp_path / "out", lambda asked: "no", max_attempts=1)
    with FakeQwen(price_in) as qwen:
        command = [str(Path(sys.executable).with_name("quarry")), "retry", str(tmp_path / "out")]
        done = subprocess.run([*command, "--base-url", qwen.compat_url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [row] = current_rows(tmp_path / "out").to_pylist()
    assert row["_evidence"][0]["box"] is not None
