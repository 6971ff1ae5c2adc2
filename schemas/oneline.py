"""The one-line schema: ``name, price: float, tags: list[str], currency: 'USD'|'EUR', when: date?``.

::

    fields   = field (("," | newline) field)*
    field    = name "?"? (":" type)? "?"? "optional"? "key"? note?
    type     = part ("|" part)*
    part     = word | "'text'" | number | "list[" type "]" | "dict[" type "]" | "{" fields "}" | "[" fields-or-type "]"
    note     = "(" text ")" | "#" text to the end of the line

The type is ``str`` where none is given. A field is required unless ``?`` or ``optional`` follows its name or type;
then it may be null. ``[{name, qty: int}]`` is a list of objects, ``[str]`` a list. A note is the description that
the model reads, and may stand before the colon too. ``key`` after a field of an object in a list says that it tells
the list's items apart (``schemas.keys``).
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from schemas.arrow_types import RESERVED, SchemaMappingError
from schemas.json_shape import union_of
from schemas.keys import Key
from schemas.verbatim import Verbatim

TYPES: dict[str, Any] = {
    "str": str,
    "string": str,
    "text": str,
    "int": int,
    "integer": int,
    "float": float,
    "number": float,
    "decimal": Decimal,
    "Decimal": Decimal,
    "money": Decimal,
    "bool": bool,
    "boolean": bool,
    "date": date,
    "datetime": datetime,
    "time": time,
    "duration": timedelta,
    "timedelta": timedelta,
    "uuid": UUID,
    "UUID": UUID,
    "json": JsonValue,
    "verbatim": Annotated[str, Verbatim()],
}
"""The words for types. ``datetime`` is local time, as printed; ``verbatim`` a span of the record."""
_CONTAINERS = ("list", "array", "set", "dict", "map")
_TOKEN = re.compile(
    r"[ \t\r]*(?:(?P<newline>\n)|(?P<word>[^\W\d]\w*)|(?P<number>-?\d+(?:\.\d+)?)"
    r"|(?P<text>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")|(?P<mark>[,:?|\[\]{}(#]))"
)


def parse_line(spec: str, *, name: str = "Extraction") -> type[BaseModel]:
    """The model of a one-line spec. Raises ``SchemaMappingError`` with the position, counted from 1."""
    parser = _Parser(spec)
    fields = parser.fields(end=None, hint=name)
    return _model(name, fields)


class _Parser:
    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._at = 0
        self._names = {"Extraction"}
        self._depth = 0

    def fields(self, *, end: str | None, hint: str) -> dict[str, Any]:
        """Fields up to the mark ``end`` (which is consumed) or the end of the text."""
        fields: dict[str, Any] = {}
        taken: set[str] = set()
        while True:
            while self._take("newline") or (fields and self._take(",")):
                pass
            start = self._start()
            if end is not None and self._take(end):
                break
            if self._start() >= len(self._spec):
                if end is not None:
                    self._fail(f"{end!r} is missing", self._start())
                break
            name = self._word("a field name")
            if name.lower() in taken:
                self._fail(f"the field {name} is there twice", start)
            if name.startswith("_") or name.startswith("model_") or hasattr(BaseModel, name):
                self._fail(f"{name} cannot be a field name; choose another, such as {name.strip('_')}_value", start)
            if end is None and name.lower() in RESERVED:
                self._fail(f"the rows table has its own column {name.lower()}; choose another name", start)
            taken.add(name.lower())
            fields[name] = self._field(name, end=end)
        if not fields:
            self._fail("there is no field; write for example 'name, price: float'", self._start())
        return fields

    def _field(self, name: str, *, end: str | None) -> Any:
        optional = self._take("?")
        note = self._note()
        kind: Any = str
        nullable = key = False
        if self._take(":"):
            kind, nullable = self._type(name)
        while True:
            if self._take("?") or self._take("optional"):
                optional = True
            elif self._take("key"):
                key = True
            elif (more := self._note()) is not None:
                note = more
            else:
                break
        if not (self._peek(",") or self._peek("newline") or (end and self._peek(end)) or self._done()):
            self._fail(f"after the field {name} a comma is expected", self._start())
        options: dict[str, Any] = {"description": note} if note else {}
        if key:
            kind = Annotated[kind, Key()]
        if optional:
            return (kind | None, Field(default=None, **options))
        return (kind | None if nullable else kind, Field(**options))

    def _type(self, hint: str) -> tuple[Any, bool]:
        """A type without None, and whether null was among the alternatives."""
        self._depth += 1
        if self._depth > 20:
            self._fail("nested too deeply", self._start())
        literals: list[Any] = []
        kinds: list[Any] = []
        nullable = False
        while True:
            start = self._start()
            if (text := self._take_text()) is not None:
                literals.append(text)
            elif self._take("null") or self._take("None"):
                nullable = True
            else:
                kinds.append(self._part(hint, start))
            if not self._take("|"):
                break
        if literals:
            kinds.append(Literal[tuple(literals)])
        if not kinds:
            self._fail("a type beside null is needed", start)
        self._depth -= 1
        return union_of(kinds), nullable

    def _part(self, hint: str, start: int) -> Any:
        if self._take("{"):
            return self._object(hint)
        if self._take("["):
            inner = self._inner(hint)
            self._need("]")
            return list[inner]  # type: ignore[valid-type]
        word = self._word("a type")
        if word in _CONTAINERS:
            return self._container(word, hint)
        if word not in TYPES:
            listed = ", ".join(each for each in TYPES if each.islower())
            self._fail(
                f"there is no type {word}; use {listed}, list[...], dict[...], {{...}} or quoted choices 'a'|'b'", start
            )
        return TYPES[word]

    def _container(self, word: str, hint: str) -> Any:
        inner: Any = str
        if self._take("["):
            start = self._start()
            inner = self._inner(hint)
            if word in ("dict", "map") and self._take(","):
                if inner is not str:
                    self._fail("the keys of a dict are str", start)
                inner = self._inner(hint)
            self._need("]")
        if word in ("dict", "map"):
            return dict[str, inner]
        return list[inner] if word != "set" else set[inner]

    def _inner(self, hint: str) -> Any:
        while self._take("newline"):
            pass
        inner, nullable = self._type(hint)
        nullable = self._take("?") or nullable
        while self._take("newline"):
            pass
        return inner | None if nullable else inner

    def _object(self, hint: str) -> Any:
        self._depth += 1
        if self._depth > 20:
            self._fail("nested too deeply", self._start())
        fields = self.fields(end="}", hint=hint)
        self._depth -= 1
        stem = "".join(part[:1].upper() + part[1:] for part in hint.split("_"))
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}{number}", number + 1
        self._names.add(name)
        return _model(name, fields)

    def _note(self) -> str | None:
        if self._take("("):
            depth, start = 1, self._at
            while self._at < len(self._spec) and depth:
                depth += {"(": 1, ")": -1}.get(self._spec[self._at], 0)
                self._at += 1
            if depth:
                self._fail("')' is missing", start - 1)
            return self._spec[start : self._at - 1].strip() or None
        if self._take("#"):
            start = self._at
            stop = self._spec.find("\n", start)
            self._at = len(self._spec) if stop < 0 else stop
            return self._spec[start : self._at].strip() or None
        return None

    def _match(self) -> re.Match[str] | None:
        return _TOKEN.match(self._spec, self._at)

    def _peek(self, wanted: str) -> bool:
        match = self._match()
        if match is None:
            return False
        if wanted == "newline":
            return match.lastgroup == "newline"
        return match.lastgroup in ("mark", "word") and match[match.lastgroup] == wanted

    def _take(self, wanted: str) -> bool:
        if not self._peek(wanted):
            return False
        match = self._match()
        assert match is not None
        self._at = match.end()
        return True

    def _take_text(self) -> Any:
        match = self._match()
        if match is None or match.lastgroup not in ("text", "number"):
            return None
        if match.lastgroup == "number" and "." in match["number"]:
            self._fail("choices are quoted text or whole numbers", match.start("number"))
        self._at = match.end()
        if match.lastgroup == "number":
            return int(match["number"])
        return re.sub(r"\\(.)", r"\1", match["text"][1:-1])

    def _word(self, wanted: str) -> str:
        match = self._match()
        if match is None or match.lastgroup != "word":
            self._fail(f"{wanted} is expected", self._start())
        self._at = match.end()
        return match["word"]

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            self._fail(f"{mark!r} is expected", self._start())

    def _start(self) -> int:
        """Where the next token starts."""
        at = self._at
        while at < len(self._spec) and self._spec[at] in " \t\r":
            at += 1
        return at

    def _done(self) -> bool:
        return self._start() >= len(self._spec)

    def _fail(self, message: str, position: int) -> NoReturn:
        found = f"found {self._spec[position]!r}" if position < len(self._spec) else "the text ends here"
        raise SchemaMappingError(
            f"one-line schema, position {position + 1}: {message} ({found}) in: {self._spec[:200]}"
        )


def _model(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    base = type(name, (BaseModel,), {"__module__": __name__, "model_config": ConfigDict(protected_namespaces=())})
    model: type[BaseModel] = create_model(name, __base__=base, __module__=__name__, **fields)
    return model
