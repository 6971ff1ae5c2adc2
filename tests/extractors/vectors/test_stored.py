"""Vectors in an output: found by the text's hash, readable with DuckDB, whole after any end."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors.store import files
from extractors.vectors.stored import StoredVectors, TextVector, text_hash

SIZE = 4
QUERY = Path("docs/embeddings.md").read_text(encoding="utf-8").split("```sql\n")[1].split("```")[0]


def of(*values: float) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def entry(text: str, vector: bytes) -> TextVector:
    return TextVector(text_hash(text), len(text), len(text), vector)


def opened(out: Path, *, dimensions: int = SIZE) -> StoredVectors:
    return StoredVectors(out, model="text-embedding-v4", dimensions=dimensions)


def test_what_is_kept_is_found_again_by_another_process_s_reading(tmp_path: Path) -> None:
    opened(tmp_path).keep([entry("a", of(1, 0, 0, 0)), entry("b", of(0, 1, 0, 0.5))])
    again = opened(tmp_path)
    assert text_hash("a") in again
    assert again.load([text_hash("b"), text_hash("c")]) == {text_hash("b"): of(0, 1, 0, 0.5)}


def test_a_part_has_fixed_size_lists_of_float32_beside_hash_model_and_length(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep([entry("a", of(1, 2, 3, 4))])
    [path] = (tmp_path / "vectors" / "text-embedding-v4-4").glob("part-*.parquet")
    table = pq.read_table(path)
    assert pa.types.is_fixed_size_list(table.schema.field("vector").type)
    assert table.schema.field("vector").type.value_type == pa.float32()
    assert table.to_pylist() == [
        {
            "text_hash": text_hash("a"),
            "model": "text-embedding-v4",
            "dimensions": 4,
            "characters": 1,
            "embedded": 1,
            "vector": [1.0, 2.0, 3.0, 4.0],
        }
    ]


def test_the_documented_query_finds_the_nearest_texts(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep([entry("east", of(1, 0, 0, 0)), entry("north", of(0, 1, 0, 0)), entry("north east", of(1, 1, 0, 0))])
    query = (
        QUERY.replace("OUT/", f"{tmp_path}/")
        .replace("v4-1024", "v4-4")
        .replace("FLOAT[1024]", "FLOAT[4]")
        .replace("the text", "east")
    )
    found = duckdb.sql(query).fetchall()
    assert [row[0] for row in found] == [text_hash("east"), text_hash("north east"), text_hash("north")]
    assert [round(row[1], 4) for row in found] == [1.0, 0.7071, 0.0]


def test_small_parts_are_folded_into_one_when_the_output_is_opened_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for n in range(10):
        store.keep([entry(f"text {n}", of(n, 0, 0, 1))])
    again = opened(tmp_path)
    assert len(list(again.folder.glob("part-*.parquet"))) == 1
    assert again.load([text_hash("text 7")]) == {text_hash("text 7"): of(7, 0, 0, 1)}


def test_a_kill_while_folding_leaves_every_text_with_its_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    for n in range(5):
        store.keep([entry(f"text {n}", of(n, 0, 0, 1))])

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "remove", killed)
        opened(tmp_path)
    again = opened(tmp_path)
    hashes = [text_hash(f"text {n}") for n in range(5)]
    assert again.load(hashes) == {one: of(n, 0, 0, 1) for n, one in enumerate(hashes)}
    assert len(list(again.folder.glob("part-*.parquet"))) == 1


def test_a_part_that_was_cut_short_is_set_aside(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep([entry("a", of(1, 0, 0, 0))])
    [path] = store.folder.glob("part-*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    again = opened(tmp_path)
    assert text_hash("a") not in again
    assert [one.name for one in (store.folder / "quarantine").iterdir()] == [path.name]


def test_a_part_that_is_damaged_inside_is_set_aside_when_it_is_needed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep([entry("a", of(1, 0, 0, 0))])
    [path] = store.folder.glob("part-*.parquet")
    column = pq.ParquetFile(path).metadata.row_group(0).column(5)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    again = opened(tmp_path)
    assert text_hash("a") in again
    assert again.load([text_hash("a")]) == {}
    assert text_hash("a") not in again
    assert list(again.folder.glob("part-*.parquet")) == []


def test_lengths_and_models_have_folders_of_their_own(tmp_path: Path) -> None:
    opened(tmp_path).keep([entry("a", of(1, 0, 0, 0))])
    assert text_hash("a") not in opened(tmp_path, dimensions=8)
    other = StoredVectors(tmp_path, model="Qwen/Qwen3-Embedding-0.6B", dimensions=SIZE)
    assert text_hash("a") not in other
    assert other.folder.name == "Qwen_Qwen3-Embedding-0.6B-4"
