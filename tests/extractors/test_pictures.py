"""What data may name as a record's picture, and what it may not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors.errors import SourceError
from extractors.sources import has_pictures, open_dataframe, open_source
from extractors.sources.pictures import PictureFinder
from schemas.job import ExtractionJob

DATA = b"\x89PNG not looked at here"
HASH = hashlib.sha256(DATA).hexdigest()


def job(source: Path | str, **options: Any) -> ExtractionJob:
    return ExtractionJob.model_validate({"source": str(source), "schema": "x", "out": "o", **options})


def staged(tmp_path: Path, source: Any) -> list[dict[str, Any]]:
    with duckdb.connect() as con:
        con.execute("attach ':memory:' as plan")
        if source.pictures is not None:
            source.pictures.scratch = tmp_path / "scratch"
        source.stage(con, "plan.main.staged")
        rows = con.sql("select * from plan.main.staged").to_arrow_table().to_pylist()
    for row in rows:
        row["image"] = None if row["image"] is None else json.loads(row["image"])
    return rows


def test_a_csv_names_pictures_beside_it(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(DATA)
    table = tmp_path / "t.csv"
    table.write_text("id,scan,text\n1,scans/a.png,hello\n2,scans/a.png,\n3,,only text\n4,,\n5,none.png,x\n")
    rows = staged(tmp_path, open_source(job(table, id="id", image="scan")))
    assert rows[0]["image"] == {"place": str(tmp_path / "scans/a.png"), "name": "scans/a.png", "sha256": HASH}
    assert [row["text"] for row in rows] == ["hello", "", "only text", "", "x"]
    assert rows[1]["problem"] is None, "a picture needs no text"
    assert rows[2]["image"] is None
    assert rows[3]["problem"] == "the text is null"
    assert "no picture none.png" in rows[4]["problem"]


def test_a_fingerprint_is_of_the_pictures_bytes_and_the_text(tmp_path: Path) -> None:
    for name, data in (("a", DATA), ("b", DATA), ("c", DATA + b"!")):
        (tmp_path / f"{name}.png").write_bytes(data)
    table = tmp_path / "t.jsonl"
    cells = [("a.png", "x"), ("b.png", "x"), ("c.png", "x"), ("a.png", "y"), (None, "x")]
    table.write_text("".join(json.dumps({"p": p, "text": t}) + "\n" for p, t in cells))
    prints = [row["fingerprint"] for row in staged(tmp_path, open_source(job(table, image="p")))]
    assert prints[0] == prints[1], "the same bytes under another name are the same picture"
    assert len(set(prints)) == 4
    plain = [row["fingerprint"] for row in staged(tmp_path, open_source(job(table)))]
    assert prints[4] == plain[4], "a record without a picture has the fingerprint of its text"


def test_bytes_in_a_column_are_pictures_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"scan": pa.array([DATA, None], pa.binary()), "text": ["a", "b"]}), tmp_path / "t.parquet")
    rows = staged(tmp_path, open_source(job(tmp_path / "t.parquet", image="scan")))
    assert rows[0]["image"]["sha256"] == HASH
    assert Path(rows[0]["image"]["place"]).read_bytes() == DATA
    assert rows[1]["image"] is None
    frame = open_dataframe(pa.table({"scan": pa.array([DATA], pa.binary())}), image="scan")
    assert staged(tmp_path, frame)[0]["image"]["sha256"] == HASH


def test_a_data_url_is_bytes(tmp_path: Path) -> None:
    finder = PictureFinder(base=tmp_path)
    finder.scratch = tmp_path / "scratch"
    told = json.loads(finder.from_text("data:image/png;base64," + base64.b64encode(DATA).decode()) or "")
    assert told["sha256"] == HASH
    assert "base64" in json.loads(finder.from_text("data:image/png,raw") or "")["problem"]


def test_a_folder_of_pictures_is_a_record_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.jpg", "a.PNG", ".hidden.png"):
        (tmp_path / "in" / name).write_bytes(DATA)
    rows = staged(tmp_path, open_source(job(tmp_path / "in")))
    assert [row["record_id"] for row in rows] == ["a.PNG", "b.jpg"]
    assert all(row["image"]["sha256"] == HASH for row in rows)
    assert has_pictures(job(tmp_path / "in"))
    assert has_pictures(job(str(tmp_path / "in" / "*.jpg")))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    assert not has_pictures(job(tmp_path / "text"))
    with pytest.raises(SourceError, match="text files"):
        open_source(job(tmp_path / "text", image="path"))


def problem(finder: PictureFinder, cell: str) -> str:
    told = json.loads(finder.from_text(cell) or "{}")
    return str(told.get("problem", ""))


def test_a_path_may_not_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(DATA)
    (root / "fine.png").write_bytes(DATA)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(root / "pipe.png")
    finder = PictureFinder(base=root)
    assert problem(finder, "fine.png") == ""
    assert problem(finder, str(root / "fine.png")) == ""
    for cell in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "/etc/passwd", "x/../../secret.png"):
        assert "outside" in problem(finder, cell), cell
    for cell in (".", "pipe.png"):
        assert "not a file" in problem(finder, cell), cell
    assert "cannot be read" in problem(finder, "a\0b")
    assert "no picture" in problem(finder, "~/secret.png"), "a home is not looked up for data"
    wider = PictureFinder(base=root, root=tmp_path)
    assert problem(wider, "../secret.png") == ""


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "oss://bucket/a.png",
        "https://localhost/a.png",
        "https://printer/a.png",
        "https://db.internal/a.png",
        "https://127.0.0.1/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f000001/a.png",
        "https://0177.0.0.1/a.png",
        "https://10.0.0.5/a.png",
        "https://172.16.3.4/a.png",
        "https://192.168.1.1/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/a.png",
        "https://0.0.0.0/a.png",
        "https://224.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://[fe80::1]/a.png",
        "https://[fd00::1]/a.png",
        "https://[2002:7f00:1::]/a.png",
        "https://user:word@example.com/a.png",
        "https://example.com:22/a.png",
        "https://exa mple.com/a.png",
        "https://example.com\\@10.0.0.1/a.png",
        "https://１２７.0.0.1/a.png",
        "https:///a.png",
        "https://[bad/a.png",
    ],
)
def test_no_address_of_this_machine_or_a_private_network(tmp_path: Path, address: str) -> None:
    assert problem(PictureFinder(base=tmp_path), address), address


def test_public_addresses_are_taken_and_hosts_can_be_limited(tmp_path: Path) -> None:
    finder = PictureFinder(base=tmp_path)
    for address in ("https://img.example.com/a.png?x=1", "https://8.8.8.8/a.png", "HTTPS://Example.com./a"):
        assert problem(finder, address) == "", address
        assert json.loads(finder.from_text(address) or "")["place"].startswith("https://")
    limited = PictureFinder(base=tmp_path, hosts=["*.example.com"])
    assert problem(limited, "https://img.example.com/a.png") == ""
    assert "image-hosts" in problem(limited, "https://example.org/a.png")
