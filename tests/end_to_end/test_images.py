"""Records with pictures, from the files to the table, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw
from pydantic import BaseModel

from extractors import extract
from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.report import RunReport
from extractors.retrying import retry_jobs
from extractors.store.catalog import current_rows, open_failures, query
from schemas.job import ExtractionJob
from tests.fakes.qwen import FakeQwen, Reply

PROFILES = """
[[model]]
name = "seeing"
match = ["qwen3-vl-plus*"]
vision = true
modes = ["json_object"]
dialects = ["chat", "dashscope"]
max_images = 2
max_image_bytes = 60_000
max_image_pixels = 90_000
"""


class Slip(BaseModel):
    shop: str
    total: float | None = None


def paint(path: Path, words: str, size: tuple[int, int] = (240, 120)) -> bytes:
    made = Pillow.new("RGB", size, "white")
    ImageDraw.Draw(made).text((10, 40), words, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path)
    return path.read_bytes()


def sent(qwen: FakeQwen) -> list[bytes]:
    """The pictures of every request, decoded from their data URLs."""
    found = []
    for seen in qwen.requests:
        for message in seen.body["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] == "image_url":
                    head, _, body = part["image_url"]["url"].partition(",")
                    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
                    found.append(base64.b64decode(body))
    return found


def go(tmp_path: Path, source: Path | str, qwen: FakeQwen, **options: Any) -> RunReport:
    profiles = tmp_path / "profiles.toml"
    profiles.write_text(PROFILES)
    job = ExtractionJob.model_validate(
        {
            "source": str(source),
            "schema": "tests.end_to_end.test_images:Slip",
            "out": str(tmp_path / "out"),
            "model": "qwen3-vl-plus",
            "base_url": qwen.base_url,
            **options,
        }
    )
    return run(job, settings=Settings(profiles=profiles))


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return sorted(current_rows(tmp_path / "out").to_pylist(), key=lambda row: str(row["record_id"]))


WHOLE = '{"shop": "Blu", "total": 9.5}'


def test_a_folder_of_pictures_becomes_rows(tmp_path: Path) -> None:
    one, other = paint(tmp_path / "in/a.png", "Blu 9.50"), paint(tmp_path / "in/sub/b.png", "Red 3.00")
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, tmp_path / "in", qwen)
        assert (report.rows, report.failures, qwen.count) == (2, 0, 2)
        assert sorted(sent(qwen)) == sorted([one, other]), "a picture that fits is sent byte for byte"
        again = go(tmp_path, tmp_path / "in", qwen)
        assert (again.skipped, qwen.count) == (2, 2)
        paint(tmp_path / "in/a.png", "Blu 9.60")
        changed = go(tmp_path, tmp_path / "in", qwen)
    assert (changed.rows, changed.skipped) == (1, 1), "a picture that was changed is asked again"
    row = rows(tmp_path)[0]
    assert (row["record_id"], row["shop"], row["total"]) == ("a.png", "Blu", 9.5)
    assert {one["match"] for one in row["_evidence"]} == {"image"}


def test_the_picture_goes_before_the_words_and_after_what_is_the_same_for_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(tmp_path / f"in/{name}.png", name)
    with FakeQwen(WHOLE) as qwen:
        go(tmp_path, tmp_path / "in", qwen)
        first, second = (seen.body["messages"] for seen in qwen.requests)
    assert first[0] == second[0]
    assert first[0]["role"] == "system"
    assert [part["type"] for part in first[1]["content"]] == ["image_url", "text"]


def test_identical_pictures_are_asked_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        paint(tmp_path / f"in/{name}.png", "the same")
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, tmp_path / "in", qwen)
        assert (report.rows, report.merged, qwen.count) == (3, 2, 1)


def test_text_and_picture_go_together_and_the_text_is_the_evidence(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "Blu")
    table = tmp_path / "t.csv"
    table.write_text("id,scan,text\n1,a.png,Receipt of Blu: 9.50\n2,,Receipt of Blu: 9.50\n")
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, table, qwen, id="id", image="scan")
        assert (report.rows, qwen.count, len(sent(qwen))) == (2, 2, 1)
    assert [one["match"] for one in rows(tmp_path)[0]["_evidence"]] == ["exact", "value"]


def test_bytes_are_pictures_too(tmp_path: Path) -> None:
    data = paint(tmp_path / "a.png", "Blu")
    pq.write_table(pa.table({"scan": pa.array([data], pa.binary()), "n": [1]}), tmp_path / "t.parquet")
    with FakeQwen(WHOLE) as qwen:
        assert go(tmp_path, tmp_path / "t.parquet", qwen, image="scan", id="n").rows == 1
        assert sent(qwen) == [data]
    assert not list((tmp_path / "out").rglob("pictures")), "pictures are not left behind"


def test_a_data_frame_has_pictures_through_the_python_door(tmp_path: Path) -> None:
    data = paint(tmp_path / "a.png", "Blu")
    (tmp_path / "profiles.toml").write_text(PROFILES)
    with FakeQwen(WHOLE) as qwen:
        done = extract(
            pa.table({"scan": pa.array([data], pa.binary())}),
            Slip,
            out=tmp_path / "out",
            image="scan",
            model="qwen3-vl-plus",
            base_url=qwen.base_url,
            settings=Settings(profiles=tmp_path / "profiles.toml"),
        )
        assert done.report.rows == 1
        assert sent(qwen) == [data]


def test_a_large_picture_is_scaled_before_it_is_sent(tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", "Blu", (1200, 900))
    with FakeQwen(WHOLE) as qwen:
        go(tmp_path, tmp_path / "in", qwen)
        [data] = sent(qwen)
    with Pillow.open(io.BytesIO(data)) as opened:
        assert opened.width * opened.height <= 90_000
        assert opened.width / opened.height == pytest.approx(4 / 3, rel=0.02)


def test_what_is_no_picture_is_a_ledger_entry_and_nothing_is_asked(tmp_path: Path) -> None:
    paint(tmp_path / "in/small.png", "", (5, 5))
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    (tmp_path / "in/text.png").write_text("hello")
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, tmp_path / "in", qwen)
        assert (report.rows, report.failures, qwen.count) == (0, 3, 0)
    assert report.failures_by_reason == {"bad_input": 3}
    entries = {
        row["record_id"]: row for row in open_failures(tmp_path / "out", name="slip", recipe=report.recipe).to_pylist()
    }
    assert "5 x 5" in entries["small.png"]["message"]
    assert entries["text.png"]["image"].startswith("sha256:")
    assert "text.png" in entries["text.png"]["image"]


def test_data_may_not_name_files_outside_or_private_addresses(tmp_path: Path) -> None:
    paint(tmp_path / "secret.png", "secret")
    folder = tmp_path / "in"
    folder.mkdir()
    cells = ["../secret.png", str(tmp_path / "secret.png"), "https://127.0.0.1/a.png", "file:///etc/passwd"]
    (folder / "t.jsonl").write_text("".join(json.dumps({"p": cell}) + "\n" for cell in cells))
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, folder / "t.jsonl", qwen, image="p")
        assert (report.failures, qwen.count) == (4, 0)


def test_a_public_address_is_handed_on(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"p": "https://img.example.com/a.png"}) + "\n")
    with FakeQwen(WHOLE) as qwen:
        assert go(tmp_path, table, qwen, image="p").rows == 1
        part = qwen.requests[0].body["messages"][1]["content"][0]
    assert part["image_url"]["url"] == "https://img.example.com/a.png"


def test_what_is_missing_is_asked_again_with_the_picture_and_only_then(tmp_path: Path) -> None:
    for number in range(6):
        paint(tmp_path / f"in/{number}.png", str(number))
    asked = []

    def answer(body: Any) -> Reply:
        words = body["messages"][-1]["content"]
        words = words if isinstance(words, str) else words[-1]["text"]
        asked.append("Look at the record once more" in words)
        if asked[-1]:
            return Reply('{"total": 3}')
        return Reply('{"shop": "Blu", "total": null}' if sum(not one for one in asked) % 3 == 0 else WHOLE)

    with FakeQwen(answer) as qwen:
        report = go(tmp_path, tmp_path / "in", qwen, concurrency=1)
        assert (report.rows, report.calls) == (6, 8), "two of six left a field empty"
        assert len(sent(qwen)) == 8
    assert sorted(row["total"] for row in rows(tmp_path)) == [3, 3, 9.5, 9.5, 9.5, 9.5]
    calls = query(
        tmp_path / "out", "select purpose, count(*) as n from slip_calls group by all order by all"
    ).to_pylist()
    assert [(call["purpose"], call["n"]) for call in calls] == [("extract", 6), ("look", 2)]


def test_a_model_that_cannot_see_is_refused_at_once(tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", "Blu")
    with FakeQwen(WHOLE) as qwen:
        with pytest.raises(JobError, match=r"qwen-plus cannot see.*seeing"):
            go(tmp_path, tmp_path / "in", qwen, model="qwen-plus")
        assert qwen.count == 0
    assert not (tmp_path / "out").exists()


def test_the_vision_model_of_the_environment_answers(tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", "Blu")
    (tmp_path / "profiles.toml").write_text(PROFILES)
    with FakeQwen(WHOLE) as qwen:
        given = {"source": str(tmp_path / "in"), "schema": "shop, total: float?", "out": str(tmp_path / "out")}
        job = ExtractionJob.model_validate({**given, "base_url": qwen.base_url})
        known = Settings(profiles=tmp_path / "profiles.toml", default_model="qwen-plus", vision_model="qwen3-vl-plus-x")
        run(job, settings=known)
        assert qwen.requests[0].body["model"] == "qwen3-vl-plus-x"


def test_a_failed_picture_is_asked_again_from_its_source(tmp_path: Path) -> None:
    data = paint(tmp_path / "in/a.png", "Blu")
    with FakeQwen("no json") as qwen:
        report = go(tmp_path, tmp_path / "in", qwen)
        assert report.failures_by_reason == {"not_json": 1}
        qwen.answer_with(WHOLE)
        qwen.forget()
        [again] = retry_jobs(tmp_path / "out")
        done = run(
            again.job,
            settings=Settings(profiles=tmp_path / "profiles.toml"),
            source=again.source,
            retry=again.selection,
        )
        assert (done.rows, sent(qwen)) == (1, [data])


def test_pictures_go_through_native_multimodal_too(tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", "Blu")
    with FakeQwen(WHOLE) as qwen:
        report = go(tmp_path, tmp_path / "in", qwen, dialect="dashscope")
        assert report.rows == 1
        seen = qwen.requests[0]
    assert seen.path.endswith("/multimodal-generation/generation")
    assert "image" in json.dumps(seen.body)
