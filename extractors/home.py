"""Where Quarry keeps what is the user's and not a run's: the profiles file, and what was learned of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def learned_file(environ: Mapping[str, str]) -> Path:
    """``$QUARRY_HOME/learned.json``, else ``quarry/learned.json`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "learned.json"


def journals_folder(environ: Mapping[str, str]) -> Path:
    """``journals`` beside the file of ``learned_file``: of runs whose output is on an object store."""
    return learned_file(environ).with_name("journals")


def profiles_file(environ: Mapping[str, str]) -> Path:
    """``$QUARRY_PROFILES``, else ``$QUARRY_HOME/profiles.toml``, else ``quarry/profiles.toml`` in
    ``$XDG_CONFIG_HOME`` or ``~/.config``. It need not exist."""
    chosen = environ.get("QUARRY_PROFILES")
    if chosen:
        return Path(chosen).expanduser()
    return _folder(environ, "XDG_CONFIG_HOME", ".config") / "profiles.toml"


def _folder(environ: Mapping[str, str], variable: str, usual: str) -> Path:
    own = environ.get("QUARRY_HOME")
    if own:
        return Path(own).expanduser()
    return Path(environ.get(variable) or Path.home() / usual) / "quarry"
