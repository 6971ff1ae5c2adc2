"""Where the questions go: from the job and the environment to an address, a key and a model's profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from extractors.errors import JobError
from extractors.qwen.dialects import CHAT, Dialect, pick_dialect
from extractors.qwen.local import EmbeddedModel, is_embedded
from extractors.qwen.prices import Pricing, pricing_for
from extractors.qwen.profiles import Profile, load_profiles
from extractors.qwen.requests import Mode
from extractors.recipe import ModelPolicy
from schemas.job import ExtractionJob

DEFAULT_MODEL = "local-1.5b"
DEFAULT_CONCURRENCY = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Read once at the border, by ``Settings.from_environment``."""

    api_key: SecretStr = field(default_factory=lambda: SecretStr(""))
    base_url: str | None = None
    dashscope_url: str | None = None
    default_model: str | None = None
    final_model: str | None = None
    vision_model: str | None = None
    profiles: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """``DASHSCOPE_API_KEY``, ``QWEN_BASE_URL_COMPAT``, ``QWEN_BASE_URL_DASHSCOPE``,
        ``QWEN_DEFAULT_MODEL``, ``QWEN_FINAL_MODEL``, ``QWEN_VISION_MODEL``, ``QUARRY_PROFILES``."""
        env = os.environ if environ is None else environ
        return cls(
            api_key=SecretStr(env.get("DASHSCOPE_API_KEY", "").strip()),
            base_url=env.get("QWEN_BASE_URL_COMPAT") or None,
            dashscope_url=env.get("QWEN_BASE_URL_DASHSCOPE") or None,
            default_model=env.get("QWEN_DEFAULT_MODEL") or None,
            final_model=env.get("QWEN_FINAL_MODEL") or None,
            vision_model=env.get("QWEN_VISION_MODEL") or None,
            profiles=Path(env["QUARRY_PROFILES"]) if env.get("QUARRY_PROFILES") else None,
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model at one address. For an embedded model ``base_url`` is None until ``serve`` has started it."""

    model: str
    profile: Profile
    pricing: Pricing
    policy: ModelPolicy
    concurrency: int
    api_key: SecretStr
    base_url: str | None
    embedded: EmbeddedModel | None = None
    dialect: Dialect = CHAT

    def serve(self, *, progress: Callable[[str, int, int], None] | None = None) -> AbstractContextManager[str]:
        """The base URL for as long as it is needed; starts and stops the embedded server where there is one."""
        if self.embedded is not None:
            return self.embedded.serve(progress=progress)
        return nullcontext(self.base_url or "")


def resolve_endpoint(job: ExtractionJob, settings: Settings, *, model: str | None = None) -> Endpoint:
    """Decide who answers. ``model`` overrides the job's (a retry with another model).

    Without a model and an address, the embedded one answers. Raises ``JobError`` for a hosted model
    without an address.
    """
    address = job.base_url or settings.base_url or (settings.dashscope_url if job.dialect == "dashscope" else None)
    name = model or job.model or settings.default_model or ("qwen-plus" if address else DEFAULT_MODEL)
    if is_embedded(name) and job.base_url is None:
        return _embedded(job, name, settings)
    if address is None:
        raise JobError(
            f"{name} needs an address: set QWEN_BASE_URL_COMPAT or --base-url, for instance "
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1 (Singapore) or "
            "https://dashscope.aliyuncs.com/compatible-mode/v1 (Beijing), with a key of that region in "
            "DASHSCOPE_API_KEY; or use the embedded model with --model local-1.5b"
        )
    profile = load_profiles(settings.profiles).find(name, base_url=address)
    dialect = pick_dialect(job.dialect, profile)
    if dialect.route.native and job.base_url is None:
        address = settings.dashscope_url or address
    mode = Mode(job.mode) if job.mode != "auto" else profile.modes[0]
    return Endpoint(
        model=name,
        profile=profile,
        pricing=pricing_for(profile, name, base_url=address),
        policy=ModelPolicy(
            name=name,
            mode=mode,
            thinking=profile.thinking_flag,
            max_input_tokens=profile.max_input,
            max_output_tokens=profile.max_output,
        ),
        concurrency=job.concurrency or DEFAULT_CONCURRENCY,
        api_key=settings.api_key,
        base_url=address,
        dialect=dialect,
    )


def _embedded(job: ExtractionJob, name: str, settings: Settings) -> Endpoint:
    if job.dialect not in ("auto", "chat"):
        raise JobError(
            f"the embedded model speaks chat, not {job.dialect}; leave --dialect out, or name a hosted model"
        )
    embedded = EmbeddedModel(name, slots=job.concurrency)
    profile = load_profiles(settings.profiles).find(name, base_url=None)
    return Endpoint(
        model=name,
        profile=profile,
        pricing=pricing_for(profile, name, base_url=None),
        policy=ModelPolicy(
            name=name,
            mode=Mode(job.mode) if job.mode != "auto" else Mode.GRAMMAR,
            thinking=None,
            max_input_tokens=embedded.max_input_tokens,
            max_output_tokens=embedded.max_output_tokens,
            weights=embedded.sha256,
        ),
        concurrency=embedded.slots,
        api_key=SecretStr(""),
        base_url=None,
        embedded=embedded,
    )


def settings_without_secrets(settings: Settings) -> dict[str, Any]:
    """What ``quarry doctor`` may show: the key only as set or not set."""
    return {
        "DASHSCOPE_API_KEY": "set" if settings.api_key.get_secret_value() else "not set",
        "QWEN_BASE_URL_COMPAT": settings.base_url,
        "QWEN_BASE_URL_DASHSCOPE": settings.dashscope_url,
        "QWEN_DEFAULT_MODEL": settings.default_model,
        "QWEN_FINAL_MODEL": settings.final_model,
        "QWEN_VISION_MODEL": settings.vision_model,
    }
