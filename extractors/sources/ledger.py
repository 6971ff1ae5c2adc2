"""Open failures as a source: the records come from the ledger itself."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.source import Source
from extractors.sources.text_template import sql_name

_PREFIX = "kept_"
_TABLE = "quarry_ledger"
_BAD_INPUT = "bad_input"


class LedgerSource(Source):
    """Records with the ids, occurrences and fingerprints that they had."""

    def __init__(self, failures: pa.Table) -> None:
        if "text" not in failures.column_names or failures.column("text").null_count:
            raise SourceError(
                "the ledger does not hold the records' text (--ledger-text none); read them from their source again"
            )
        self.place = "the ledger"
        self._failures = failures
        fields = [field for field in failures.schema if field.name.startswith(_PREFIX)]
        self.kept = pa.schema([field.with_name(field.name.removeprefix(_PREFIX)) for field in fields])

    def select(self, con: duckdb.DuckDBPyConnection) -> str:
        con.register(_TABLE, self._failures)
        kept = "".join(f", {sql_name(_PREFIX + field.name)} as k{n}" for n, field in enumerate(self.kept))
        return (
            "select record_id, occurrence::integer as given, fingerprint, "
            f"case when reason = '{_BAD_INPUT}' then message end as problem, text, null::varchar as image, length(text) as characters, strlen(text) as bytes{kept} from {_TABLE}"
        )

    def stage(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        try:
            con.execute(f"create table {table} as {self.select(con)}")
        except duckdb.Error as error:
            raise SourceError(f"the ledger cannot be read: {str(error).splitlines()[0]}") from error
        finally:
            con.unregister(_TABLE)


def ledger_source(failures: pa.Table) -> LedgerSource:
    """The records of open failures (the ledger's columns, kept columns as ``kept_<name>``), for a retry.

    A record that was bad input stays that: what was wrong with it is in the record. Raises ``SourceError``
    where the ledger holds no text.
    """
    return LedgerSource(failures)
