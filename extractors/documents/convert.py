"""One document's bytes to text, by its kind. Runs inside a worker process."""

from __future__ import annotations

from pathlib import Path

from extractors.documents.converted import Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import HEAD, Kind, kind_of
from extractors.documents.plain import decoded

_FEW = 300


def convert(path: str, limits: DocumentLimits) -> Converted:
    """Read and convert a file. Raises ``Unreadable`` saying why it cannot become a record; a parser may raise anything
    else for a hostile file, take for ever, or end the process, which is why this runs in one of its own."""
    data = read(path, limits)
    kind = kind_of(data[:HEAD], Path(path).name)
    if kind is Kind.PDF:
        from extractors.documents.pdf import convert as convert_pdf

        made = convert_pdf(data, limits)
    elif kind is Kind.DOCX:
        from extractors.documents.docx import convert as convert_docx

        made = convert_docx(data, limits)
    elif kind is Kind.HTML:
        from extractors.documents.html import convert as convert_html

        made = convert_html(data, limits)
    else:
        if b"\x00" in data[:HEAD] and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
            raise Unreadable("is binary, and of no kind that is known (PDF, DOCX, HTML, Markdown, text)")
        made = Converted(kind.value, decoded(data))
    if len(made.text) > limits.characters:
        raise Unreadable(f"has {len(made.text):,} characters of text; at most {limits.characters:,} are taken")
    return made


def read(path: str, limits: DocumentLimits) -> bytes:
    """The file's bytes. Raises ``Unreadable``."""
    try:
        size = Path(path).stat().st_size
        if size > limits.file_bytes:
            raise Unreadable(f"has {size:,} bytes; at most {limits.file_bytes:,} are read (document_max_mb)")
        if not size:
            raise Unreadable("is empty (0 bytes)")
        return Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def told(error: BaseException) -> str:
    """What a parser raised, in a few words after the document's name."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, MemoryError):
        return "needs more memory than a document may take"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    words = " ".join(str(error).split())[:_FEW]
    return f"is broken: {type(error).__name__}{': ' + words if words else ''}"
