"""The current outcome of every record: of all its outcomes, the one whose commit has the highest sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa

_PATH_BITS = 31


@dataclass(frozen=True, slots=True)
class CurrentOutcomes:
    """Names of the tables that ``current_outcomes`` made.

    ``outcomes`` has every outcome ever committed: identity, fingerprint, part; ``current`` has one row for
    each identity with its latest. ``identity`` is ``identity_sql``, a 64-bit hash; ``fingerprint`` is
    ``fingerprint_sql``; ``part`` is a number that grows with the sequence, even for rows and odd for failures.
    """

    outcomes: str
    current: str
    paths: tuple[str, ...]

    def path(self, part: int) -> str:
        """The path of a part, as the commit's keys name it."""
        return self.paths[(part & ((1 << (_PATH_BITS + 1)) - 1)) >> 1]


def identity_sql(record_id: str, occurrence: str) -> str:
    """SQL for the 64-bit hash of a record's identity. It holds within one process only."""
    return f"hash({record_id}, {occurrence}::integer)"


def fingerprint_sql(fingerprint: str) -> str:
    """SQL for a fingerprint's 128 bits, a third of the memory of its digits."""
    return f"('0x' || {fingerprint})::uhugeint"


def current_outcomes(con: duckdb.DuckDBPyConnection, keys: Iterable[pa.RecordBatch], *, schema: str) -> CurrentOutcomes:
    """Read the commits' keys (batches of ``extractors.store.commits.KEYS``) into tables of ``schema``.

    A later outcome of a record replaces an earlier one, whichever of row and failure they are.
    """
    outcomes, current = f"{schema}.outcomes", f"{schema}.current_outcomes"
    con.execute(f"create or replace table {outcomes} (identity ubigint, fingerprint uhugeint, part bigint)")
    numbers: dict[str, int] = {}
    for batch in keys:
        paths = batch.column("part").dictionary_encode()
        known = pa.array([numbers.setdefault(path, len(numbers)) for path in paths.dictionary.to_pylist()], pa.int64())
        con.register("quarry_keys", batch.append_column("number", known.take(paths.indices)))
        con.execute(
            f"insert into {outcomes} select {identity_sql('record_id', 'occurrence')}, {fingerprint_sql('fingerprint')}, "
            f"(sequence::bigint << {_PATH_BITS + 1}) + (number << 1) + (not is_row)::bigint from quarry_keys"
        )
        con.unregister("quarry_keys")
    con.execute(
        f"create or replace table {current} as select identity, arg_max(fingerprint, part) as fingerprint, "
        f"max(part) as part from {outcomes} group by identity"
    )
    return CurrentOutcomes(outcomes, current, tuple(numbers))
