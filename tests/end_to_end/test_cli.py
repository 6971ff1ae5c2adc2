"""The ``quarry`` command as a person or a script uses it: real processes, their output and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extractors.store.catalog import query
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen, Fault, Reply

QUARRY = Path(sys.executable).with_name("quarry")
SCHEMA = "tests.end_to_end.things:Thing"


def quarry(*arguments: str, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QWEN_", "DASHSCOPE_"))}
    done = subprocess.run(
        [str(QUARRY), *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def told(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def test_a_run_prints_one_json_object_last_with_counts_that_add_up(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        done = quarry("run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--id", "id",
                      "--base-url", qwen.base_url, "--model", "qwen-plus", "--json")  # fmt: skip
    report = told(done)
    wanted = "run_id recipe records rows failures skipped merged undone calls input_tokens output_tokens cost seconds"
    assert set(wanted.split()) <= report.keys()
    assert report["records"] == 12 == report["rows"]
    assert done.stdout.count("\n") == 1


def test_without_json_the_summary_goes_to_people_and_names_the_next_commands(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(lambda body: "no" if "thing-0000001" in str(body) else thing_answer(body)) as qwen:
        done = quarry("run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--concurrency", "1",
                      "--base-url", qwen.base_url, "--model", "qwen-plus")  # fmt: skip
    assert "3 records = 2 rows + 1 failures + 0 already done + 0 undone" in done.stderr
    assert f"quarry failures {tmp_path / 'o'}" in done.stderr
    assert f"quarry retry {tmp_path / 'o'}" in done.stderr


def test_a_job_file_is_a_run_and_options_override_it(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))
    job = tmp_path / "job.toml"
    job.write_text(
        f'source = "{source}"\nschema = "{SCHEMA}"\nout = "{tmp_path / "a"}"\nid = "id"\nmodel = "qwen-plus"\n'
    )
    with FakeQwen(thing_answer) as qwen:
        done = quarry("run", str(job), "--out", str(tmp_path / "b"), "--base-url", qwen.base_url, "--json")
    assert told(done)["rows"] == 4
    assert (tmp_path / "b" / "catalog.duckdb").is_file()
    assert not (tmp_path / "a").exists()


def test_plan_counts_and_estimates_and_calls_nothing(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(50))
    with FakeQwen(thing_answer) as qwen:
        base = [
            "--schema",
            SCHEMA,
            "--out",
            str(tmp_path / "o"),
            "--id",
            "id",
            "--base-url",
            qwen.base_url,
            "--model",
            "qwen-plus",
        ]
        before = told(quarry("plan", str(source), *base, "--json"))
        assert qwen.count == 0
        assert not (tmp_path / "o").exists()
        quarry("run", str(source), *base, "--json")
        after = told(quarry("plan", str(source), *base, "--json"))
    assert (before["records"], before["new"], before["to_ask"]) == (50, 50, 50)
    assert isinstance(before["input_tokens"], int) and before["input_tokens"] > 50 * 100
    assert float(str(before["cost"])) > 0 or "127.0.0.1" in qwen.base_url
    assert (after["skipped"], after["to_ask"]) == (50, 0)


def test_show_failures_and_retry(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    out = str(tmp_path / "o")
    with FakeQwen(
        ["no", "no", "no", "no", "no", "no", thing_answer({"messages": [{"content": "=== RECORD a\nx\n=== END a"}]})]
    ) as qwen:
        quarry("run", str(source), "--schema", SCHEMA, "--out", out, "--id", "id", "--concurrency", "1",
               "--base-url", qwen.base_url, "--model", "qwen-plus", "--json", expect=1)  # fmt: skip
        listed = told(quarry("failures", out, "--where", "reason = 'not_json'", "--json"))
        assert listed["by_reason"] == {"not_json": 3}
        assert "3 open failures: 3 not_json" in quarry("failures", out).stdout
        again = told(quarry("retry", out, "--where", "record_id = 'r00001'", "--json"))
        assert (again["records"], again["rows"]) == (1, 1)
    shown = told(quarry("show", out, "--json"))
    assert shown["schemas"] == [
        {"name": "thing", "recipe": again["recipe"], "rows": 1, "failures": 2, "ignored": 0, "calls": 7}
    ]
    assert "thing recipe=" in quarry("show", out).stdout


def test_a_retrys_ceiling_holds_for_all_recipes_together(tmp_path: Path) -> None:
    source, out = write_things(tmp_path / "things.jsonl", range(12)), tmp_path / "o"
    with FakeQwen(lambda body: "no") as qwen:
        for temperature in (0.0, 0.1, 0.2):
            run_things(source, out, qwen, temperature=temperature, max_attempts=1)
    with FakeQwen(thing_answer) as qwen:
        done = quarry("retry", str(out), "--base-url", qwen.base_url, "--max-tokens", "4000", "--json")
    runs = told(done)["runs"]
    assert isinstance(runs, list) and len(runs) == 3
    assert 0 < sum(one["input_tokens"] + one["output_tokens"] for one in runs) <= 4000
    assert sum(one["rows"] + one["undone"] for one in runs) == 36
    assert all(one["stopped"].startswith("budget:") for one in runs)


def test_a_comparisons_ceiling_holds_for_both_sides_together(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text(
        "".join(
            json.dumps({"id": f"g{n}", "text": f"thing-{n:07}", "expected": {"name": f"thing-{n:07}"}}) + "\n"
            for n in range(8)
        )
    )
    with FakeQwen(thing_answer) as qwen:
        quarry("compare", str(golden), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--a", "temperature=0",
               "--b", "temperature=0.1", "--base-url", qwen.base_url, "--model", "qwen-plus", "--max-tokens", "3000",
               "--concurrency", "1", "--max-output-tokens", "64", "--json")  # fmt: skip
    calls = query(tmp_path / "o", "select sum(input_tokens + output_tokens)::bigint as n from thing_calls").to_pylist()
    assert 0 < calls[0]["n"] <= 3000


def test_schema_shows_json_arrow_and_prompt(tmp_path: Path) -> None:
    done = quarry("schema", "name, price: float?, tags: list[str]")
    for part in ("# JSON Schema", "# Arrow schema", "price: double", "# Prompt", '"tags": list of string'):
        assert part in done.stdout, part


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "missing.csv", "--schema", "name", "--out", "o"], 2, "missing.csv"),
        (["run", "x.csv", "--out", "o"], 2, "--schema is required"),
        (["run", "x.csv", "--schema", "name", "--out", "o", "--concurrency", "0"], 2, "concurrency"),
        (["run", "x.csv", "--schema", "no.such.module:Thing", "--out", "o"], 2, "no.such"),
        (["run", "x.csv", "--schema", "name", "--out", "o", "--model", "qwen-plus"], 2, "--base-url"),
        (["run", "missing.toml", "--out", "o"], 2, "missing.toml"),
        (["show", "nowhere"], 2, "nowhere"),
        (["failures", "nowhere"], 2, "nowhere"),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_said_in_one_sentence(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = quarry(*arguments, expect=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rejected_key_is_one_sentence_and_exit_code_4(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen(Fault.status(401, "invalid_api_key", "Incorrect API key provided.")) as qwen:
        done = quarry("run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--base-url", qwen.base_url,
                      "--model", "qwen-plus", expect=4, DASHSCOPE_API_KEY="sk-secret-key")  # fmt: skip
    assert "key error" in done.stderr
    assert "sk-secret-key" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_commits_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(200))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QWEN_", "DASHSCOPE_"))}
    with FakeQwen(lambda body: Reply(thing_answer(body), delay=0.2)) as qwen:
        arguments = ["run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--id", "id", "--concurrency", "4",
                     "--base-url", qwen.base_url, "--model", "qwen-plus"]  # fmt: skip
        process = subprocess.Popen([str(QUARRY), *arguments], stderr=subprocess.PIPE, text=True, env=clean)
        while qwen.count < 12 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
        done = qwen.count
        assert "stopped: interrupted" in said
        assert "goes on with" in said, said
        report = told(quarry(*arguments, "--concurrency", "50", "--json"))
    assert (report["skipped"], report["rows"]) == (done, 200 - done)
    assert qwen.count == 200


def test_help_is_quick_and_every_command_has_help_and_an_example() -> None:
    clock = time.perf_counter()
    listed = quarry("--help").stdout
    assert time.perf_counter() - clock < 3
    for command in ("run", "plan", "show", "failures", "retry", "report", "schema", "doctor"):
        assert command in listed
        assert "Example" in quarry(command, "--help").stdout, command


def test_help_and_schema_never_import_prefect(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['quarry', 'schema', 'name']\nfrom flows.cli import main\nmain() if 0 else None\nfrom flows.cli.app import app\napp(standalone_mode=False)\nassert 'prefect' not in sys.modules, 'prefect was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_names_what_it_looked_at_and_hides_the_key() -> None:
    done = quarry("doctor", "--json", DASHSCOPE_API_KEY="sk-secret-key")
    checks = told(done)
    assert {"python", "disk", "duckdb", "embedded model", "DASHSCOPE_API_KEY"} <= checks.keys()
    assert "sk-secret-key" not in done.stdout


def test_a_plan_with_a_sample_asks_and_keeps_it_and_the_run_goes_on_when_approved(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(50))
    with FakeQwen(thing_answer) as qwen:
        base = [str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--id", "id",
                "--base-url", qwen.base_url, "--model", "qwen-plus"]  # fmt: skip
        planned = told(quarry("plan", *base, "--sample", "20", "--json"))
        assert qwen.count == 20
        shown = quarry("run", *base, "--approve-above", "0.000001", expect=6)
        assert "--approve" in shown.stderr
        assert "interval, corrections included" in shown.stderr
        assert qwen.count == 20
        done = told(quarry("run", *base, "--approve-above", "0.000001", "--approve", "--json"))
        assert qwen.count == 50
    assert planned["forecast"]["texts"] == done["forecast"]["texts"] == 30  # type: ignore[index]
    assert (done["rows"], done["skipped"]) == (30, 20)


def test_at_a_terminal_an_amount_becomes_the_ceiling(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    controller, terminal = os.openpty()
    with FakeQwen(thing_answer) as qwen:
        process = subprocess.Popen(
            [str(QUARRY), "run", str(source), "--schema", SCHEMA, "--out", str(tmp_path / "o"), "--id", "id",
             "--base-url", qwen.base_url, "--model", "qwen-plus", "--approve-above", "0", "--concurrency", "2"],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        said = b""
        while b"as the ceiling:" not in said:
            said += os.read(controller, 4096)
        assert qwen.count == 20
        os.write(controller, b"perhaps\n")
        while said.count(b"as the ceiling:") < 2:
            said += os.read(controller, 4096)
        os.write(controller, b"0\n")
        with contextlib.suppress(OSError):
            while more := os.read(controller, 4096):
                said += more
        process.wait(timeout=60)
        assert qwen.count == 20, "the sample has cost more than nothing already"
    os.close(controller)
    assert b"answer y, n, or an amount" in said
    assert b"--max-cost 0" in said
