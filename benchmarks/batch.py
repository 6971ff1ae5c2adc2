"""The batch lane's own work: request files written, and results taken in, without any service.

Written: a ``ChatRequest`` to its digest, its worst case, its line, in files of 50,000. Taken in: result lines read,
judged and found by their requests, then decoded again as the extractions ask for them.
Bars: >= 50,000 lines/s written on one core, >= 10,000 results/s taken in, peak RSS <= 500 MB.

With ``--whole``, the whole command over as many records against files and batches on loopback
(``benchmarks.batch_service``, a process of its own): prompts made, request files uploaded, results downloaded, every
answer validated, grounded and committed. Its peak memory is read from /proc twice a second.
Run: ``python -m benchmarks.batch --requests 1000000`` (1 minute), ``python -m benchmarks.batch --whole --requests 1000000``
(10 minutes)
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path

import orjson

from benchmarks.loopback import record_text
from benchmarks.memory import watched
from extractors.batch.answers import Answers, digests_in
from extractors.batch.ledger import BatchEntry, State
from extractors.batch.request_files import RequestFile, RequestFiles
from extractors.budget import Amount, worst_case
from extractors.endpoint import Settings, resolve_endpoint
from extractors.extraction import Extraction
from extractors.qwen import chat
from extractors.qwen.batch import BatchRules
from extractors.qwen.prices import Pricing, Tier
from extractors.qwen.requests import ChatRequest
from extractors.recipe import compile_recipe
from schemas.job import ExtractionJob
from schemas.loading import load_schema
from schemas.records import Record

PRICING = Pricing((Tier(Decimal("0.2"), Decimal("0.6")),))
TAG = "abc123-01-"


def main() -> int:
    """Measure, print, and fail when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    if arguments.whole:
        return whole(arguments.requests)
    job = ExtractionJob.model_validate(
        {"source": "x.csv", "schema": "benchmarks.overhead:Article", "out": "x", "model": "qwen-plus",
         "base_url": "http://127.0.0.1:9/v1"}
    )  # fmt: skip
    endpoint = resolve_endpoint(job, Settings())
    recipe = compile_recipe(job, load_schema(job.schema_spec), endpoint.policy)

    def requests() -> Iterator[ChatRequest]:
        for number in range(arguments.requests):
            record = Record(str(number), record_text(number, length=300), f"{number:032x}")
            request = Extraction(recipe, record).next_request()
            assert request is not None
            yield request

    with tempfile.TemporaryDirectory() as folder:
        numbers = count(1)
        files = RequestFiles(
            BatchRules(), named=lambda: (f"n{next(numbers)}", TAG), path=lambda name: Path(folder) / f"{name}.jsonl"
        )
        writing = 0.0
        for request in requests():
            start = time.process_time()
            digest = request.digest()
            worst = worst_case(request, PRICING)
            files.add(request, chat.encode(request, profile=endpoint.profile), digest=digest, worst=worst)
            writing += time.process_time() - start
        start = time.process_time()
        files.finish()
        writing += time.process_time() - start
        done = files.take()
        taking = 0.0
        answers = Answers(model="qwen-plus", pricing=PRICING)
        for one in done:
            output = Path(folder) / f"{one.name}.output.jsonl"
            _answer(one, output)
            entry = _entry(one)
            start = time.process_time()
            digests = digests_in(one.path)
            taken = answers.take(entry, digests, output=output, errors=None)
            for key in digests:
                reply, _ = answers.result(key.hex())
                assert reply is not None
            answers.forget(digests)
            taking += time.process_time() - start
            assert taken.ok == one.lines
            output.unlink()
        answers.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    written, took = arguments.requests / writing, arguments.requests / taking
    print(f"{arguments.requests:,} requests in {len(done)} files")
    print(f"written {written:,.0f} lines/s (bar: >= 50,000), taken in {took:,.0f} results/s (bar: >= 10,000)")
    print(f"peak RSS {peak:.0f} MB (bar: <= 500 MB)")
    print(json.dumps({"written_per_s": round(written), "taken_per_s": round(took), "peak_mb": round(peak)}))
    return 0 if written >= 50_000 and took >= 10_000 and peak <= 500 else 1


def whole(records: int) -> int:
    """The command from the source to the catalog, and again with nothing left to do."""
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as url:
        source = Path(folder) / "records.jsonl"
        with source.open("w") as file:
            for number in range(records):
                file.write(json.dumps({"id": number, "text": record_text(number, length=300)}) + "\n")
        out = Path(folder) / "out"
        command = [
            str(Path(sys.executable).with_name("quarry")), "run", str(source), "--schema", "benchmarks.overhead:Article",
            "--out", str(out), "--id", "id", "--base-url", url, "--model", "qwen-plus", "--lane", "batch",
            "--batch-poll", "0.2", "--json",
        ]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        first, curve = watched(command, out)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert first["rows"] == records, first
        peak = max(memory for _, memory in curve)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"whole lane: {records:,} records in {first['seconds']:,.0f} s, {used / records * 1e3:.2f} ms CPU each, "
            f"peak RSS {peak:.0f} MB (bar: <= 500 MB)",
            flush=True,
        )
        second, _ = watched(command, out)
        assert (second["skipped"], second["calls"]) == (records, 0), second
    print(json.dumps({"whole_records": records, "whole_s": round(first["seconds"]), "whole_peak_mb": round(peak)}))
    return 0 if peak <= 500 else 1


@contextmanager
def _service(folder: Path) -> Iterator[str]:
    """The service in a process of its own; its base URL."""
    files = folder / "service"
    files.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.batch_service", str(files)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def _answer(file: RequestFile, output: Path) -> None:
    content = json.dumps(
        {"name": "Kettle 7", "code": "AB-0000007", "price": 12.5, "city": "Lyon", "since": "2012-03-04"}
    )
    body = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "qwen-plus",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340},
    }  # fmt: skip
    rest = orjson.dumps({"response": {"status_code": 200, "request_id": "r", "body": body}, "error": None})[1:]
    with output.open("wb") as out:
        for digest in file.digests:
            out.write(b'{"id":"l","custom_id":"%b%b",%b\n' % (TAG.encode(), digest.hex().encode(), rest))


def _entry(file: RequestFile) -> BatchEntry:
    return BatchEntry(
        name=file.name, run_id="20260101T000000Z-abc123", round=1, model=file.model, url="", window="24h", address="",
        lines=file.lines, size=file.size, worst=file.worst, worst_line=Amount(Decimal(1), 1), after=0, written_at="",
        state=State.ENDED, status="completed",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
