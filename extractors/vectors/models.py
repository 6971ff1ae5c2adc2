"""Which models embed and re-rank: from the job and the profiles to limits, a price and an address."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from extractors.errors import JobError
from extractors.qwen.prices import Pricing, pricing_for
from extractors.qwen.profiles import Profile, load_profiles
from extractors.qwen.requests import Purpose
from extractors.tokens import estimate_tokens, most_tokens

_UNSURE = 1.2
"""An estimate of tokens may be 15 % too low."""
UNKNOWN_EMBEDDING = Profile(name="unknown-embedding", bucket="embedding", max_input=2048, most_texts=10)
UNKNOWN_RERANK = Profile(name="unknown-rerank", bucket="rerank", max_input=2048, most_texts=100, most_call=30_000)
"""What is safe to ask of a model without a row of its own."""


@dataclass(frozen=True, slots=True)
class HelperModel:
    """A model that helps to find what matters in long texts, at its address. ``dimensions`` is 0 where it makes no
    vectors."""

    name: str
    profile: Profile
    pricing: Pricing
    address: str
    api_key: SecretStr
    dimensions: int = 0

    @property
    def purpose(self) -> Purpose:
        """What it is asked for."""
        return Purpose.EMBED if self.dimensions else Purpose.RERANK

    @property
    def sent_dimensions(self) -> int | None:
        """The length that a request asks for; None where none may be asked for."""
        return self.dimensions if self.profile.sized else None

    def fitted(self, text: str) -> str:
        """The text, cut where it is longer than the model takes."""
        return cut_to(text, self.profile.max_input)


@dataclass(frozen=True, slots=True)
class Helpers:
    """The job's models for long texts beside the one that answers."""

    embedding: HelperModel | None = None
    rerank: HelperModel | None = None
    models: tuple[HelperModel, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(one for one in (self.embedding, self.rerank) if one is not None))


def cut_to(text: str, most: int) -> str:
    """The longest beginning of a text that has surely no more than ``most`` tokens: by its bytes, else by an estimate with
    room to spare."""
    if most_tokens(text) <= most or estimate_tokens(text) * _UNSURE <= most:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[:middle]) * _UNSURE <= most:
            low = middle
        else:
            high = middle - 1
    return text[: max(low, 1)]


def embedding_model(
    name: str, *, dimensions: int | None, address: str | None, api_key: SecretStr, profiles: Path | None
) -> HelperModel:
    """The model that makes vectors. Raises ``JobError`` without an address, for a length that it does not make, and
    where nothing is known of its lengths and the job says none."""
    at = _address(name, address)
    profile = load_profiles(profiles).helper(name, "embedding") or UNKNOWN_EMBEDDING
    known = profile.dimensions
    if dimensions is None:
        if not known:
            raise JobError(f"how long the vectors of {name} are is not known: give --embedding-dimensions")
        dimensions = known[0]
    elif known and dimensions not in known:
        raise JobError(
            f"--embedding-dimensions {dimensions}: {name} makes vectors of {', '.join(map(str, sorted(known)))}"
        )
    return HelperModel(name, profile, pricing_for(profile, name, base_url=at), at, api_key, dimensions)


def rerank_model(name: str, *, address: str | None, api_key: SecretStr, profiles: Path | None) -> HelperModel:
    """The model that puts texts in order. Raises ``JobError`` without an address."""
    at = _address(name, address)
    profile = load_profiles(profiles).helper(name, "rerank") or UNKNOWN_RERANK
    return HelperModel(name, profile, pricing_for(profile, name, base_url=at), at, api_key)


def _address(name: str, address: str | None) -> str:
    if address is None:
        raise JobError(
            f"{name} needs an address: set --region (DASHSCOPE_REGION) with a key of that region in DASHSCOPE_API_KEY, or "
            "--base-url (QWEN_BASE_URL_COMPAT); the embedded models make no embeddings"
        )
    return address
