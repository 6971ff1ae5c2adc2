"""From what a user writes after ``--schema`` to a pydantic model.

``package.module:Model`` or ``path/to/file.py:Model``; a JSON Schema file ``*.json`` (see
``schemas.json_models``); or one line such as ``name, price: float, tags: list[str]`` (see ``schemas.oneline``).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from schemas.arrow_types import SchemaMappingError
from schemas.json_models import model_of
from schemas.oneline import TYPES, parse_line

_IMPORT = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def load_schema(spec: str, *, base: Path | None = None) -> type[BaseModel]:
    """The model that ``spec`` names or describes. Relative paths, and modules that are not installed,
    are looked up in ``base`` (default: the current folder).

    Raises ``SchemaMappingError`` with what is wrong and where: a missing file, module or attribute, an object
    that is no model, JSON that does not parse, a schema with no typed table, a one-line spec with an error.
    """
    spec = spec.strip()
    folder = base if base is not None else Path.cwd()
    if not spec:
        raise SchemaMappingError(
            "the schema is empty; give package.module:Model, a JSON Schema file, or a line such as "
            "'name, price: float, tags: list[str]'"
        )
    if match := _FILE.fullmatch(spec):
        return _from_module(_run_file(folder / match["file"]), match["name"], spec)
    if spec.lower().endswith(".json") and "\n" not in spec:
        return _from_json_file(folder / spec)
    match = _IMPORT.fullmatch(spec)
    if match and ("." in match["module"] or match["name"] not in TYPES):
        return _from_module(_import(match["module"], folder, spec), match["name"], spec)
    return parse_line(spec)


def load_object(spec: str, *, base: Path | None = None) -> Any:
    """What ``package.module:name`` or ``path/to/file.py:name`` names, found as ``load_schema`` finds a model. Raises
    ``SchemaMappingError``."""
    folder = base if base is not None else Path.cwd()
    if match := _FILE.fullmatch(spec):
        module = _run_file(folder / match["file"])
    elif match := _IMPORT.fullmatch(spec):
        module = _import(match["module"], folder, spec)
    else:
        raise SchemaMappingError(f"{spec}: give package.module:name, or path/to/file.py:name")
    if not hasattr(module, match["name"]):
        raise SchemaMappingError(f"{spec}: the module has no {match['name']}")
    return getattr(module, match["name"])


def _from_json_file(path: Path) -> type[BaseModel]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SchemaMappingError(f"the schema file {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise SchemaMappingError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise SchemaMappingError(f"the schema file {path} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise SchemaMappingError(
            f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SchemaMappingError(f"{path} is not JSON: {error}") from error
    try:
        return model_of(document, name=path.name.removesuffix(".json").removesuffix(".schema"))
    except SchemaMappingError as error:
        raise SchemaMappingError(f"{path}: {error}") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


def _import(name: str, folder: Path, spec: str) -> ModuleType:
    path = str(folder.resolve())
    added = path not in sys.path
    if added:
        sys.path.append(path)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SchemaMappingError(
                f"{spec}: there is no module {error.name}, neither installed nor in {path}; check the name, or give a "
                "file as path/to/file.py:Model"
            ) from error
        raise SchemaMappingError(f"{spec}: importing {name} failed: {error}") from error
    except Exception as error:
        raise SchemaMappingError(f"{spec}: importing {name} failed: {type(error).__name__}: {error}") from error
    finally:
        if added and path in sys.path:
            sys.path.remove(path)


def _run_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise SchemaMappingError(f"the schema file {path} does not exist")
    # Pydantic looks annotations up in sys.modules, under a name that no other file has.
    name = f"quarry_schema_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise SchemaMappingError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SchemaMappingError(f"{path}: running the file failed: {type(error).__name__}: {error}") from error
    return module


def _from_module(module: ModuleType, name: str, spec: str) -> type[BaseModel]:
    found = getattr(module, name, None)
    models = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]
    listed = f"; its models are {', '.join(models)}" if models else "; it defines no pydantic models"
    if found is None:
        raise SchemaMappingError(f"{spec}: the module has no {name}{listed}")
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise SchemaMappingError(f"{spec}: {name} is a {type(found).__name__}, not a pydantic model class{listed}")
    return found
