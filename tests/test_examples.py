"""The bundled examples: the files are what their README says, and the golden answers fit them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from extractors.sources import open_source
from extractors.store.plan import Plan
from extractors.tokens import estimate_tokens
from schemas.job import ExtractionJob
from schemas.loading import load_schema

ROOT = Path(__file__).parents[1]
QUARRY = Path(sys.executable).with_name("quarry")
EXAMPLES = ROOT / "examples"
SETS = ("products", "receipts", "tickets")
FAR_TOO_LONG = 100_000
LOCAL_CONTEXT = 32_768

each_set = pytest.mark.parametrize("name", SETS)


@pytest.fixture(autouse=True)
def in_the_project_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def job_of(name: str) -> ExtractionJob:
    return ExtractionJob.from_toml(EXAMPLES / f"{name}.toml")


@cache
def records_of(name: str) -> list[tuple[str, str]]:
    """(id, text) of every record, read the way a run reads them."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_source(job_of(name)) as source,
        Plan.make(source, [], scratch=Path(scratch), chunk_size=100) as plan,
    ):
        records = [record for chunk in plan.chunks() for group in chunk.groups for record in group.records]
    return [(record.record_id, record.text) for record in records]


@cache
def golden_of(name: str) -> list[dict[str, Any]]:
    lines = (EXAMPLES / "golden" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def text_of(name: str, record_id: str) -> str:
    (text,) = (text for rid, text in records_of(name) if rid == record_id)
    return text


def every_id_and_text() -> Iterator[tuple[str, str]]:
    for name in SETS:
        yield from records_of(name)


def accepted(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The expected object, then one more for each other value that counts."""
    expected = row["expected"]
    yield expected
    for field, values in row.get("accept", {}).items():
        if isinstance(expected[field], list):
            for place, words in enumerate(values):
                for word in words:
                    yield {**expected, field: [*expected[field][:place], word, *expected[field][place + 1 :]]}
        else:
            for value in values:
                yield {**expected, field: value}


# The job files


@each_set
def test_a_job_file_is_an_extraction_job_with_sources_from_the_project_root(name: str) -> None:
    job = job_of(name)
    assert job.source is not None
    assert (ROOT / job.source).exists()
    assert not Path(job.source).is_absolute()


@each_set
def test_a_job_carries_only_what_the_source_has_and_asks_evidence_for_fields_of_the_schema(name: str) -> None:
    job = job_of(name)
    with open_source(job) as source:
        assert set(source.kept.names) == set(job.keep)
    assert set(job.require_evidence) <= set(load_schema(job.schema_spec).model_fields)


def test_the_three_sources_are_a_csv_file_a_folder_and_a_jsonl_file() -> None:
    products, receipts, tickets = (Path(job_of(name).source or "") for name in SETS)
    assert products.suffix == ".csv"
    assert receipts.is_dir()
    assert all(path.suffix == ".txt" for path in receipts.iterdir())
    assert tickets.suffix == ".jsonl"


# The records


@each_set
def test_every_set_has_at_least_ten_records(name: str) -> None:
    assert len(records_of(name)) >= 10


def test_there_are_as_many_records_as_the_readme_says() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in SETS:
        (line,) = (line for line in readme.splitlines() if line.startswith(f"| `{name}.toml`"))
        assert line.split("|")[3].strip() == str(len(records_of(name)))


def test_the_records_are_short_enough_for_a_small_machine() -> None:
    sizes = {name: sum(len(text) for _, text in records_of(name) if len(text) < FAR_TOO_LONG) for name in SETS}
    assert all(size <= 9_000 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 20_000, sizes


def test_exactly_one_record_is_far_too_long_for_the_embedded_models() -> None:
    (long,) = (text for _, text in every_id_and_text() if len(text) > FAR_TOO_LONG)
    assert estimate_tokens(long) > 1.5 * LOCAL_CONTEXT
    assert all(len(text) < 1_000 for _, text in every_id_and_text() if text != long)


def test_the_long_record_is_the_one_that_its_script_writes() -> None:
    script = runpy.run_path(str(EXAMPLES / "data" / "make_long.py"))
    message = script["long_message"]()
    assert len(message) == script["LENGTH"] == 120_000
    assert text_of("tickets", script["TICKET_ID"]) == message


def test_exactly_one_record_gives_the_model_orders() -> None:
    ordering = [rid for rid, text in every_id_and_text() if "ignore your instructions" in text.casefold()]
    assert ordering == ["P-1011"]
    (row,) = (row for row in golden_of("products") if row["id"] == "P-1011")
    assert row["expected"]["availability"] == "in_stock"
    assert row["expected"]["price"] == "39.00"


def test_exactly_one_id_stands_on_two_records() -> None:
    counts = {name: Counter(rid for rid, _ in records_of(name)) for name in SETS}
    twice = [(name, rid, count) for name in SETS for rid, count in counts[name].items() if count > 1]
    assert twice == [("products", "P-1010", 2)]
    first, second = (text for rid, text in records_of("products") if rid == "P-1010")
    assert first != second


def test_exactly_one_pair_of_records_is_identical_under_two_ids() -> None:
    ids: dict[tuple[str, str], list[str]] = {}
    for name in SETS:
        for rid, text in records_of(name):
            ids.setdefault((name, text), []).append(rid)
    assert [found for found in ids.values() if len(found) > 1] == [["r08.txt", "r11.txt"]]
    eight, eleven = (row["expected"] for row in golden_of("receipts") if row["id"] in ("r08.txt", "r11.txt"))
    assert eight == eleven


def test_exactly_one_record_is_empty() -> None:
    assert [rid for rid, text in every_id_and_text() if not text.strip()] == ["T-2012"]


def test_some_records_have_nothing_to_extract() -> None:
    answered = {row["id"] for row in golden_of("products")}
    assert {"P-1013", "P-1014"} & answered == set()
    (receipt,) = (row["expected"] for row in golden_of("receipts") if row["id"] == "r12.txt")
    assert set(receipt.values()) == {None}


def test_the_records_are_written_in_several_scripts() -> None:
    text = "".join(text for _, text in every_id_and_text())
    for sample in ("Rückgeld", "ç", "ñ", "pás", "现货", "です", "السعر", "₹", "🚨"):
        assert sample in text, sample


@each_set
def test_every_address_in_the_records_is_reserved_for_examples(name: str) -> None:
    for rid, text in records_of(name):
        for word in text.replace("/", " ").split():
            if "@" in word.strip("@") and "." in word:
                domain = word.strip(".,;:)>").rpartition("@")[2]
                assert domain.endswith(("example.com", "example.org", "example.net")), (rid, word)


# The golden answers


@each_set
def test_every_golden_id_is_a_record_and_stands_once(name: str) -> None:
    golden = [row["id"] for row in golden_of(name)]
    assert len(set(golden)) == len(golden)
    assert set(golden) <= {rid for rid, _ in records_of(name)}


def test_only_what_cannot_be_answered_has_no_golden_answer() -> None:
    without = {rid for name in SETS for rid, _ in records_of(name) if rid not in {row["id"] for row in golden_of(name)}}
    assert without == {"P-1013", "P-1014", "T-2012", "T-2013"}


@each_set
def test_every_golden_answer_and_its_alternatives_are_valid_and_complete(name: str) -> None:
    model = load_schema(job_of(name).schema_spec)
    for row in golden_of(name):
        assert set(row) <= {"id", "expected", "accept", "free"}
        assert list(row["expected"]) == list(model.model_fields), row["id"]
        for answer in accepted(row):
            read_back = model.model_validate_json(json.dumps(answer)).model_dump(mode="json")
            assert read_back == answer, row["id"]


@each_set
def test_the_expected_value_is_the_first_that_is_accepted(name: str) -> None:
    for row in golden_of(name):
        for field, values in row.get("accept", {}).items():
            if isinstance(row["expected"][field], list):
                values = [words[0] for words in values]
                assert values == row["expected"][field], row["id"]
            else:
                assert values[0] == row["expected"][field], row["id"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("products", ("product_name", "key_features")),
        ("receipts", ("company",)),
        ("tickets", ("product", "customer_name", "contact_email", "order_number")),
    ],
)
def test_expected_words_stand_in_their_record(name: str, fields: tuple[str, ...]) -> None:
    texts: dict[str, str] = {}
    for rid, text in records_of(name):
        texts[rid] = texts.get(rid, "") + text
    for row in golden_of(name):
        for field in fields:
            value = row["expected"][field]
            for word in value if isinstance(value, list) else [value] if value is not None else []:
                assert word in texts[row["id"]], (row["id"], field, word)


def test_expected_addresses_stand_in_their_receipt_over_one_or_more_lines() -> None:
    for row in golden_of("receipts"):
        address = row["expected"]["address"]
        if address is not None:
            assert address in " ".join(text_of("receipts", row["id"]).split()), row["id"]


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("receipts_from_images", (), 4),
        ("nightly_tags", ("--batch-poll", "0.2"), 12),
    ],
)
def test_a_job_of_the_hosted_service_runs_against_the_simulator(
    name: str, options: tuple[str, ...], rows: int, tmp_path: Path
) -> None:
    simulator = [sys.executable, "-m", "tests.fakes.qwen", "--answer", "from-schema", "--rules", "documented", "--run"]
    quarry = [str(QUARRY), "run", f"examples/{name}.toml", "--out", str(tmp_path), "--json"]
    done = subprocess.run([*simulator, *quarry, *options], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [counts] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert counts["rows"] == rows
    assert counts["records"] == counts["rows"] + counts["failures"]


def test_the_simulator_ends_with_the_exit_code_of_what_it_runs() -> None:
    command = [sys.executable, "-m", "tests.fakes.qwen", "--run", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == 7


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_job_file_is_a_job_whose_source_and_schema_are_there(path: Path) -> None:
    job = ExtractionJob.from_toml(path)
    assert (ROOT / str(job.source)).exists()
    assert load_schema(job.schema_spec).model_fields
