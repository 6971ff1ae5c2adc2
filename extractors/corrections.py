"""What to ask again, and how the answer is merged: only the failing paths, never the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extractors.parsing import dumps_exact
from extractors.qwen.fitting import may_be_left_out
from extractors.qwen.modes import nullable
from schemas.jsonschema import subschema
from schemas.outcomes import FieldProblem
from schemas.pointers import escape, leaves, split, unescape

_MOST_VALUE = 400
_ABSENT = object()


def problems_of(error: ValidationError, data: Any) -> list[FieldProblem]:
    """Pydantic's errors as problems at JSON paths of ``data``, the answer as parsed.

    Pydantic's locations also name union branches and validators; those steps are left out, because
    they are no keys of the answer. Several errors at one path become one problem.
    """
    merged: dict[str, FieldProblem] = {}
    for detail in error.errors(include_url=False, include_context=False):
        path, value = _locate(detail, data)
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        known = merged.get(path)
        if known is None:
            merged[path] = FieldProblem(path, detail["type"], message, value)
        elif message not in known.message:
            merged[path] = FieldProblem(path, known.error, f"{known.message}; {message}", known.value)
    return outermost(list(merged.values()))


def outermost(problems: Sequence[FieldProblem]) -> list[FieldProblem]:
    """Problems without those that lie inside another one's path: asking for the outer asks for both."""
    paths = {problem.path for problem in problems}
    return [problem for problem in problems if not any(parent in paths for parent in _parents(problem.path))]


def signature(problems: Sequence[FieldProblem]) -> frozenset[tuple[str, str, str]]:
    """What makes two rounds of problems the same: path, error and message, whatever the value."""
    return frozenset((problem.path, problem.error, problem.message) for problem in problems)


def value_at(data: Any, path: str) -> Any:
    """The value at a JSON Pointer (without its leading slash). Raises ``KeyError`` when it is absent."""
    for step in split(path):
        if isinstance(data, Mapping) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            raise KeyError(path)
    return data


def with_value(data: Any, path: str, value: Any) -> Any:
    """``data`` with ``value`` at ``path``; the parts on the way are copied, missing objects are made."""
    if not path:
        return value
    step, _, rest = path.partition("/")
    key = unescape(step)
    if isinstance(data, list) and key.isdigit():
        position = int(key)
        copied = list(data)
        if position < len(copied):
            copied[position] = with_value(copied[position], rest, value)
        elif position == len(copied):
            copied.append(with_value({} if rest else None, rest, value))
        return copied
    inner = dict(data) if isinstance(data, Mapping) else {}
    inner[key] = with_value(inner.get(key), rest, value)
    return inner


def without(data: Any, path: str) -> Any:
    """``data`` without the key at ``path``; list items and absent keys stay as they are."""
    step, _, rest = path.partition("/")
    key = unescape(step)
    if isinstance(data, list) and key.isdigit() and rest and int(key) < len(data):
        return [without(item, rest) if i == int(key) else item for i, item in enumerate(data)]
    if isinstance(data, Mapping) and key in data:
        if rest:
            return {**data, key: without(data[key], rest)}
        return {name: value for name, value in data.items() if name != key}
    return data


def without_nulls(data: Any, problems: Sequence[FieldProblem], schema: Mapping[str, Any]) -> Any:
    """``data`` without the nulls that stand where a default may: None when there are none."""
    dropped = None
    for problem in problems:
        parent, _, name = problem.path.rpartition("/")
        try:
            is_null = value_at(data, problem.path) is None
            owner = subschema(schema, parent)
            own = subschema(schema, problem.path)
        except KeyError:
            continue
        if is_null and not nullable(own) and name not in owner.get("required", ()):
            dropped = without(data if dropped is None else dropped, problem.path)
    return dropped


def nulls_for_words(data: Any, problems: Sequence[FieldProblem], schema: Mapping[str, Any]) -> Any:
    """``data`` with null where a failing value is the word for it and null is allowed: None when there are none.

    Small models write ``"null"`` where they mean null."""
    mended = None
    for problem in problems:
        try:
            value = value_at(data, problem.path)
            own = subschema(schema, problem.path)
        except KeyError:
            continue
        if isinstance(value, str) and value.strip().lower() in ("null", "none") and nullable(own):
            mended = with_value(data if mended is None else mended, problem.path, None)
    return mended


def filled(data: Any, problems: Sequence[FieldProblem], schema: Mapping[str, Any]) -> Any:
    """``data`` with null, or an empty list, for what is missing and may be that: None when there is none."""
    mended = None
    for problem in problems:
        if problem.error != "missing":
            continue
        try:
            own = subschema(schema, problem.path)
        except KeyError:
            continue
        if may_be_left_out(own):
            mended = with_value(data if mended is None else mended, problem.path, None if nullable(own) else [])
    return mended


def merge(data: Any, answer: Mapping[str, Any], asked: Sequence[str]) -> tuple[Any, list[str]]:
    """Put a correction's values into the answer. Returns the merged answer and the paths that changed.

    Only asked paths are taken. A model may answer with the key ``a/b`` or with nested objects
    ``{"a": {"b": ...}}``: both are understood. A path that the correction leaves out keeps its value.
    """
    changed = []
    for path in asked:
        if path in answer:
            value = answer[path]
        elif not path:
            value = dict(answer)
        else:
            try:
                value = value_at(answer, path)
            except KeyError:
                continue
        before = _value_text(data, path)
        data = with_value(data, path, value)
        if _value_text(data, path) != before:
            changed.append(path)
    return data, changed


def cut_strings(data: Any, schema: Mapping[str, Any], *, longest: int) -> list[FieldProblem]:
    """Strings of exactly ``longest`` characters, at which a grammar cuts them off, unless the schema itself
    allows no more."""
    found = []
    for path, text in leaves(data):
        if not isinstance(text, str) or len(text) != longest:
            continue
        try:
            limit = subschema(dict(schema), path)
        except KeyError:
            limit = {}
        if not any(branch.get("maxLength", longest + 1) <= longest for branch in (limit, *limit.get("anyOf", ()))):
            message = f"it was cut off at {longest:,} characters; give it whole"
            found.append(FieldProblem(path, "cut_off", message, _clip(dumps_exact(text))))
    return found


def fold_keys(data: Any, model: type[BaseModel]) -> tuple[Any, bool]:
    """Rename top-level keys that are a field's key but for case, spaces, dashes and underscores.

    JSON-object mode is known to drift so (``Product Name`` for ``product_name``). Returns the object
    and whether a key was renamed; ambiguous keys stay.
    """
    if not isinstance(data, Mapping):
        return data, False
    wanted = {_bare(field.alias or name): field.alias or name for name, field in model.model_fields.items()}
    renamed: dict[str, str] = {}
    for key in data:
        target = wanted.get(_bare(key))
        if target is not None and target != key and target not in data and target not in renamed.values():
            renamed[key] = target
    if not renamed:
        return data, False
    return {renamed.get(key, key): value for key, value in data.items()}, True


def _locate(detail: ErrorDetails, data: Any) -> tuple[str, str | None]:
    steps: list[str] = []
    location = detail["loc"]
    for number, step in enumerate(location):
        inside = _child(data, step)
        if inside is not _ABSENT:
            data = inside
        elif number == len(location) - 1 and detail["type"] == "missing":
            steps.append(escape(str(step)))
            return "/".join(steps), None
        else:
            continue
        steps.append(escape(str(step)))
    return "/".join(steps), _clip(dumps_exact(data)) if steps else None


def _child(data: Any, step: int | str) -> Any:
    if isinstance(data, Mapping):
        return data.get(step, _ABSENT) if isinstance(step, str) else _ABSENT
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return data[step]
    return _ABSENT


def _value_text(data: Any, path: str) -> str | None:
    try:
        return dumps_exact(value_at(data, path))
    except KeyError:
        return None


def _parents(path: str) -> list[str]:
    steps = path.split("/")
    found = ["/".join(steps[:i]) for i in range(1, len(steps))]
    return ["", *found] if path else found


def _clip(text: str) -> str:
    return text if len(text) <= _MOST_VALUE else text[: _MOST_VALUE - 1] + "…"


def _bare(key: str) -> str:
    return "".join(character for character in key.casefold() if character.isalnum())
