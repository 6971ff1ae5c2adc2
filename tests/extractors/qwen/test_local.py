"""The embedded server as a process, then, where the weights are on this machine, with the real model in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr

from extractors.endpoint import Settings, resolve_endpoint
from extractors.errors import ModelMissing, ServerUnreachable
from extractors.qwen import local_child
from extractors.qwen.grammar import compact_grammar
from extractors.qwen.local import EmbeddedModel, is_embedded, model_states
from extractors.qwen.local_server import LocalServer, Tuning, _quota, available_cores
from extractors.qwen.modes import compile_shape
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import AnswerShape, ChatReply, ChatRequest, Message, Mode
from extractors.qwen.transport import HttpTransport
from extractors.qwen.weights import KNOWN, find
from schemas.job import ExtractionJob

SMALL = "local-0.5b"
WEIGHTS = find(SMALL)
with_model = [
    pytest.mark.model,
    pytest.mark.skipif(WEIGHTS is None, reason=f"`quarry model pull {SMALL}` first"),
]


def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def ask(url: str, text: str, **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 64, **more}
    return post(url, body)


def gone(pid: int, *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A zombie still has its id, but it is dead.
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", ["local-0.5b", "local-9b", "hf:a/b:c.gguf", "/models/x.gguf"])
def test_names_of_embedded_models(name: str):
    assert is_embedded(name)


@pytest.mark.parametrize("name", ["qwen-plus", "qwen3:8b", "Qwen/Qwen2.5-7B-Instruct"])
def test_names_of_other_models(name: str):
    assert not is_embedded(name)


def test_prompt_and_answer_share_a_slots_context():
    model = EmbeddedModel("local-0.5b", context=4096)
    assert model.max_input_tokens + model.max_output_tokens == 4096
    assert model.sha256 == KNOWN["local-0.5b"].sha256


def test_a_name_that_means_no_model_is_refused_at_once():
    with pytest.raises(ModelMissing, match="local-9b"):
        EmbeddedModel("local-9b")


def test_the_list_shows_known_models_and_files_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUARRY_MODELS", str(tmp_path))
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    states = {state.name: state for state in model_states()}
    assert list(states) == [*KNOWN, str(tmp_path / "mine.gguf")]
    assert states["local-1.5b"].path is None
    assert states[str(tmp_path / "mine.gguf")].bytes == 4


def test_this_process_has_a_core():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)])
def test_a_containers_quota_is_read(tmp_path: Path, text: str, cores: float | None):
    (tmp_path / "cpu.max").write_text(text)
    assert _quota(tmp_path) == cores


def test_an_older_containers_quota_is_read(tmp_path: Path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert _quota(tmp_path) == 2.0


def test_a_missing_file_is_told_before_anything_is_started(tmp_path: Path):
    server = LocalServer(tmp_path / "none.gguf")
    with pytest.raises(ModelMissing, match=r"none\.gguf"):
        server.start()
    assert server.pid is None


def test_a_child_that_failed_waits_for_the_log_that_another_thread_still_writes(tmp_path: Path) -> None:
    def write() -> None:
        for number in range(5):
            time.sleep(0.1)
            log.write(f"{number}\n")

    with (tmp_path / "log").open("w", buffering=1) as log:
        writer = threading.Thread(target=write)
        writer.start()
        local_child._wait_for_log(log.fileno())
        seen = (tmp_path / "log").read_text().split()
        writer.join()
    assert seen == ["0", "1", "2", "3", "4"]


def test_a_file_that_is_no_model_ends_with_the_last_lines_of_the_log(tmp_path: Path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\x00" * 100)
    server = LocalServer(path, log_path=tmp_path / "server.log")
    with pytest.raises(ServerUnreachable, match=r"did not start[\s\S]*server\.log[\s\S]*load"):
        server.start()
    assert not server.alive


def test_a_server_that_does_not_run_has_no_address(tmp_path: Path):
    with pytest.raises(ServerUnreachable, match="not running"):
        _ = LocalServer(tmp_path / "x.gguf").base_url


async def call(server: LocalServer, question: ChatRequest) -> ChatReply:
    profile = Profile(name=SMALL, embedded=True)
    async with HttpTransport(
        server.base_url, api_key=SecretStr(""), pricing=Pricing.free(), profile=profile, timeout=120
    ) as asked:
        result = await asked(question)
    assert isinstance(result, ChatReply), result
    return result


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    assert WEIGHTS is not None
    with LocalServer(WEIGHTS, slots=2, context_per_slot=1024, alias=SMALL) as running:
        yield running


class TestWithTheModel:
    pytestmark = with_model

    def test_it_answers_on_loopback_under_its_name(self, server: LocalServer):
        assert server.base_url.startswith("http://127.0.0.1:")
        status, reply = ask(server.base_url, "Say hello.")
        assert status == 200
        assert reply["model"] == SMALL
        assert reply["choices"][0]["message"]["content"]
        assert reply["timings"]["prompt_n"] > 0

    def test_the_same_question_has_the_same_answer(self, server: LocalServer):
        answers = {ask(server.base_url, "Name three rivers.")[1]["choices"][0]["message"]["content"] for _ in range(3)}
        assert len(answers) == 1

    @pytest.mark.parametrize("words", ["Name three rivers.", "Repeat as a list: 龘靐, 🦙, naïve, 重庆鱻"])
    async def test_a_stream_brings_what_the_whole_reply_has(self, server: LocalServer, words: str):
        schema = {"type": "object", "properties": {"rivers": {"type": "array", "items": {"type": "string"}}}}
        shape = compile_shape("a", schema, Mode.GRAMMAR)
        question = ChatRequest(
            SMALL, (Message("user", words),), shape, max_output_tokens=64, logprobs=True, record="Name three rivers."
        )
        streamed = await call(server, question)
        whole = await call(server, replace(question, record=None))
        assert (streamed.text, streamed.finish_reason, streamed.usage.output_tokens) == (
            (whole.text, whole.finish_reason, whole.usage.output_tokens)
        )
        assert streamed.usage.input_tokens == whole.usage.input_tokens and not streamed.usage_estimated
        assert streamed.logprobs is not None and whole.logprobs is not None
        heard = len(streamed.logprobs.ends)
        assert whole.logprobs.ends[heard:] in ((), whole.logprobs.ends[-1:]), "all but the token that ends it"
        assert streamed.logprobs.ends == whole.logprobs.ends[:heard]
        assert streamed.logprobs.values == pytest.approx(whole.logprobs.values[:heard], abs=1e-3)

    async def test_a_list_without_an_end_is_left_and_the_server_is_free_again(self, server: LocalServer):
        grammar = r"""root ::= "{\"a\":[" ("\"PC\"," "\"Mac\",")+ """
        shape = AnswerShape("a", {}, Mode.GRAMMAR, {"grammar": grammar}, lists=True)
        question = ChatRequest(
            SMALL,
            (Message("user", "Go on."),),
            shape,
            max_output_tokens=900,
            record="PC and Mac, or what else there is",
        )
        before = time.perf_counter()
        left = await call(server, question)
        took = time.perf_counter() - before
        assert (left.finish_reason, left.usage_estimated) == ("loop", False)
        assert 12 <= left.text.count("PC") + left.text.count("Mac") < 40
        assert 12 < left.usage.output_tokens < 200
        before = time.perf_counter()
        for _ in range(server.slots):  # one of them would wait for 700 tokens more
            ask(server.base_url, "Say hello.", max_tokens=1)
        assert time.perf_counter() - before < max(took, 3)

    def test_a_shared_prefix_is_read_once(self, server: LocalServer):
        prefix = "The quick brown fox jumps over the lazy dog. " * 20
        for number in range(4):
            _, reply = ask(server.base_url, f"{prefix} Number {number}?", max_tokens=1)
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 180

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"a": {"type": "number"}, 'ß"\\': {"type": ["string", "null"]}}},
            {
                "type": "object",
                "properties": {
                    "tags": {"type": "array", "items": {"enum": ["x", "y z", "é"]}, "minItems": 1, "maxItems": 3},
                    "one": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 1},
                    "none": {"type": "array", "maxItems": 0},
                    "pair": {
                        "type": "array",
                        "prefixItems": [{"type": "integer"}, {"type": "null"}],
                        "minItems": 2,
                        "maxItems": 2,
                    },
                },
                "required": ["tags", "one", "none", "pair"],
            },
            {
                "type": "object",
                "properties": {
                    name: {"type": "string", "format": name}
                    for name in ("date", "time", "date-time", "duration", "uuid")
                },
                "required": ["date", "time", "date-time", "duration", "uuid"],
            },
            {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": False}},
            {
                "$defs": {
                    "Node": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "minLength": 1, "maxLength": 8},
                            "kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "maxItems": 2},
                        },
                        "required": ["name"],
                    }
                },
                "$ref": "#/$defs/Node",
            },
            {"type": "object", "additionalProperties": True},
        ],
    )
    def test_its_answers_fit_the_schema_on_one_line(self, server: LocalServer, schema: dict[str, Any]):
        # Hot sampling, so that only the grammar holds the answer together.
        for seed in range(2):
            status, reply = ask(
                server.base_url,
                "Answer with JSON.",
                grammar=compact_grammar(schema),
                temperature=1.5,
                seed=seed,
                max_tokens=200,
            )
            assert status == 200, reply
            choice = reply["choices"][0]
            text = choice["message"]["content"]
            if choice["finish_reason"] == "length":
                continue
            value = json.loads(text)
            jsonschema.validate(value, schema)
            assert "\n" not in text

    def test_a_value_that_may_be_null_is_not_null_for_want_of_a_space(self, server: LocalServer):
        schema = {
            "type": "object",
            "properties": {"company": {"type": ["string", "null"]}, "city": {"type": ["string", "null"]}},
            "required": ["company", "city"],
        }
        system = (
            "You read one record and answer with one JSON object and nothing else.\n\n"
            "Fields of the JSON object, in this order:\n"
            '- "company": string or null  # The business that issued the receipt, as written\n- "city": string or null\n\n'
            "Rules:\n- Take every value from the record. Never guess or invent one.\n"
            "- What the record does not say is null."
        )
        _, reply = post(
            server.base_url,
            {
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": "Hotel Adler\nMarktplatz 3, Ulm\n1 Nacht 84,00 EUR"},
                ],
                "temperature": 0,
                "max_tokens": 64,
                "grammar": compact_grammar(schema),
                "cache_prompt": False,  # else what the tests before left in the cache changes the digits
            },
        )
        answer = json.loads(reply["choices"][0]["message"]["content"])
        assert answer == {"company": "Hotel Adler", "city": "Ulm"}

    def test_a_broken_grammar_is_refused(self, server: LocalServer):
        status, reply = ask(server.base_url, "Hello", grammar="root ::= (")
        assert status == 400
        assert "grammar" in reply["error"]["message"]

    def test_a_prompt_that_is_too_long_is_refused_by_its_own_kind(self, server: LocalServer):
        status, reply = ask(server.base_url, "word " * 1500)
        assert status == 400
        assert reply["error"]["type"] == "exceed_context_size_error"
        assert reply["error"]["n_prompt_tokens"] > reply["error"]["n_ctx"] == 1024

    def test_more_requests_than_slots_are_all_answered(self, server: LocalServer):
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda: results.append(ask(server.base_url, "Hi", max_tokens=4)[0]))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [200] * 5

    def test_it_outlives_the_thread_that_started_it_and_ends_with_stop(self):
        assert WEIGHTS is not None
        server = LocalServer(WEIGHTS, slots=1, context_per_slot=512)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        time.sleep(1.2)
        assert server.alive
        assert ask(server.base_url, "Hi", max_tokens=2)[0] == 200
        pid, url, log = server.pid, server.base_url, server.log_path
        server.stop()
        assert pid is not None and gone(pid)
        with pytest.raises(urllib.error.URLError):
            ask(url, "Hi")
        assert log is not None and not log.exists()

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
    def test_it_dies_with_its_parent_even_when_a_fork_keeps_the_pipe_open(self, end: signal.Signals):
        parent = start_in_another_process("sibling = os.fork()\nif sibling == 0: time.sleep(60); os._exit(0)")
        child, sibling = parent.pids()
        try:
            parent.process.send_signal(end)
            parent.process.wait(timeout=10)
            assert gone(child)
        finally:
            os.kill(sibling, signal.SIGKILL)
            parent.close()

    def test_ctrl_c_in_the_terminal_does_not_reach_it(self):
        parent = start_in_another_process("signal.signal(signal.SIGINT, signal.SIG_IGN)", new_session=True)
        (child,) = parent.pids()
        try:
            os.killpg(parent.process.pid, signal.SIGINT)
            assert not gone(child, seconds=1.0)
        finally:
            parent.process.kill()
            parent.process.wait()
            parent.close()
        assert gone(child)

    def test_the_embedded_model_is_served_under_a_v1_address(self):
        with EmbeddedModel(SMALL, slots=1, context=512).serve() as url:
            assert url.endswith("/v1")
            assert ask(url, "Hi", max_tokens=2)[1]["model"] == SMALL


class Parent:
    """Another Python process that holds a server, and maybe forked since."""

    def __init__(self, process: subprocess.Popen[str], ask_pids: Callable[[], list[int]]) -> None:
        self.process = process
        self.pids = ask_pids

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_in_another_process(then: str, *, new_session: bool = False) -> Parent:
    script = (
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "from extractors.qwen.local_server import LocalServer\n"
        f"server = LocalServer(Path({str(WEIGHTS)!r}), slots=1, context_per_slot=512)\n"
        "server.start()\n"
        f"{then}\n"
        "print(server.pid, globals().get('sibling', ''), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=new_session
    )
    assert process.stdout is not None
    stdout = process.stdout
    return Parent(process, lambda: [int(word) for word in stdout.readline().split()])


@pytest.mark.parametrize(("confidence", "speculates"), [("auto", False), ("evidence", True), ("never", True)])
def test_only_who_wants_no_probabilities_has_copied_stretches_tried_at_once(
    monkeypatch: pytest.MonkeyPatch, confidence: str, speculates: bool
) -> None:
    """llama.cpp tells a probability of 1 for each token that was tried so."""
    asked: list[Tuning] = []

    @contextmanager
    def server(path: Path, *, tuning: Tuning, **kept: object) -> Iterator[Any]:
        asked.append(tuning)
        yield SimpleNamespace(base_url="http://127.0.0.1:1/v1")

    monkeypatch.setattr("extractors.qwen.local.ensure", lambda name, progress=None: Path(name))
    monkeypatch.setattr("extractors.qwen.local.LocalServer", server)
    job = ExtractionJob.model_validate(
        {"source": "x", "schema": "x", "out": "o", "model": "local-0.5b", "confidence": confidence}
    )
    with resolve_endpoint(job, settings=Settings()).serve():
        assert [one.speculate for one in asked] == [speculates]
