"""Planning: which records of a source are to do, in which chunks.

The source is staged once into a scratch database on disk; an anti-join with the committed outcomes leaves
what is to do; identical texts are grouped; groups are cut into chunks in source order. Everything large
stays in DuckDB, under a small memory limit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from extractors.errors import OutputError, SourceError
from extractors.sources import Source
from extractors.sources.pictures import pictures_of
from extractors.sources.source import out_of_memory
from extractors.store.current import CurrentOutcomes, current_outcomes, fingerprint_sql, identity_sql
from schemas.records import Record

logger = logging.getLogger(__name__)
_SCHEMA = "quarry_plan.main"
_STAGED, _JUDGED = f"{_SCHEMA}.staged", f"{_SCHEMA}.judged"
_LEADERS, _FOLLOWERS = f"{_SCHEMA}.leaders", f"{_SCHEMA}.followers"
_MEMORY = ("96MB", "1GB", "4GB")
_READING_MEMORY = ("32MB", *_MEMORY)
"""While the chunks are read, for the whole of the run: what is read once is not kept in memory beside the model's work."""
_WINDOW_GROUPS = 5_000
_WINDOW_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """What the plan found, in records unless said otherwise.

    ``records = skipped_rows + skipped_failures + new`` and ``new = distinct + unaskable + merged``, where
    ``distinct`` counts the texts to ask and ``unaskable`` the different bad inputs. ``merged`` records are
    answered by an identical record of this plan or of an earlier commit; ``reused`` counts the texts of the
    latter. ``problems`` are the new records that cannot be asked. ``duplicate_ids`` are records of the
    source whose id an earlier one has. ``removed`` were committed and are not in the source any more (for
    a retry: were selected and are not there). ``text_characters`` adds up the texts to ask.
    """

    records: int
    skipped_rows: int
    skipped_failures: int
    new: int
    distinct: int
    merged: int
    reused: int
    unaskable: int
    duplicate_ids: int
    problems: int
    removed: int
    text_characters: int


@dataclass(frozen=True, slots=True)
class Group:
    """Records of one fingerprint; the first is the one asked. ``donor`` is the path of a committed part
    that holds this fingerprint's outcome already."""

    records: tuple[Record, ...]
    donor: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Groups that are answered and committed together."""

    chunk_id: str
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Chunk:
        """A chunk named by its content."""
        return cls(chunk_name([record for group in groups for record in group.records]), tuple(groups))

    @property
    def size(self) -> int:
        """Its records."""
        return sum(len(group.records) for group in self.groups)

    def first(self, most: int) -> Chunk:
        """The chunk of its first ``most`` records; the last group may be cut."""
        taken: list[Group] = []
        for group in self.groups:
            if most <= 0:
                break
            taken.append(Group(group.records[:most], group.donor))
            most -= len(group.records)
        return Chunk.of(taken)


@dataclass(frozen=True, slots=True)
class ToAsk:
    """The texts that a plan would ask: how many, their characters, and a digest of which they are.

    ``characters`` has the length of the first few by fingerprint: as fingerprints are hashes, a simple random
    sample of them all, and the same one every time."""

    texts: int
    total: int
    digest: int
    characters: Mapping[str, int]

    def without_those(self) -> ToAsk:
        """What is left when the first few are done."""
        digest = self.digest
        for fingerprint in self.characters:
            digest ^= int(fingerprint, 16)
        return ToAsk(
            self.texts - len(self.characters), self.total - sum(self.characters.values()), digest, characters={}
        )


@dataclass(frozen=True, slots=True)
class RetrySelection:
    """The records to ask again: ``identities`` has record_id and occurrence. Those whose current outcome
    is no failure (any more) are left out by the plan."""

    identities: pa.Table

    @classmethod
    def of(cls, failures: pa.Table) -> RetrySelection:
        """From ledger entries, or any table with record_id and occurrence."""
        return cls(failures.select(["record_id", "occurrence"]))


def chunk_name(records: Sequence[Record]) -> str:
    """16 hex digits of SHA-256 over the records' ids, occurrences and fingerprints: the same records make
    the same name in any process, in whatever order they were finished."""
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda one: (one.record_id, one.occurrence)):
        name = record.record_id.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b %d %b\n" % (len(name), name, record.occurrence, record.fingerprint.encode()))
    return digest.hexdigest()[:16]


class Plan:
    """A plan and its scratch database. A context manager: leaving it deletes the scratch files."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        *,
        counts: PlanCounts,
        kept: pa.Schema,
        chunk_size: int,
        outcomes: CurrentOutcomes,
    ) -> None:
        self.counts = counts
        self.kept = kept
        self._con = con
        self._folder = folder
        self._chunk_size = chunk_size
        self._outcomes = outcomes

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
        """Read the source and plan it. ``keys`` are batches of ``extractors.store.commits.KEYS``.

        Raises ``SourceError``, and ``OutputError`` when ``scratch`` is full.

        A record is skipped when its current outcome has its fingerprint. With ``retry``, just the selected
        records whose current outcome is a failure are planned, and only rows are donors.
        """
        _clean(scratch)
        folder = scratch / f"plan-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        con: duckdb.DuckDBPyConnection | None = None
        try:
            con = _staged(source, folder)
            return _made(con, folder, source, keys, chunk_size=chunk_size, retry=retry)
        except (duckdb.Error, SourceError) as error:
            _remove(con, folder)
            # A full disk shows as an error of whatever was being written, the source's copy included.
            trouble = error if isinstance(error, duckdb.Error) else error.__cause__
            if isinstance(trouble, duckdb.IOException) or str(folder) in str(trouble):
                told = str(trouble).splitlines()[0]
                raise OutputError(
                    f"planning cannot write to {scratch}: {told}; what was committed is safe: make room and run it again"
                ) from error
            raise
        except BaseException:
            _remove(con, folder)
            raise

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the scratch files."""
        _remove(self._con, self._folder)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in source order (of each group's first record), each of exactly ``chunk_size`` groups
        but the last. Memory holds about one chunk and 8 MB of texts."""
        groups = self._groups()
        while some := list(islice(groups, self._chunk_size)):
            yield Chunk.of(some)

    def sample(self, most: int) -> list[str]:
        """Up to ``most`` of the texts to ask, by fingerprint order: unbiased, and the same every time."""
        # The texts are fetched for the chosen few only.
        found = self._read(
            f"select text from {_STAGED} s where s.rowid in (select ord from {_LEADERS} where asked "
            "order by fingerprint limit $most) order by fingerprint",
            {"most": most},
            limits=_MEMORY,
        )
        texts: list[str] = found.column("text").to_pylist()
        return texts

    def to_ask(self, first: int) -> ToAsk:
        """What there is to ask, with the ``first`` texts by fingerprint."""
        con = self._con.cursor()
        [(texts, total, digest)] = con.execute(
            f"select count(*), coalesce(sum(characters), 0)::bigint, coalesce(bit_xor(fingerprint), 0)::varchar "
            f"from {_LEADERS} where asked"
        ).fetchall()
        few = con.execute(
            f"select fingerprint::varchar, coalesce(characters, 0) from {_LEADERS} where asked order by fingerprint limit ?",
            [first],
        ).fetchall()
        return ToAsk(texts, total, int(digest), {f"{int(one):032x}": length for one, length in few})

    def restrict(self, fingerprints: Collection[str]) -> int:
        """Leave only these texts' groups in ``chunks``; ``counts`` stay those of the whole plan. Returns the
        number of records that are left."""
        listed = ", ".join(f"{int(one, 16)}::uhugeint" for one in fingerprints)
        self._con.execute(f"delete from {_LEADERS} where not asked or fingerprint not in ({listed or 'null'})")
        self._con.execute(f"delete from {_FOLLOWERS} where n not in (select n from {_LEADERS})")
        return _number(self._con, f"select coalesce(sum(1 + followers), 0) from {_LEADERS}")

    def _groups(self) -> Iterator[Group]:
        windows = self._read(
            "select min(n) as first, max(n) as last, min(ord) as first_ord, max(ord) as last_ord, sum(followers)::bigint as more "
            f"from (select *, sum(bytes) over (order by n) // {_WINDOW_BYTES} as size from {_LEADERS}) "
            f"group by size, n // {_WINDOW_GROUPS} order by 1",
            {},
            limits=_MEMORY,
        )
        kept = "".join(f", k{number}" for number in range(len(self.kept)))
        for first, last, first_ord, last_ord, followers in zip(
            *(one.to_pylist() for one in windows.columns), strict=True
        ):
            leaders = self._read(
                f"select n, record_id, occurrence, s.fingerprint, problem, text, image, donor, followers{kept} from {_STAGED} s "
                f"join {_LEADERS} l on s.rowid = l.ord where s.rowid between $a and $b and l.n between $x and $y order by n",
                {"a": first_ord, "b": last_ord, "x": first, "y": last},
            )
            more = self._followers(first, last, kept) if followers else None
            rows = zip(*(leaders.column(place).to_pylist() for place in range(9)), self._kept(leaders, 9), strict=True)
            for _, record_id, occurrence, fingerprint, problem, text, image, donor, count, values in rows:
                images, document = pictures_of(image)
                lead = Record(record_id, text, fingerprint, occurrence, values, problem, images, document)
                records = [lead]
                if count and more is not None:
                    records += [
                        Record(other, text, fingerprint, number, its, problem, images, document)
                        for other, number, its in islice(more, count)
                    ]
                yield Group(tuple(records), None if donor is None else self._outcomes.path(donor))

    def _followers(self, first: int, last: int, kept: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """The other records of groups ``first`` to ``last``: id, occurrence, kept values."""
        table = self._read(
            f"select record_id, occurrence{kept} from {_FOLLOWERS} where n between $x and $y order by n, ord",
            {"x": first, "y": last},
        )
        return zip(table.column(0).to_pylist(), table.column(1).to_pylist(), self._kept(table, 2), strict=True)

    def _read(self, sql: str, params: dict[str, int], *, limits: Sequence[str] | None = None) -> pa.Table:
        """What a query finds, under the first of some memory limits that is enough for it: a window of very long
        texts, or the windows of millions of records, need more than the usual."""
        limits = limits or _READING_MEMORY
        for limit in limits:
            try:
                self._con.execute(f"set memory_limit = '{limit}'")
                return self._con.cursor().sql(sql, params=params).to_arrow_table()
            except duckdb.Error as error:
                if limit == limits[-1] or not out_of_memory(error):
                    raise
                logger.debug("reading the plan needs more than %s of memory", limit)
        raise AssertionError("no limit at all")

    def _kept(self, table: pa.Table, offset: int) -> list[dict[str, Any]]:
        """Each row's kept values by name."""
        if not len(self.kept):
            return [{} for _ in range(table.num_rows)]
        names = self.kept.names
        columns = [table.column(offset + place).to_pylist() for place in range(len(names))]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _made(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    source: Source,
    keys: Iterable[pa.RecordBatch],
    *,
    chunk_size: int,
    retry: RetrySelection | None,
) -> Plan:
    outcomes = current_outcomes(con, keys, schema=_SCHEMA)
    duplicates = _judge(con, outcomes, retry)
    _group(con, outcomes, len(source.kept), rows_only=retry is not None)
    counts = _counts(con, outcomes, duplicates=duplicates, retry=retry)
    return Plan(con, folder, counts=counts, kept=source.kept, chunk_size=chunk_size, outcomes=outcomes)


def _staged(source: Source, folder: Path) -> duckdb.DuckDBPyConnection:
    """A scratch database with the table ``staged``.

    Texts of megabytes each need more memory than the usual limit, to be written or to be made durable (which
    leaves the database unusable when it fails). The source is then read again from its start, into a new one, and the
    larger limit stays for the tables that are made from it."""
    for limit in _MEMORY:
        con = duckdb.connect()
        try:
            con.execute(f"set threads = {min(4, os.cpu_count() or 1)}")
            con.execute(f"set temp_directory = '{_escaped(folder / 'spill')}'")
            con.execute(f"set memory_limit = '{limit}'")
            con.execute(f"attach '{_escaped(folder / f'plan-{limit}.duckdb')}' as quarry_plan")
            if source.pictures is not None:
                source.pictures.scratch = folder / "pictures"
            source.stage(con, _STAGED)
            con.execute("checkpoint quarry_plan")
            return con
        except duckdb.Error as error:
            con.close()
            if limit == _MEMORY[-1] or not out_of_memory(error):
                raise
            logger.info("reading %s needs more than %s of memory", source.place, limit)
            for file in folder.glob(f"plan-{limit}.*"):
                file.unlink()
        except BaseException:
            con.close()
            raise
    raise AssertionError("no limit at all")


def _judge(con: duckdb.DuckDBPyConnection, outcomes: CurrentOutcomes, retry: RetrySelection | None) -> int:
    """Table ``judged``: every record with its occurrence and, when it is done already, the part that says so.
    Returns how many records share their id with an earlier one."""
    con.execute(
        f"create table {_SCHEMA}.again as select s.rowid as ord, "
        "(row_number() over (partition by record_id order by s.rowid) - 1)::integer as occurrence "
        f"from {_STAGED} s where given is null and hash(record_id) in "
        f"(select h from (select hash(record_id) as h from {_STAGED} where given is null) group by h having count(*) > 1)"
    )
    duplicates = _number(con, f"select count(*) from {_SCHEMA}.again where occurrence > 0")
    # The join for occurrences is left out where it would only find zeros, which is nearly always.
    join = f"left join {_SCHEMA}.again a on s.rowid = a.ord" if duplicates else ""
    occurrence = "coalesce(given, a.occurrence, 0)" if duplicates else "coalesce(given, 0)"
    record = (
        f"select s.rowid as ord, {occurrence} as occurrence, {identity_sql('record_id', occurrence)} as identity, "
        f"{fingerprint_sql('fingerprint')} as fingerprint, problem is not null as broken, characters, bytes from {_STAGED} s {join}"
    )
    if retry is None:
        con.execute(
            f"create table {_JUDGED} as select r.* exclude (identity), c.identity is not null as known, "
            f"case when c.fingerprint = r.fingerprint then c.part end as part from ({record}) r "
            f"left join {outcomes.current} c on r.identity = c.identity"
        )
        return duplicates
    con.register("quarry_retry", retry.identities)
    con.execute(
        f"create table {_JUDGED} as select r.* exclude (identity), true as known, null::bigint as part "
        f"from ({record}) r semi join (select identity from {outcomes.current} where part % 2 = 1 and identity in "
        f"(select {identity_sql('record_id', 'occurrence')} from quarry_retry)) c on r.identity = c.identity"
    )
    con.unregister("quarry_retry")
    return duplicates


def _group(con: duckdb.DuckDBPyConnection, outcomes: CurrentOutcomes, kept: int, *, rows_only: bool) -> None:
    """Tables ``leaders`` (a group's first record; ``n`` numbers them in source order) and ``followers``."""
    con.execute(
        f"create table {_SCHEMA}.several as select fingerprint, min(ord) as lead, count(*) - 1 as followers from {_JUDGED} "
        "where part is null group by fingerprint having count(*) > 1"
    )
    con.execute(
        f"create table {_SCHEMA}.donors as select fingerprint, "
        f"coalesce(max(part) filter (part % 2 = 0), max(part)) as part from {outcomes.outcomes} "
        f"where fingerprint in (select fingerprint from {_JUDGED} where part is null and not broken)"
        f"{' and part % 2 = 0' if rows_only else ''} group by fingerprint"
    )
    con.execute(
        f"create table {_LEADERS} as select row_number() over (order by j.ord) - 1 as n, j.ord, j.occurrence, j.fingerprint, "
        "j.broken, d.part as donor, d.part is null and not j.broken as asked, coalesce(m.followers, 0) as followers, "
        f"j.characters, j.bytes from {_JUDGED} j "
        f"left join {_SCHEMA}.several m on m.fingerprint = j.fingerprint "
        f"left join {_SCHEMA}.donors d on d.fingerprint = j.fingerprint "
        "where j.part is null and (m.lead is null or m.lead = j.ord) order by j.ord"
    )
    columns = "".join(f", s.k{number}" for number in range(kept))
    con.execute(
        f"create table {_FOLLOWERS} as select l.n, j.ord, s.record_id, j.occurrence{columns} from {_JUDGED} j "
        f"join {_SCHEMA}.several m on m.fingerprint = j.fingerprint and j.ord > m.lead "
        f"join {_LEADERS} l on l.ord = m.lead join {_STAGED} s on s.rowid = j.ord where j.part is null order by l.n, j.ord"
    )


def _counts(
    con: duckdb.DuckDBPyConnection, outcomes: CurrentOutcomes, *, duplicates: int, retry: RetrySelection | None
) -> PlanCounts:
    records, rows, failures, new, problems, known = con.execute(
        "select count(*), count(*) filter (part % 2 = 0), count(*) filter (part % 2 = 1), count(*) filter (part is null), "
        f"count(*) filter (part is null and broken), count(*) filter (known) from {_JUDGED}"
    ).fetchall()[0]
    groups, distinct, reused, unaskable, characters = con.execute(
        "select count(*), count(*) filter (asked), count(donor), count(*) filter (broken), "
        f"coalesce(sum(characters) filter (asked), 0)::bigint from {_LEADERS}"
    ).fetchall()[0]
    expected = retry.identities.num_rows if retry else _number(con, f"select count(*) from {outcomes.current}")
    return PlanCounts(
        records=records,
        skipped_rows=rows,
        skipped_failures=failures,
        new=new,
        distinct=distinct,
        merged=new - groups + reused,
        reused=reused,
        unaskable=unaskable,
        duplicate_ids=duplicates,
        problems=problems,
        removed=max(0, expected - known),
        text_characters=characters,
    )


def _clean(scratch: Path) -> None:
    """Delete what killed runs left behind; a living process keeps its own."""
    for folder in scratch.glob("plan-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(con: duckdb.DuckDBPyConnection | None, folder: Path) -> None:
    if con is not None:
        con.close()
    shutil.rmtree(folder, ignore_errors=True)


def _number(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    # Not fetchone: a result that is not read to its end keeps the connection busy.
    return int(con.execute(sql).fetchall()[0][0])


def _escaped(path: Path) -> str:
    return str(path.resolve()).replace("'", "''")
