"""``catalog.duckdb``: views over the parts that count, and reading them without it.

*Current* means: of all outcomes of a (record id, occurrence) under a recipe, the one whose commit has
the highest sequence. A current row is in ``<name>``, a current failure in ``<name>_failures``; so a later
row closes a failure. So does a person's decision to ignore it; ``<name>_reviews`` has all decisions. ``<name>_calls``
has every call, ``<name>_doubtful`` the values to look at, ``runs`` every run, and ``<name>_<column>`` the elements of a
list of objects. A name that is taken gets an underscore at its end.

Views hold absolute paths and are made anew after each run: a moved folder needs a run to be queried through
the catalog's file (the functions here, and the Parquet files, need nothing). Where the recipes of a schema
disagree about a column that is nested in one of them, the views show it as JSON text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from extractors.errors import JobError, OutputError
from extractors.store import files, layout, reviews
from extractors.store.commits import Commit, load_commits
from extractors.store.objects import ObjectPath, known_to_duckdb
from extractors.store.parts import KEPT_KEY, VIEW_COLUMNS
from schemas.ledger import CALLS, FAILURES_FIXED

logger = logging.getLogger(__name__)
_FILE = "_quarry_file"
_NESTED = ("list", "struct", "map", "array", "union")
_GROWING = ("_evidence", "_meta")
"""Our own nested columns: later versions add fields to them, which are null in what an earlier one wrote."""
_Folders = Mapping[str, Sequence[Path]]


@dataclass(frozen=True, slots=True)
class Holding:
    """What an output folder holds of one recipe: current rows, open failures, failures that a person decided to
    ignore, calls."""

    name: str
    recipe: str
    rows: int
    failures: int
    calls: int
    ignored: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "rows": self.rows,
            "failures": self.failures,
            "ignored": self.ignored,
            "calls": self.calls,
        }


def build_catalog(out: str | Path, *, at: str | Path | None = None) -> Path | None:
    """Make the catalog's file anew: written beside the old one and renamed over it. It is ``OUT/catalog.duckdb``,
    or ``at``; on an object store, where DuckDB cannot write one, just ``at``. Raises ``OutputError``."""
    root = files.place(out).resolve()
    folders = layout.recipe_folders(root)
    if at is None and files.is_remote(root):
        return None
    target = Path(at).resolve() if at is not None else root / layout.CATALOG
    files.make_folder(target.parent)
    temp = files.temporary(target)
    files.remove(temp)
    try:
        with duckdb.connect(str(temp)) as con:
            _Views(con, root).define(folders)
        files.rename(temp, target)
    except OSError as error:
        raise files.explained(error, target) from error
    except duckdb.Error as error:
        raise OutputError(f"{target} cannot be made ({error}); the Parquet files beside it are whole") from error
    finally:
        files.remove(temp)
    return target


def query(out: str | Path, sql: str) -> pa.Table:
    """Run SQL over the views as they are now, whatever the catalog's file says; no run is disturbed.

    Raises ``JobError`` for SQL that DuckDB refuses or that has no result, ``OutputError`` for a folder that
    is not an output.
    """
    root = files.place(out).resolve()
    return _query(root, layout.recipe_folders(root), sql)


def current_rows(out: str | Path, *, name: str | None = None, recipe: str | None = None) -> pa.Table:
    """The current rows of a schema (of the only one, when there is one). Raises ``OutputError``."""
    root = files.place(out).resolve()
    name, folders = _chosen(root, name, recipe)
    return _query(root, folders, f"select * from {_quoted(name)} order by record_id, _meta.occurrence")


def open_failures(
    out: str | Path, *, name: str | None = None, recipe: str | None = None, where: str | None = None
) -> pa.Table:
    """The open ledger entries; ``where`` is a SQL condition on their columns. Raises ``JobError``."""
    root = files.place(out).resolve()
    name, folders = _chosen(root, name, recipe)
    condition = f"where (\n{where}\n)" if where else ""
    view = _quoted(f"{name}_failures")
    return _query(root, folders, f"select * from {view} {condition} order by record_id, occurrence")


@contextmanager
def opened(out: str | Path, *, name: str, recipe: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of one's own with the views of one recipe, for reading that is more than one query, or too
    large for memory. ``quarry.<name>_rows``, ``_failures`` and ``_calls`` have all that was ever committed.

    Raises ``OutputError``.
    """
    root = files.place(out).resolve()
    _, folders = _chosen(root, name, recipe)
    with duckdb.connect() as con:
        _Views(con, root).define(folders)
        yield con


def outputs(out: str | Path) -> list[Holding]:
    """What the folder holds, one entry for each recipe."""
    root = files.place(out).resolve()
    found = []
    for name, folders in layout.recipe_folders(root).items():
        for folder in folders:
            # In one pass over the identities, where the views would take two.
            [counts] = _query(
                root,
                {name: [folder]},
                "select count(*) filter (is_row) as rows, count(*) filter (not is_row) as failures, "
                "(select coalesce(sum(rows), 0)::bigint from quarry.commits where kind = 'calls') as calls from ("
                f"select arg_max(is_row, sequence) as is_row from quarry.{_quoted(f'{name}_outcomes')} "
                "group by record_id, occurrence)",
            ).to_pylist()
            # A failure that was ignored and then closed by a row is not among the failures any more.
            ignored = _ignored(root, name, folder)
            failures = counts["failures"] - ignored
            found.append(Holding(name, layout.short_id(folder), counts["rows"], failures, counts["calls"], ignored))
    return found


def _ignored(root: Path, name: str, folder: Path) -> int:
    """Failures that are current, and not open because a person ignored them."""
    if not any(one.action == "ignored" for one in reviews.latest(reviews.read(folder)).values()):
        return 0
    counted = _query(
        root,
        {name: [folder]},
        f"select count(*) as n from quarry.{_quoted(f'{name}_standing')} f semi join quarry.ignored i on i.name = "
        f"{_text(name)} and f.record_id = i.record_id and f.occurrence = i.occurrence and f.quarry_sequence = i.sequence",
    )
    return int(counted.to_pylist()[0]["n"])


def mean_output_tokens(out: str | Path, *, name: str, recipe: str) -> float | None:
    """Output tokens of a record on average over the recipe's first 200 commits, corrections included; None
    without any."""
    commits = load_commits(files.place(out) / name / f"recipe={recipe}", verify="size")[:200]
    asked = sum(commit.records - commit.merged for commit in commits)
    return sum(commit.usage.output_tokens for commit in commits) / asked if asked else None


def _query(root: Path, folders: _Folders, sql: str) -> pa.Table:
    with duckdb.connect() as con:
        _Views(con, root).define(folders)
        try:
            relation = con.sql(sql)
            if relation is None:
                raise JobError("the query has no result: give a SELECT")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise JobError(f"DuckDB refuses the query: {error}") from error


def _chosen(root: Path, name: str | None, recipe: str | None) -> tuple[str, _Folders]:
    folders = layout.recipe_folders(root)
    if name is None:
        if len(folders) != 1:
            raise OutputError(f"{root} holds {', '.join(folders) or 'no schema'}: say which one")
        [name] = folders
    if name not in folders:
        raise OutputError(f"{root} holds no schema {name!r}; it holds {', '.join(folders) or 'none'}")
    mine = [folder for folder in folders[name] if recipe is None or layout.short_id(folder) == recipe[:8]]
    if not mine:
        known = ", ".join(map(layout.short_id, folders[name]))
        raise OutputError(f"{root} holds no recipe {recipe!r} of {name}; it holds {known}")
    return name, {name: mine}


class _Views:
    """Defines the views in a fresh database. What they are made of is in its schema ``quarry``."""

    def __init__(self, con: duckdb.DuckDBPyConnection, root: Path) -> None:
        self._con = con
        self._root = root
        self._taken = {"runs"}

    def define(self, folders: _Folders) -> None:
        """The commits as a table, and the views of these schemas and recipes."""
        if isinstance(self._root, ObjectPath):
            known_to_duckdb(self._con, self._root)
        # The footers of thousands of parts are read again by every mention of a view otherwise.
        self._con.execute("set parquet_metadata_cache = true")
        self._con.execute(
            "create schema quarry; create table quarry.commits (name varchar, recipe varchar, chunk varchar, "
            "sequence bigint, run_id varchar, committed_at timestamptz, kind varchar, file varchar, rows bigint)"
        )
        self._runs()
        # The names that a reader relies on come first; those of exploded lists give way to them.
        tails = ("", "_failures", "_calls", "_reviews", "_doubtful")
        self._taken |= {f"{name}{tail}".lower() for name in folders for tail in tails}
        self._decisions(folders)
        for name, own in folders.items():
            held = [(folder, load_commits(folder, verify="size")) for folder in own]
            self._list_commits(name, held)
            for kind in layout.PARTS:
                self._outcomes(name, kind, held)
            self._current(name)
        for name in folders:
            self._doubtful(name)
            self._explode(name)

    def _list_commits(self, name: str, held: Sequence[tuple[Path, Sequence[Commit]]]) -> None:
        listed = [
            (name, layout.short_id(folder), c.chunk, c.sequence, c.run_id, c.committed_at, part.kind,
             str(folder / part.path), part.rows)
            for folder, commits in held
            for c in commits
            for part in c.parts
        ]  # fmt: skip
        if listed:
            names = ("name", "recipe", "chunk", "sequence", "run_id", "committed_at", "kind", "file", "rows")
            self._con.register("batch", pa.table(dict(zip(names, zip(*listed, strict=True), strict=True))))
            self._con.execute(
                "insert into quarry.commits by name "
                "select * replace (committed_at::timestamptz as committed_at) from batch"
            )
            self._con.unregister("batch")

    def _decisions(self, folders: _Folders) -> None:
        """``quarry.decisions`` and, of them, the failures that stand ignored. ``<name>_reviews`` for people."""
        listed = [
            {"name": name, "recipe": layout.short_id(folder), "place": place, **asdict(one)}
            for name, own in folders.items()
            for folder in own
            for place, one in enumerate(reviews.read(folder))
        ]
        self._con.execute(
            "create table quarry.decisions (name varchar, recipe varchar, place bigint, record_id varchar, "
            "occurrence integer, sequence bigint, action varchar, who varchar, decided_at timestamptz, note varchar)"
        )
        if listed:
            self._con.register("batch", pa.Table.from_pylist(listed))
            self._con.execute(
                "insert into quarry.decisions by name select * replace (decided_at::timestamptz as decided_at) from batch"
            )
            self._con.unregister("batch")
        self._con.execute(
            "create view quarry.ignored as select name, recipe, record_id, occurrence, sequence from quarry.decisions "
            "where action not in ('promoted', 'retried') group by all having arg_max(action, place) = 'ignored'"
        )
        for name in folders:
            self._con.execute(
                f"create view {_quoted(f'{name}_reviews')} as select record_id, occurrence, action, who, decided_at, note, recipe "
                f"from quarry.decisions where name = {_text(name)}"
            )

    def _outcomes(self, name: str, kind: str, held: Sequence[tuple[Path, Sequence[Commit]]]) -> None:
        """``quarry.<name>_<kind>``: all that was ever committed, with what the commit says of it.

        Parts with the same columns are read together: looking for columns in every file, as
        ``union_by_name`` does, takes seconds for thousands of them.
        """
        selects: list[str] = []
        for folder, commits in held:
            alike: dict[tuple[int, tuple[str, ...]], list[str]] = {}
            for commit in commits:
                if (part := commit.part(kind)) is not None:
                    kept = () if kind == "calls" else commit.kept
                    alike.setdefault((commit.columns, kept), []).append(str(folder / part.path))
            for paths in alike.values():
                view = f"quarry.{_quoted(f'{name} {layout.short_id(folder)} {kind} {len(selects)}')}"
                listed = ", ".join(_text(_literal(path)) for path in paths)
                source = f"read_parquet([{listed}], filename = '{_FILE}', hive_partitioning = false)"
                self._con.execute(
                    f"create view {view} as select p.* exclude ({_FILE}{', run_id' if kind == 'calls' else ''}), "
                    f"{_tail(self._names(source), kind)} from {source} p join quarry.commits c on p.{_FILE} = c.file"
                )
                selects.append(view)
        if not selects:
            selects = [f"({self._nothing([folder for folder, _ in held], kind)})"]
        self._con.execute(f"create view quarry.{_quoted(f'{name}_{kind}')} as {self._united(selects)}")

    def _current(self, name: str) -> None:
        rows, failures = (f"quarry.{_quoted(f'{name}_{kind}')}" for kind in ("rows", "failures"))
        calls, latest = f"quarry.{_quoted(f'{name}_calls')}", f"quarry.{_quoted(f'{name}_superseding')}"
        outcomes = f"quarry.{_quoted(f'{name}_outcomes')}"
        mark = {view: self._tail_names(view) for view in (rows, failures, calls)}
        # Rows and failures of a record compete. Few records have more than one outcome, so the join is small.
        self._con.execute(
            f"create view {outcomes} as select {mark[rows]['recipe']} as recipe, record_id, "
            f"_meta.occurrence as occurrence, {mark[rows]['sequence']} as sequence, true as is_row from {rows} "
            f"union all select {mark[failures]['recipe']}, record_id, occurrence, {mark[failures]['sequence']}, false "
            f"from {failures}"
        )
        self._con.execute(
            f"create view {latest} as select recipe, record_id, occurrence, max(sequence) as sequence "
            f"from {outcomes} group by all having count(*) > 1"
        )
        for view, standing, source, occurrence in (
            (name, f"{name}_current", rows, "_meta.occurrence"),
            (f"{name}_failures", f"{name}_standing", failures, "occurrence"),
        ):
            own = mark[source]
            self._con.execute(
                f"create view quarry.{_quoted(standing)} as select o.* exclude ({own['sequence']}), "
                f"o.{own['sequence']} as quarry_sequence from {source} o anti join {latest} l "
                f"on o.record_id = l.record_id and o.{occurrence} = l.occurrence and o.{own['recipe']} = l.recipe "
                f"and o.{own['sequence']} < l.sequence"
            )
            ignored = (
                f" anti join quarry.ignored i on i.name = {_text(name)} and o.record_id = i.record_id "
                f"and o.occurrence = i.occurrence and o.{own['recipe']} = i.recipe and o.quarry_sequence = i.sequence"
            )
            self._con.execute(
                f"create view {_quoted(view)} as select o.* exclude (quarry_sequence) from quarry.{_quoted(standing)} o"
                f"{ignored if source == failures else ''}"
            )
        self._con.execute(
            f"create view {_quoted(f'{name}_calls')} as select * exclude ({mark[calls]['sequence']}) from {calls}"
        )

    def _doubtful(self, name: str) -> None:
        """``<name>_doubtful``: one row for each value that someone should look at, the least sure first: of less
        confidence than the ``review_below`` of the recipe's last run, or, without a confidence, standing nowhere."""
        recipe = self._tail_names(_quoted(name))["recipe"]
        self._con.execute(
            f"create view {_quoted(f'{name}_doubtful')} as with held as (select record_id, fingerprint, {recipe} as recipe, "
            f"_evidence, _confidence from {_quoted(name)}), r as ("
            "select record_id, fingerprint, recipe, e.path as path, _confidence[e.path] as confidence, "
            "e.match as match, e.quote as quote from (select *, unnest(_evidence) as e from held) "
            "union all select record_id, fingerprint, recipe, c.key, c.value, null, null "
            "from (select *, unnest(map_entries(_confidence)) as c from held) "
            "where not list_contains(list_transform(_evidence, lambda e: e.path), c.key)) "
            f"select * from r where confidence < {reviews.review_below('r.recipe')} or (confidence is null and match = 'ungrounded') "
            "order by confidence nulls first, record_id, path"
        )

    def _explode(self, name: str) -> None:
        """One row for each element of every list of objects, with its place in the list from 0."""
        relation = self._con.sql(f"select * from {_quoted(name)} limit 0")
        for column, kind in zip(relation.columns, relation.types, strict=True):
            item = _element(kind)
            if column.startswith("_") or item is None:
                continue
            view = f"{name}_{column}"
            while view.lower() in self._taken:
                view += "_"
            self._taken.add(view.lower())
            base = ["record_id", "fingerprint", "recipe", "position"]
            members = [member for member, _ in item.children]
            shown = ", ".join(
                f"item.{_quoted(member)} as {_quoted(f'item_{member}' if member.lower() in base else member)}"
                for member in members
            )
            recipe = self._tail_names(_quoted(name))["recipe"]
            self._con.execute(
                f"create view {_quoted(view)} as select record_id, fingerprint, recipe, position, {shown} from ("
                f"select record_id, fingerprint, {recipe} as recipe, unnest(range(len({_quoted(column)}))) as position, "
                f"unnest({_quoted(column)}) as item from {_quoted(name)})"
            )

    def _runs(self) -> None:
        if told := files.listed(self._root / layout.RUNS, "*.json"):
            columns = "{" + ", ".join(f"{column}: '{kind}'" for column, kind in _RUN_COLUMNS.items()) + "}"
            paths = _text(f"{_literal(str(self._root / layout.RUNS))}/[!.]*.json")
            if files.is_remote(self._root):
                paths = "[" + ", ".join(_text(_literal(str(path))) for path in told) + "]"
            self._con.execute(f"create view runs as select * from read_json({paths}, columns = {columns})")
        else:
            self._con.execute(f"create view runs as select {_nulls(_RUN_COLUMNS)} where false")

    def _united(self, selects: Sequence[str]) -> str:
        """The union of relations by their columns' names. Columns of other types are cast by DuckDB, which
        cannot bring nested and other types together: those become JSON."""
        if len(selects) == 1:
            return f"select * from {selects[0]}"
        types: dict[str, list[Any]] = {}
        columns = []
        for one in selects:
            relation = self._con.sql(f"select * from {one} limit 0")
            columns.append(relation.columns)
            for column, kind in zip(relation.columns, relation.types, strict=True):
                types.setdefault(column.lower(), []).append(kind)
        unlike = {
            column
            for column, kinds in types.items()
            if column not in _GROWING
            and any(kind != kinds[0] for kind in kinds)
            and any(kind.id in _NESTED for kind in kinds)
        }
        parts = []
        for one, names in zip(selects, columns, strict=True):
            cast = ", ".join(f"to_json({_quoted(n)})::varchar as {_quoted(n)}" for n in names if n.lower() in unlike)
            parts.append(f"select *{f' replace ({cast})' if cast else ''} from {one}")
        return " union all by name ".join(parts)

    def _nothing(self, folders: Sequence[Path], kind: str) -> str:
        """No row, with the columns that there would be."""
        columns = {field.name: self._type(field) for field in _columns(folders[-1], kind)}
        names = _view_names(columns)
        tail = {names["run_id"]: "varchar", names["committed_at"]: "timestamptz", names["recipe"]: "varchar"}
        return f"select {_nulls(columns | tail | {names['sequence']: 'bigint'})} where false"

    def _type(self, field: pa.Field) -> str:
        self._con.register("typed", pa.table({"x": pa.array([], field.type)}))
        kind = str(self._con.sql("select x from typed").types[0])
        self._con.unregister("typed")
        return kind

    def _names(self, relation: str) -> list[str]:
        return list(self._con.sql(f"select * from {relation} limit 0").columns)

    def _tail_names(self, relation: str) -> dict[str, str]:
        """The names of the columns that came from the commits: the last ones of their name."""
        names = self._names(relation)
        return {one: f"_{one}" if f"_{one}" in names else one for one in VIEW_COLUMNS}


_RUN_COLUMNS: Mapping[str, str] = {
    "run_id": "varchar", "recipe": "varchar", "name": "varchar", "model": "varchar", "engine": "varchar",
    "started_at": "timestamptz", "records": "bigint", "rows": "bigint", "failures": "bigint", "skipped": "bigint",
    "merged": "bigint", "undone": "bigint", "calls": "bigint", "tries": "bigint", "input_tokens": "bigint",
    "cached_tokens": "bigint", "output_tokens": "bigint", "cost": "decimal(20,10)", "currency": "varchar",
    "seconds": "double", "latency_p50": "double", "latency_p95": "double", "rate_limited": "bigint",
    "failures_by_reason": "json", "stopped": "varchar", "routing": "json", "job": "json",
    "unfinished_calls": "bigint", "unfinished_cost": "decimal(20,10)",
}  # fmt: skip


def _element(kind: Any) -> Any:
    """The struct type of a list of structs; None for another type."""
    if kind.id != "list":
        return None
    [(_, item)] = kind.children
    return item if item.id == "struct" else None


def _tail(columns: Sequence[str], kind: str) -> str:
    """The commit's columns; one whose name the schema uses itself gets an underscore before it."""
    names = _view_names([column for column in columns if kind != "calls" or column != "run_id"])
    return ", ".join(f"c.{one} as {names[one]}" for one in ("run_id", "committed_at", "recipe", "sequence"))


def _view_names(columns: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    own = {column.lower() for column in columns}
    return {one: f"_{one}" if one in own else one for one in VIEW_COLUMNS}


def _columns(folder: Path, kind: str) -> list[pa.Field]:
    """The columns of a recipe's parts of a kind, as its last run would write them."""
    if kind == "calls":
        return [field for field in CALLS if field.name != "run_id"]
    path = folder / layout.COLUMNS
    if not path.is_file():
        raise OutputError(f"{path} is missing: run the job again to have it made")
    schema = pa.ipc.read_schema(pa.BufferReader(files.read(path)))
    if kind == "rows":
        return list(schema)
    kept = orjson.loads((schema.metadata or {})[KEPT_KEY])
    return [*FAILURES_FIXED, *(schema.field(name).with_name(f"kept_{name}") for name in kept)]


def _nulls(columns: Mapping[str, str]) -> str:
    return ", ".join(f"null::{kind} as {_quoted(column)}" for column, kind in columns.items())


def _literal(path: str) -> str:
    """A path in which nothing is a wildcard."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
