"""Documents: PDF, HTML, DOCX, Markdown and plain text as records, converted in processes of their own.

A document is text in the end, so that evidence, fingerprints and the ledger treat it as any other record. A page of a
PDF ends with a form feed, as ``pdftotext`` has it: the page of a value is told by counting them.
"""

from __future__ import annotations

from extractors.documents.converted import Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import SUFFIXES, Kind, kind_of
from extractors.documents.workers import DocumentWorkers

__all__ = ["SUFFIXES", "Converted", "DocumentLimits", "DocumentWorkers", "Kind", "Unreadable", "kind_of"]
