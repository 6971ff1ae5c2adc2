"""What is known about a model, as rows of data: ``profiles.toml`` beside this file, the user's file above it."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from extractors.errors import JobError
from extractors.qwen.fitting import SEEN_ACCEPTED
from extractors.qwen.requests import Mode


class PriceRow(BaseModel):
    """Prices per million tokens for requests of at most ``up_to`` input tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    thinking: Decimal | None = Field(default=None, ge=0)
    cached_price: Decimal | None = Field(default=None, ge=0)
    up_to: int | None = Field(default=None, ge=1)
    currency: str = "USD"
    dated: str = ""


class Profile(BaseModel):
    """One model, or a line of models. Limits are in tokens; ``max_output`` is the answer alone,
    ``max_thinking`` what may be thought besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    family: str = "unknown"
    match: tuple[str, ...] = ()
    loopback: bool = False
    embedded: bool = False
    context: int = Field(default=32_768, ge=1)
    max_input: int = Field(default=30_720, ge=1)
    max_output: int = Field(default=8_192, ge=1)
    modes: tuple[Mode, ...] = Field(default=(Mode.JSON_OBJECT, Mode.PROMPTED), min_length=1)
    thinking: Literal["none", "off-by-default", "on-by-default", "always"] = "none"
    switch: Literal["enable_thinking", "chat_template_kwargs"] = "enable_thinking"
    max_thinking: int = Field(default=0, ge=0)
    prices: tuple[PriceRow, ...] = ()
    cached: Decimal = Field(default=Decimal(1), ge=0, le=1)
    currency: str = "USD"
    dated: str = ""
    logprobs: bool = False
    batch: bool = False
    """Whether the Batch API takes the model."""
    batch_price: Decimal = Field(default=Decimal("0.5"), ge=0, le=1)
    """The share of the live price that a batch costs."""
    bucket: Literal["fast", "balanced", "max", "vision", "embedding", "rerank", "long", "other"] = "other"
    dialects: tuple[Literal["chat", "responses", "dashscope"], ...] = Field(default=("chat",), min_length=1)
    """Wire formats that the model answers in, best first."""
    cache: Literal["none", "implicit", "explicit"] = "none"
    """Whether a repeated prefix is cheaper, and whether it must be marked (``cache_control``) for that."""
    stream_only_thinking: bool = True
    """Whether the model thinks only in streamed replies."""
    thinking_modes: tuple[Mode, ...] = (Mode.PROMPTED,)
    """The structured-output modes that may be used while it thinks."""
    most_texts: int = Field(default=1, ge=1)
    """Texts in one call for embeddings, or beside the query of one for re-ranking."""
    most_call: int = Field(default=0, ge=0)
    """Tokens of one such call; 0: no limit beyond those of each text."""
    dimensions: tuple[int, ...] = ()
    """Lengths of an embedding model's vectors, the usual one first."""
    sized: bool = False
    """Whether the length may be asked for."""
    vision: bool = False
    max_images: int = Field(default=0, ge=0)
    max_image_bytes: int = Field(default=10_000_000, ge=1)
    """Bytes of one encoded picture, before base64."""
    min_image_side: int = Field(default=11, ge=1)
    max_image_pixels: int = Field(default=12_845_056, ge=1)
    schema_keywords: tuple[str, ...] = SEEN_ACCEPTED
    """Keywords that its strict schemas may hold beyond types, properties, enums and unions; others are said in words."""
    probed: str = ""
    """When ``quarry model probe`` last asked the model itself."""
    always: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, row: Any) -> Any:
        """Give each price row the model's currency, date and price of cached input."""
        if not isinstance(row, Mapping):
            return row
        share = Decimal(str(row.get("cached", 1)))
        shared = {"currency": row.get("currency", "USD"), "dated": row.get("dated", "")}
        prices = []
        for price in row.get("prices", ()):
            if isinstance(price, Mapping) and "input" in price:
                price = {"cached_price": Decimal(str(price["input"])) * share, **shared, **price}
            prices.append(price)
        return {**row, "prices": prices}

    @model_validator(mode="after")
    def _tiers_rise(self) -> Profile:
        edges = [price.up_to for price in self.prices]
        closed = [edge for edge in edges[:-1] if edge is not None]
        if len(closed) < len(edges) - 1 or closed != sorted(closed) or (edges and edges[-1] is not None):
            raise ValueError("price tiers must rise by `up_to`, and the last one must have none")
        return self

    @property
    def thinking_flag(self) -> bool | None:
        """What to send: False where the model has a switch (set always, since defaults differ), else nothing."""
        return False if self.thinking in ("off-by-default", "on-by-default") else None

    @property
    def switchable(self) -> bool:
        """Whether thinking can be turned on and off."""
        return self.thinking in ("off-by-default", "on-by-default")


class Profiles:
    """All rows; ``find`` picks the one for a model."""

    def __init__(self, rows: tuple[Profile, ...], *, own: frozenset[str] = frozenset()) -> None:
        self.rows = rows
        self._own = own
        """Names of the rows that the user's file gave: they go above the others."""

    def offered(self) -> list[str]:
        """Names to choose a chat model from: the embedded ones, then those of one model each that have a price."""
        embedded = [row.name for row in self.rows if row.name.startswith("local-")]
        hosted = [
            row.name
            for row in self.rows
            if row.prices
            and row.bucket not in ("embedding", "rerank")
            and any(row.name == one.rstrip("*") for one in row.match)
        ]
        return [*embedded, *sorted(hosted)]

    def helper(self, name: str, bucket: str) -> Profile | None:
        """The row of a model that embeds or re-ranks, at whatever address: its limits are its own. None: not known."""
        plain = name.strip().lower().rsplit("/", 1)[-1]
        found = [
            (row.name in self._own, len(pattern), row)
            for row in self.rows
            for pattern in row.match
            if row.bucket == bucket and pattern != "*" and fnmatchcase(plain, pattern.lower())
        ]
        return max(found, key=lambda one: one[:2])[2] if found else None

    def find(self, name: str, *, base_url: str | None = None) -> Profile:
        """The row for a model's name, however spelt (``Qwen/Qwen3-32B``, ``qwen-plus-2025-12-01``).

        The pattern with the most literal characters wins, the user's rows before ours. On a loopback
        address a name of the priced hosted line means a gateway in front of the paid service, which costs
        what the service costs; any other name there is the user's row or the self-hosted one.
        Never fails: the last resort is the generic row."""
        plain = name.strip().lower().rsplit("/", 1)[-1].removesuffix(".gguf")
        local = base_url is not None and is_loopback(base_url)
        best: tuple[tuple[bool, bool, int], Profile] | None = None
        for row in self.rows:
            own = row.name in self._own
            if local and not own and not row.prices:
                continue
            for pattern in row.match:
                if not fnmatchcase(plain, pattern.lower()):
                    continue
                rank = (own, "*" not in pattern, len(re.sub(r"[*?]", "", pattern)))
                if best is None or rank > best[0]:
                    best = (rank, row)
        if best is not None:
            return best[1]
        return next(row for row in self.rows if (row.loopback if local else "*" in row.match))


def load_profiles(path: Path | None = None) -> Profiles:
    """Our rows, with those of the user's file above them. Raises ``JobError`` for a file that cannot be read."""
    shipped = _shipped()
    if path is None:
        return Profiles(tuple(Profile.model_validate(row) for row in shipped.values()))
    try:
        given = _rows(path.read_text(encoding="utf-8"))
        merged = {**shipped, **{name: _above(shipped, name, row) for name, row in given.items()}}
        rows = tuple(Profile.model_validate(row) for row in merged.values())
    except OSError as error:
        raise JobError(f"the profiles file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(f"the profiles file {path} is not TOML: {error}") from error
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            f"the profiles file {path} has a wrong row; each needs [[model]] with a name: {error}"
        ) from error
    return Profiles(rows, own=frozenset(given))


def is_loopback(base_url: str) -> bool:
    """Whether an address is on this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    url = base_url if "//" in base_url else f"//{base_url}"
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    rows = _rows((resources.files("extractors.qwen") / "profiles.toml").read_text(encoding="utf-8"))
    return {name: _above(rows, name, row) for name, row in rows.items()}


def _above(shipped: Mapping[str, dict[str, Any]], name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the user's over the shipped one of its name, or over the one that its ``base`` names."""
    own = dict(row)
    under = own.pop("base", None)
    if under is not None and under not in shipped:
        raise KeyError(f"base {under!r} of row {name!r} is no row of ours")
    return {**shipped.get(under or name, {}), **own, "name": name}


def _rows(text: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in tomllib.loads(text, parse_float=Decimal)["model"]}
