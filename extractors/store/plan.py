"""The plan: which records are new, which are identical, and in which chunks they are done.

An anti-join in DuckDB between the source and what commits say was decided. The source is read once, into a
scratch database on disk, so that a run works on one consistent snapshot; texts and kept columns are
fetched from there chunk by chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.base import Source, quoted
from schemas.records import FINGERPRINT_LENGTH, Record

_MEMORY = "200MB"
_READ_AHEAD = 2000
KEYS = pa.schema(
    [
        ("record_id", pa.string()),
        ("occurrence", pa.int32()),
        ("fingerprint", pa.string()),
        ("sequence", pa.int64()),
        ("is_row", pa.bool_()),
        ("part", pa.string()),
    ]
)
"""What planning needs of a committed outcome; ``part`` is the path of its Parquet file."""


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """``records`` = ``skipped_rows`` + ``skipped_failures`` + ``new``. Of the new ones ``distinct`` texts are
    asked, ``merged`` records are answered by another record's call, now or earlier (``reused`` texts), and
    ``problems`` cannot be asked. ``removed`` were decided once and are not in the source any more."""

    records: int
    skipped_rows: int
    skipped_failures: int
    new: int
    distinct: int
    merged: int
    reused: int
    duplicate_ids: int
    problems: int
    removed: int
    text_characters: int


@dataclass(frozen=True, slots=True)
class Group:
    """Records with one fingerprint; the first is asked, unless ``donor`` (a part) holds the answer."""

    records: tuple[Record, ...]
    donor: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records handled together: the unit of a task, of a part and of a commit."""

    chunk_id: str
    groups: tuple[Group, ...]

    @property
    def size(self) -> int:
        """The number of records."""
        return sum(len(group.records) for group in self.groups)

    def first(self, most: int) -> Chunk:
        """A chunk of the first groups, ``most`` records at most; a group is not divided."""
        taken: list[Group] = []
        for group in self.groups:
            if len(group.records) <= most:
                taken.append(group)
                most -= len(group.records)
        return Chunk.of(taken)

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Chunk:
        """A chunk named by its content."""
        return cls(chunk_name([record for group in groups for record in group.records]), tuple(groups))


@dataclass(frozen=True, slots=True)
class RetrySelection:
    """The failures to ask again, as a table of ``record_id`` and ``occurrence``."""

    records: pa.Table

    @classmethod
    def of(cls, failures: pa.Table) -> RetrySelection:
        """From rows of the ledger."""
        return cls(failures.select(["record_id", "occurrence"]))


def chunk_name(records: Iterable[Record]) -> str:
    """16 hex digits over the records' ids, occurrences and fingerprints: the same content, the same name."""
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda one: (one.record_id, one.occurrence)):
        digest.update(
            f"{record.record_id}\x00{record.occurrence}\x00{record.fingerprint}\x01".encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]


class Plan:
    """What is to be done. A context manager: leaving it deletes the scratch database."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, path: Path, counts: PlanCounts, kept: pa.Schema, size: int
    ) -> None:
        self.counts = counts
        self.kept = kept
        self._con = con
        self._path = path
        self._size = size

    @classmethod
    def make(
        cls,
        source: Source,
        keys: Iterable[pa.RecordBatch],
        *,
        scratch: Path,
        chunk_size: int,
        retry: RetrySelection | None = None,
    ) -> Plan:
        """Read the source and compare. ``keys`` are batches of ``KEYS``. Raises ``SourceError``."""
        scratch.mkdir(parents=True, exist_ok=True)
        path = scratch / "plan.duckdb"
        con = duckdb.connect(
            str(path),
            config={
                "memory_limit": _MEMORY,
                "temp_directory": str(scratch / "spill"),
                "threads": 2,
                "preserve_insertion_order": True,
            },
        )
        try:
            _stage(con, source)
            _compare(con, keys, retry)
            counts = _count(con)
        except duckdb.Error as error:
            con.close()
            raise SourceError(f"{source.description} cannot be read: {str(error).split(chr(10), 1)[0]}") from error
        except BaseException:
            con.close()
            raise
        return cls(con, path, counts, source.kept, chunk_size)

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close and delete the scratch database."""
        self._con.close()
        self._path.unlink(missing_ok=True)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in source order, each with exactly ``chunk_size`` groups but the last. All records of
        one fingerprint are in one group."""
        waiting: list[Group] = []
        for group in self._groups():
            waiting.append(group)
            if len(waiting) == self._size:
                yield Chunk.of(waiting)
                waiting = []
        if waiting:
            yield Chunk.of(waiting)

    def sample(self, most: int) -> list[str]:
        """The texts of up to ``most`` groups that are to be asked, chosen by their fingerprints' order."""
        found = self._con.execute(
            "select s.txt from todo t join staged s using (n) where t.leads and t.donor is null and s.problem is null "
            "order by t.f limit ?",
            [most],
        ).fetchall()
        return [row[0] for row in found]

    def _groups(self) -> Iterator[Group]:
        reader = self._con.cursor()
        after = -1
        while True:
            leaders = reader.execute(
                "select n, f, donor, follows from todo where leads and n > ? order by n limit ?", [after, _READ_AHEAD]
            ).fetchall()
            if not leaders:
                return
            last = leaders[-1][0]
            records = self._records(reader, "n in (select n from todo where leads and n > ? and n <= ?)", [after, last])
            for n, f, donor, follows in leaders:
                others: list[Record] = []
                if follows:
                    others = list(
                        self._records(reader, "n in (select n from todo where not leads and f = ?)", [f]).values()
                    )
                yield Group((records[n], *others), donor)
            after = last

    def _records(self, con: duckdb.DuckDBPyConnection, where: str, values: list[Any]) -> dict[int, Record]:
        names = [field.name for field in self.kept]
        table = con.sql(f"select * from staged where {where} order by n", params=values).to_arrow_table()
        kept = [
            table.column(quoted_name).cast(field.type).to_pylist()
            for field, quoted_name in zip(self.kept, (f"k_{name}" for name in names), strict=True)
        ]
        columns = [table.column(name).to_pylist() for name in ("n", "rid", "occ", "fp", "txt", "problem")]
        found = {}
        for place, (n, rid, occurrence, fingerprint, text, problem) in enumerate(zip(*columns, strict=True)):
            found[n] = Record(
                record_id=rid,
                text=text or "",
                fingerprint=fingerprint,
                occurrence=occurrence,
                kept={name: column[place] for name, column in zip(names, kept, strict=True)},
                problem=problem,
            )
        return found


def _stage(con: duckdb.DuckDBPyConnection, source: Source) -> None:
    """The source as a table: n, rid, occ, fp, txt, problem, k_*; k hashes the record's identity."""
    sql = source.relation(con)
    kept = "".join(f", {quoted(f'k_{field.name}')}" for field in source.kept)
    con.execute(f"create table raw as select row_number() over () as n, * from ({sql})")
    extra = source.leftovers(con)
    if extra is not None:
        con.execute(
            f"insert into raw by position select (select coalesce(max(n), 0) from raw) + row_number() over (), * from ({extra})"
        )
    con.execute(
        "create table named as select n, rid, occ, txt, raw, case when problem is not null then problem "
        "when txt is null then 'the text is null' when trim(txt, chr(32) || chr(9) || chr(10) || chr(13)) = '' "
        f"then 'the text is empty' end as problem{kept} from raw"
    )
    con.execute("drop table raw")
    fingerprint = (
        f"left(sha256(case when problem is null then txt else 'problem' || chr(0) || problem || chr(0) || coalesce(raw, txt, '') end), "
        f"{FINGERPRINT_LENGTH})"
    )
    con.execute(
        f"create table printed as select n, coalesce(rid, 'c-' || left(fp, 16)) as rid, occ, fp, "
        f"case when problem is null then txt else coalesce(raw, txt) end as txt, problem{kept} "
        f"from (select *, {fingerprint} as fp from named)"
    )
    con.execute("drop table named")
    con.execute(
        "create table doubles as select n, (row_number() over (partition by rid order by n) - 1)::integer as counted "
        "from printed where occ is null and hash(rid) in (select hash(rid) from printed where occ is null group by hash(rid) having count(*) > 1)"
    )
    con.execute(
        "create table staged as select p.* replace (coalesce(p.occ, d.counted, 0) as occ) from printed p "
        "left join doubles d using (n)"
        if con.execute("select count(*) from doubles").fetchall() != [(0,)]
        else "create table staged as select * replace (coalesce(occ, 0) as occ) from printed"
    )
    con.execute("drop table printed")
    con.execute(
        "create table identity as select n, md5_number(rid || chr(0) || occ) as k, md5_number(fp) as f from staged"
    )


def _compare(con: duckdb.DuckDBPyConnection, keys: Iterable[pa.RecordBatch], retry: RetrySelection | None) -> None:
    """``todo``: n, f, leads (asks for its fingerprint), follows (how many more have it), donor."""
    con.execute("create table parts (id integer, path varchar)")
    con.execute("create table decided (k uhugeint, f uhugeint, sequence bigint, is_row boolean, part integer)")
    parts: dict[str, int] = {}
    for batch in keys:
        for path in batch.column("part").unique().to_pylist():
            if path not in parts:
                parts[path] = len(parts)
        numbers = pa.array([parts[path] for path in batch.column("part").to_pylist()], pa.int32())
        con.register("batch", batch.append_column("number", numbers))
        con.execute(
            "insert into decided select md5_number(record_id || chr(0) || occurrence), md5_number(fingerprint), "
            "sequence, is_row, number from batch"
        )
        con.unregister("batch")
    if parts:
        con.register("paths", pa.table({"id": pa.array(parts.values(), pa.int32()), "path": list(parts)}))
        con.execute("insert into parts select * from paths")
        con.unregister("paths")
    con.execute(
        "create table current as select k, arg_max(f, sequence) as f, arg_max(is_row, sequence) as is_row from decided group by k"
    )
    if retry is not None:
        con.register("selected", retry.records)
        con.execute(
            "create table wanted as select i.n from identity i semi join "
            "(select md5_number(record_id || chr(0) || occurrence) as k from selected) s using (k) "
            "join current c using (k) where not c.is_row"
        )
        con.unregister("selected")
        # A retry is about these records only: the rest of the source is not counted.
        con.execute("delete from identity where n not in (select n from wanted)")
        donors = "where is_row"
        con.execute("create table fresh as select n, f from identity")
    else:
        donors = ""
        con.execute("create table fresh as select n, f from identity i anti join current c on i.k = c.k and i.f = c.f")
    con.execute(
        f"create table donors as select f, arg_max(part, (is_row::integer) * 1000000000000 + sequence) as part from decided {donors} "
        f"{'and' if donors else 'where'} f in (select f from fresh) group by f"
    )
    con.execute("create table groups as select f, min(n) as first, count(*) - 1 as follows from fresh group by f")
    con.execute(
        "create table todo as select fresh.n, fresh.f, fresh.n = g.first as leads, g.follows, p.path as donor from fresh "
        "join groups g using (f) left join donors d using (f) left join parts p on p.id = d.part order by fresh.n"
    )
    con.execute("drop table groups; drop table fresh; drop table donors")


def _count(con: duckdb.DuckDBPyConnection) -> PlanCounts:
    def one(sql: str) -> tuple[Any, ...]:
        return tuple(con.execute(sql).fetchall()[0])

    records, duplicates = one(
        "select count(*), (select count(*) from doubles where counted > 0 and n in (select n from identity)) from identity"
    )
    new, groups, reused = one(
        "select count(*), count(*) filter (leads), count(*) filter (leads and donor is not null) from todo"
    )
    problems, problem_groups, characters = one(
        "select count(*) filter (problem is not null), count(*) filter (problem is not null and t.leads), "
        "coalesce(sum(length(txt)) filter (problem is null and t.leads and t.donor is null), 0) "
        "from todo t join staged s using (n)"
    )
    skipped_rows, skipped_failures = one(
        "select count(*) filter (c.is_row), count(*) filter (not c.is_row) from identity i join current c on i.k = c.k and i.f = c.f "
        "where i.n not in (select n from todo)"
    )
    (removed,) = one("select count(*) from current c anti join identity i using (k)")
    return PlanCounts(
        records=records,
        skipped_rows=skipped_rows,
        skipped_failures=skipped_failures,
        new=new,
        distinct=groups - reused - problem_groups,
        merged=new - groups + reused,
        reused=reused,
        duplicate_ids=duplicates,
        problems=problems,
        removed=removed,
        text_characters=int(characters),
    )
