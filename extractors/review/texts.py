"""The texts of records that are looked at: from the ledger, else from the job's source, read again once."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

import duckdb

from extractors.errors import QuarryError
from extractors.retrying import last_job
from extractors.sources import open_source

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class Texts:
    """Texts by fingerprint: a source that has changed since gives none in the place of a wrong one."""

    def __init__(self, out: Path, recipe: str) -> None:
        self._out = out
        self._recipe = recipe
        self._folder: Path | None = None
        self._delete: weakref.finalize[..., Texts] | None = None
        self._trouble: str | None = None
        self._reading = threading.Lock()

    def close(self) -> None:
        """Delete the copy. So does the end of the process, where nobody closes."""
        if self._delete is not None:
            self._delete()
            self._folder = self._delete = None

    def of(self, fingerprint: str, *, ledger: str | None) -> tuple[str | None, str | None]:
        """A record's text; or None, and why in a sentence."""
        if ledger is not None and not _HASH.fullmatch(ledger):
            return ledger, None
        with self._reading:
            if self._folder is None and self._trouble is None:
                self._read()
        if self._folder is None:
            return None, self._trouble
        with duckdb.connect(str(self._folder / "source.duckdb"), read_only=True) as con:
            found = con.execute("select text from staged where fingerprint = ? limit 1", [fingerprint]).fetchall()
        if not found:
            return None, "The record is not in the source any more as it was when it was asked."
        return found[0][0], None

    def _read(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="quarry-review-"))
        try:
            job = last_job(self._out, self._recipe, {})
            with open_source(job) as source, duckdb.connect() as con:
                con.execute("set memory_limit = '1GB'; set threads = 2")
                con.execute(f"attach '{folder / 'source.duckdb'}' as quarry_copy")
                if source.pictures is not None:
                    source.pictures.scratch = folder / "pictures"
                source.stage(con, "quarry_copy.staged")
        except (QuarryError, duckdb.Error) as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._trouble = f"The source cannot be read again: {str(error).splitlines()[0]}"
            return
        self._folder = folder
        self._delete = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
