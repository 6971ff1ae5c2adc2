"""``Source``: records that can be staged into a DuckDB table once, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod

import duckdb
import pyarrow as pa

from extractors.errors import SourceError
from extractors.sources.pictures import PictureFinder

RAW_COLUMNS = ("id", "text", "problem", "raw")
"""What ``Source.select`` gives, all VARCHAR, followed by ``image`` where the source has pictures, and ``k0``,
``k1``, ... for the kept columns."""

NO_TEXT = ("the text is null", "the text is empty", "the text is only white space")
"""The problems of records that are there and say nothing."""

# The first byte says at once for nearly every text that it is not blank; only the others meet the regex,
# which knows Unicode's white space (RE2's \\s is ASCII only).
_BLANK = (
    "(text < '!' or text >= chr(128)) and not regexp_matches(text, '[^\\s\\pZ\\x{0b}\\x{1c}-\\x{1f}\\x{85}\\x{feff}]')"
)


class Source(ABC):
    """Records of one place, in a fixed order. Close it, or use it as a context manager.

    ``kept`` is the Arrow schema of the source columns that were asked for, under their new names;
    ``place`` is what to call the source in messages.

    A record's id is the id column cast to text, else ``c-`` and the first 16 digits of its fingerprint.
    Its fingerprint is ``content_fingerprint(text)``. A record that cannot be asked has a ``problem``, and
    its fingerprint is that of ``"\\0problem\\0" + problem + raw``, which no text of a source equals. That of a
    record with a picture is over the hash of the picture's bytes as well, and its text may be empty.
    Lone surrogates become U+FFFD; NUL characters stay.
    """

    kept: pa.Schema
    place: str
    pictures: PictureFinder | None = None
    """Who finds the pictures that the cells of ``image`` name."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Give back what the source holds."""

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:  # noqa: B027 - most sources need nothing
        """Make ready on ``con`` what ``select`` names."""

    @abstractmethod
    def select(self, con: duckdb.DuckDBPyConnection) -> str:
        """A SELECT that gives ``RAW_COLUMNS`` and the kept columns in source order, runnable once on ``con``."""

    id_null_problem: str | None = None
    """Why a record without an id cannot be asked; None where an id is made from the content."""

    def stage(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Create ``table``: record_id, given (occurrence or null), fingerprint, problem, text, image (JSON of an
        ``ImageRef``, or null), characters, bytes, k0, k1, ...

        ``table`` is named with its database, for a source may look names up in one of its own. Its ``rowid``
        is the source order. The source is read exactly once. Raises ``SourceError``.
        """
        kept = "".join(f", k{number}" for number in range(len(self.kept)))
        no_id = "null" if self.id_null_problem is None else "'" + self.id_null_problem.replace("'", "''") + "'"
        missing = "false" if self.id_null_problem is None else "id is null or id = ''"
        image = "null::varchar as image" if self.pictures is None else "image"
        # A document's path is no part of what is asked: the same text elsewhere is the same record.
        picture = "image::json ->> '$.sha256'"
        try:
            if self.pictures is not None:
                self.pictures.register(con)
            self.attach(con)
            con.execute(
                f"create table {table} as "
                "select coalesce(nullif(id, ''), 'c-' || fingerprint[:16]) as record_id, null::integer as given, "
                f"fingerprint, problem, text, case when problem is null then image end as image, length(text) as characters, "
                f"strlen(text) as bytes{kept} from (select *, sha256(case when problem is null and (image is null or {picture} is null) then text "
                f"when problem is null then chr(0) || 'image' || chr(0) || ({picture}) || chr(0) || text else "
                f"chr(0) || 'problem' || chr(0) || problem || coalesce(raw, text) end)[:32] as fingerprint from ("
                f"select id, coalesce(text, '') as text, raw, image, case when problem is not null then problem "
                f"when {missing} then {no_id} when {picture} is not null or image::json ->> '$.problem' is not null then image::json ->> '$.problem' when text is null then '{NO_TEXT[0]}' "
                f"when text = '' then '{NO_TEXT[1]}' when {_BLANK} then '{NO_TEXT[2]}' end as problem"
                f"{kept} from (select id, text, problem, raw, {image}{kept} from ({self.select(con)}))))"
            )
        except duckdb.Error as error:
            raise _told(error, self.place) from error
        finally:
            if self.pictures is not None:
                self.pictures.unregister(con)


_NO_ROOM = ("failed to pin block", "could not allocate block", "failed to allocate data")


def out_of_memory(error: duckdb.Error) -> bool:
    """Whether DuckDB came to its memory limit. Where that is at a commit or a checkpoint, the error is one of the
    transaction, and only its words tell."""
    return isinstance(error, duckdb.OutOfMemoryException) or any(words in str(error) for words in _NO_ROOM)


def _told(error: duckdb.Error, place: str) -> Exception:
    """DuckDB wraps what a Python reader raises; the reader's own words are the better ones."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, SourceError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    marker = "SourceError: "
    if marker in text:
        return SourceError(text.split(marker, 1)[1].split("\n")[0])
    if out_of_memory(error):
        return error
    return SourceError(f"{place} cannot be read: {text.splitlines()[0]}")
