"""JSON lines, exactly: a broken line is a record with a problem and its line number, the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.base import (
    Source,
    kept_columns,
    kept_schema,
    one_of,
    quoted,
    quoted_text,
    text_expression,
)

_BLOCK = 4 * 1024**2
_SAMPLE = 2000
_LINES = pa.schema([("file", pa.string()), ("number", pa.int64()), ("line", pa.string()), ("broken", pa.string())])


class JsonLines(Source):
    """One or more JSONL files. Columns are the keys seen in the first 2,000 lines; kept columns have the
    type that DuckDB sees there, other keys are read as text. Blank lines are no records."""

    def __init__(
        self, paths: Sequence[Path], *, where: str, id: str | None, text: str | None, keep: Sequence[str]
    ) -> None:
        self.description = where
        self._paths = list(paths)
        with duckdb.connect() as con:
            structure = self._structure(con)
            columns = {name: f"json_extract_string(line, {quoted_text(_pointer(name))})" for name in structure}
            texts = [name for name, kind in structure.items() if kind == "VARCHAR"]
            self._id = one_of(id, list(columns), where=where, option="--id") if id else None
            self._text = text_expression(text, columns, id=self._id, where=where, texts=texts)
            self._rid = columns[self._id] if self._id else "null::varchar"
            found = kept_columns(keep, list(columns), where=where)
            self._keys = {one.name: one.column for one in found}
            self._kept = {one.name: _typed(one.column, structure[one.column]) for one in found}
            self.kept = kept_schema(con, self._kept, "from (select '{}'::json as line)")

    def relation(self, con: duckdb.DuckDBPyConnection) -> str:
        """See ``Source.relation``. DuckDB reads the JSON; what it refuses is read once more by Python, which
        knows what is merely odd (lone surrogates) and says what is wrong with the rest."""
        con.register("quarry_lines", pa.RecordBatchReader.from_batches(_LINES, self._batches()))
        carried = "".join(
            f", case when good then {sql} end as {quoted(f'k_{name}')}" for name, sql in self._kept.items()
        )
        place = "file || ':' || number"
        return (
            f"select case when good then {self._rid} else {place} end as rid, null::integer as occ, "
            f"case when good then {self._text} end as txt, "
            "case when broken is not null then broken when not good then "
            "'the line is JSON, but not an object' end as problem, "
            f"case when not good then left(line, 2000) end as raw{carried} "
            "from (select *, broken is null and json_type(line) = 'OBJECT' as good from quarry_lines)"
        )

    def _structure(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        sample = []
        for batch in self._batches(block=256 * 1024):
            sample += [
                line
                for line, broken in zip(batch["line"].to_pylist(), batch["broken"].to_pylist(), strict=True)
                if broken is None
            ]
            if len(sample) >= _SAMPLE:
                break
        con.register("sample", pa.table({"line": sample[:_SAMPLE]}, schema=pa.schema([("line", pa.string())])))
        found = con.execute(
            "select json_group_structure(line::json) from sample where json_type(line) = 'OBJECT'"
        ).fetchall()[0]
        con.unregister("sample")
        structure = json.loads(found[0]) if found[0] else {}
        if not isinstance(structure, dict) or not structure:
            raise SourceError(f"{self.description} has no line with a JSON object; is it JSON lines?")
        return {name: kind if isinstance(kind, str) else json.dumps(kind) for name, kind in structure.items()}

    def _batches(self, *, block: int = _BLOCK) -> Iterator[pa.RecordBatch]:
        for path in self._paths:
            yield from _lines(path, block)


def _lines(path: Path, block: int) -> Iterator[pa.RecordBatch]:
    """Numbered lines of a file, in batches; the file's name stands with a line only to name it."""
    number, rest = 0, b""
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        while data := file.read(block):
            data = rest + data
            end = data.rfind(b"\n") + 1
            if not end:
                rest = data
                continue
            lines, rest = data[:end].split(b"\n")[:-1], data[end:]
            yield _numbered(path, number, lines)
            number += len(lines)
        if rest:
            yield _numbered(path, number, [rest])


def _numbered(path: Path, before: int, lines: list[bytes]) -> pa.RecordBatch:
    numbers, texts, broken = [], [], []
    for number, line in enumerate(lines, start=before + 1):
        line = line.strip()
        if not line:
            continue
        problem = None
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            problem = (
                f"line {number} of {path} is not UTF-8: byte {error.start} of the line is 0x{line[error.start]:02x}"
            )
            text = line.decode("utf-8", "replace")
        numbers.append(number)
        texts.append(text)
        broken.append(problem)
    _mend(path, numbers, texts, broken)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([path.name] * len(numbers)),
            pa.array(numbers, pa.int64()),
            pa.array(texts, pa.string()),
            pa.array(broken, pa.string()),
        ],
        schema=_LINES,
    )


def _mend(path: Path, numbers: list[int], texts: list[str], broken: list[str | None]) -> None:
    """Find the lines that DuckDB's reader will refuse, and say why; lone surrogates become U+FFFD."""
    for place in refused(texts):
        if broken[place] is not None:
            continue
        text = texts[place]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            broken[place] = f"line {numbers[place]} of {path} is not JSON: {error}"
            continue
        texts[place] = json.dumps(_whole(value), ensure_ascii=False)


def refused(texts: list[str]) -> list[int]:
    """The places of the texts that are not JSON for DuckDB."""
    with duckdb.connect() as con:
        con.register(
            "texts", pa.table({"n": pa.array(range(len(texts)), pa.int32()), "line": pa.array(texts, pa.string())})
        )
        return [row[0] for row in con.execute("select n from texts where not json_valid(line) order by n").fetchall()]


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return value


def _pointer(name: str) -> str:
    return '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _typed(name: str, kind: str) -> str:
    """A kept key with its own type; what does not fit it is null, as DuckDB's reader has it."""
    structure = json.dumps({name: json.loads(kind) if kind[:1] in "{[" else kind})
    return f"struct_extract(json_transform(line, {quoted_text(structure)}), {quoted_text(name)})"
