"""Where the questions go: from the job and the environment to an address, a key and a model's profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from extractors.credentials import QwenCredentials
from extractors.errors import JobError
from extractors.home import learned_file, profiles_file
from extractors.images import ImageLimits
from extractors.learned import Learned
from extractors.qwen.dialects import CHAT, RESPONSES, Dialect, pick_dialect
from extractors.qwen.local import EmbeddedModel, is_embedded
from extractors.qwen.prices import Pricing, pricing_for
from extractors.qwen.profiles import Profile, load_profiles
from extractors.qwen.requests import Mode
from extractors.qwen.vocabulary import GgufTokens
from extractors.recipe import ModelPolicy
from extractors.sources import has_pictures
from extractors.tuned import TunedWays
from extractors.vectors.models import Helpers, embedding_model, rerank_model
from schemas.job import ExtractionJob

DEFAULT_MODEL = "local-1.5b"
DRAFT_MODEL = "local-0.5b"
"""The embedded model that answers first where an embedded final one is named."""
FINAL_MODEL = "qwen-max"
VISION_MODEL = "qwen3-vl-plus"
DEFAULT_CONCURRENCY = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Read once at the border, by ``Settings.from_environment``; made by hand, it
    knows no files of the user's."""

    api_key: SecretStr = field(default_factory=lambda: SecretStr(""))
    base_url: str | None = None
    region: str | None = None
    workspace: str | None = None
    dashscope_url: str | None = None
    default_model: str | None = None
    final_model: str | None = None
    vision_model: str | None = None
    profiles: Path | None = None
    learned: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The variables of ``QwenCredentials``; ``QWEN_BASE_URL_DASHSCOPE``, ``QWEN_DEFAULT_MODEL``,
        ``QWEN_FINAL_MODEL``, ``QWEN_VISION_MODEL``; and the places of ``extractors.home``."""
        env = os.environ if environ is None else environ
        credentials = QwenCredentials.from_environment(env)
        profiles = profiles_file(env)
        return cls(
            api_key=credentials.api_key,
            base_url=credentials.base_url,
            region=credentials.region,
            workspace=credentials.workspace,
            dashscope_url=env.get("QWEN_BASE_URL_DASHSCOPE") or None,
            default_model=env.get("QWEN_DEFAULT_MODEL") or None,
            final_model=env.get("QWEN_FINAL_MODEL") or None,
            vision_model=env.get("QWEN_VISION_MODEL") or None,
            # A file that was named must be there; the usual one may be missing.
            profiles=profiles if env.get("QUARRY_PROFILES") or profiles.is_file() else None,
            learned=learned_file(env),
        )

    @property
    def credentials(self) -> QwenCredentials:
        """The key and where it is valid."""
        return QwenCredentials(
            api_key=self.api_key, region=self.region, workspace=self.workspace, base_url=self.base_url
        )


def settings_of(job: ExtractionJob, given: Settings | None) -> Settings:
    """The settings that are given, else the environment's. Raises ``JobError`` for a job that names a block of Prefect's
    without the settings that hold its key."""
    if given is None and job.credentials is not None:
        raise JobError(
            f"credentials {job.credentials!r} is a Prefect block: give settings with its key, or set DASHSCOPE_API_KEY instead"
        )
    return given or Settings.from_environment()


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
    modes: tuple[Mode, ...] = ()
    """Ways of asking for structure that may be used, the policy's own first."""
    learned: Learned = field(default_factory=Learned)
    """What the model was seen to refuse."""
    final: Endpoint | None = None
    """A stronger model, at an address of its own, for what this one is not sure of."""
    helpers: Helpers = field(default_factory=Helpers)
    """Models that help to find what matters in long records."""

    def serve(self, *, progress: Callable[[str, int, int], None] | None = None) -> AbstractContextManager[str]:
        """The base URL for as long as it is needed; starts and stops the embedded server where there is one."""
        if self.embedded is not None:
            return self.embedded.serve(progress=progress)
        return nullcontext(self.base_url or "")


def resolve_endpoint(job: ExtractionJob, settings: Settings, *, model: str | None = None) -> Endpoint:
    """Decide who answers, and who answers last. ``model`` overrides the job's (a retry with another model), and then
    it answers alone.

    Without a model, an address and a region in the job, the embedded one answers. Raises ``JobError`` for a
    hosted model without an address, for a region or a workspace that cannot be, for options that the model's
    profile rules out, and for a draft that is its own final.
    """
    endpoint = _resolve(job, settings, model)
    if job.embedding_model is not None or job.rerank_model is not None:
        endpoint = replace(endpoint, helpers=_helpers(job, settings, endpoint.pricing))
    if model is not None or (job.final is None and not job.high_accuracy):
        return endpoint
    usual = DEFAULT_MODEL if endpoint.embedded is not None else FINAL_MODEL
    final = _resolve(job, settings, job.final or settings.final_model or usual)
    if final.model == endpoint.model or (final.policy.weights or "") == endpoint.policy.weights:
        # It would be paid twice for what it thought the first time.
        raise JobError(
            f"the draft and the final are both {endpoint.model}: give two models, a cheap one with --model and a stronger "
            "one with --final (QWEN_FINAL_MODEL with --high-accuracy), or leave the final out"
        )
    if job.max_cost is not None and final.pricing.currency != endpoint.pricing.currency and final.pricing.known:
        raise JobError(
            f"--max-cost cannot be held over two currencies: {endpoint.model} is paid in {endpoint.pricing.currency}, "
            f"{final.model} in {final.pricing.currency}; use --max-tokens"
        )
    return replace(endpoint, final=final, policy=replace(endpoint.policy, final=final.policy))


def _resolve(job: ExtractionJob, settings: Settings, model: str | None) -> Endpoint:
    own = QwenCredentials(base_url=job.base_url, region=job.region, workspace=job.workspace)
    native = settings.dashscope_url if job.dialect == "dashscope" else None
    asked_for = job.base_url or job.region or settings.base_url or native
    usual = VISION_MODEL if has_pictures(job) else "qwen-plus"
    default = settings.vision_model if has_pictures(job) and settings.vision_model else settings.default_model
    final = job.final or ((settings.final_model or DEFAULT_MODEL) if job.high_accuracy else None)
    embedded = DRAFT_MODEL if final is not None and is_embedded(final) else DEFAULT_MODEL
    name = model or job.draft or job.model or default or (usual if asked_for else embedded)
    if is_embedded(name) and job.base_url is None:
        return _embedded(job, name, settings)
    address = _address(own, settings.credentials) or native
    if address is None:
        raise JobError(
            f"{name} needs an address: set --region (DASHSCOPE_REGION), such as intl (Singapore) or beijing, "
            "with a key of that region in DASHSCOPE_API_KEY; or --base-url (QWEN_BASE_URL_COMPAT) for any other "
            "OpenAI-compatible API; or use the embedded model with --model local-1.5b"
        )
    profile = load_profiles(settings.profiles).find(name, base_url=address)
    if profile.bucket in ("embedding", "rerank"):
        does = "makes embeddings" if profile.bucket == "embedding" else "orders texts"
        raise JobError(f"{name} {does} and extracts nothing: choose a model of another bucket (quarry model list)")
    budget = _thinking_budget(job, profile, name)
    dialect = pick_dialect(job.dialect, profile)
    modes = _modes(job, profile, dialect, thinking=budget is not None)
    if dialect.route.native and job.base_url is None and job.region is None:
        address = settings.dashscope_url or address
    return Endpoint(
        model=name,
        profile=profile,
        pricing=pricing_for(profile, name, base_url=address, thinking=budget),
        policy=ModelPolicy(
            name=name,
            mode=modes[0],
            thinking=profile.thinking_flag if budget is None else True,
            max_input_tokens=profile.max_input,
            max_output_tokens=profile.max_output,
            images=_image_limits(job, profile, name, settings),
            thinking_budget=budget,
            keywords=profile.schema_keywords,
            logprobs=profile.logprobs and dialect is CHAT,
        ),
        concurrency=job.concurrency or DEFAULT_CONCURRENCY,
        api_key=settings.api_key,
        base_url=address,
        dialect=dialect,
        modes=modes,
        learned=Learned(settings.learned),
    )


def _helpers(job: ExtractionJob, settings: Settings, pricing: Pricing) -> Helpers:
    """The models that the job names for long records. Raises ``JobError`` for one that cannot be used."""
    own = QwenCredentials(base_url=job.base_url, region=job.region, workspace=job.workspace)
    at = _address(own, settings.credentials) or settings.dashscope_url
    key, profiles = settings.api_key, settings.profiles
    embedding = rerank = None
    if (name := job.embedding_model) is not None:
        size = job.embedding_dimensions
        embedding = embedding_model(name, dimensions=size, address=at, api_key=key, profiles=profiles)
    if (name := job.rerank_model) is not None:
        rerank = rerank_model(name, address=at, api_key=key, profiles=profiles)
    found = Helpers(embedding, rerank)
    for one in found.models:
        if job.max_cost is not None and not one.pricing.known:
            raise JobError(
                f"--max-cost cannot be held: the price of {one.name} is unknown. Add its `prices` in a profiles file "
                "(QUARRY_PROFILES), or use --max-tokens"
            )
        if job.max_cost is not None and one.pricing.known and one.pricing.currency != pricing.currency:
            raise JobError(
                f"--max-cost cannot be held over two currencies: {one.name} is paid in {one.pricing.currency}, the model "
                f"that answers in {pricing.currency}; use --max-tokens"
            )
    return found


def _image_limits(job: ExtractionJob, profile: Profile, name: str, settings: Settings) -> ImageLimits | None:
    """What the model takes of the job's pictures; None where it has none. Raises ``JobError`` for a model that
    cannot see."""
    if not has_pictures(job):
        return None
    if not profile.vision:
        able = ", ".join(row.name for row in load_profiles(settings.profiles).rows if row.vision)
        raise JobError(
            f"the records have pictures and {name} cannot see, as far as its profile ({profile.name}) says; choose a "
            f"vision model with --model or QWEN_VISION_MODEL ({able or 'none is known'}), or give {name} a profile with "
            "vision = true in the file that QUARRY_PROFILES names"
        )
    return ImageLimits.of(profile)


def _address(own: QwenCredentials, usual: QwenCredentials) -> str | None:
    """The job's address or region, else those of the environment; a workspace of either goes with them."""
    if own.base_url is None and own.region is None and own.workspace is None:
        return usual.address()
    if own.base_url is not None:
        return own.base_url
    region = own.region or usual.region
    if region is None:
        raise JobError("--workspace needs --region (DASHSCOPE_REGION) beside it, such as intl or beijing")
    return QwenCredentials(region=region, workspace=own.workspace or usual.workspace).address()


def _thinking_budget(job: ExtractionJob, profile: Profile, name: str) -> int | None:
    """The tokens that the model may think, None where it is not to. Raises ``JobError`` where it cannot."""
    if not job.thinking:
        return None
    if profile.thinking == "none":
        raise JobError(
            f"{name} cannot think, as far as its profile ({profile.name}) says: leave --thinking out, or choose a model "
            "that `quarry model list` shows with thinking"
        )
    if profile.max_thinking and job.thinking > profile.max_thinking:
        raise JobError(f"--thinking {job.thinking}: {name} thinks {profile.max_thinking:,} tokens at most")
    return job.thinking


def _modes(job: ExtractionJob, profile: Profile, dialect: Dialect, *, thinking: bool) -> tuple[Mode, ...]:
    """The modes that may be used, best first; the one that was asked for is the only one. The Responses API is not
    known to read ``text.format``, and says nothing about what it ignores, so a tool goes first there."""
    possible = profile.modes
    if thinking or profile.thinking == "always":
        possible = profile.thinking_modes
    if job.mode == "auto":
        if dialect is RESPONSES:
            possible = tuple(sorted(possible, key=lambda mode: mode is not Mode.TOOLS))
        return possible
    mode = Mode(job.mode)
    if thinking and mode not in possible:
        raise JobError(
            f"--mode {mode.value} cannot be used while the model thinks: leave --mode or --thinking out, or choose "
            f"{', '.join(one.value for one in possible)}"
        )
    return (mode,)


def _embedded(job: ExtractionJob, name: str, settings: Settings) -> Endpoint:
    if job.thinking:
        raise JobError(f"{name} cannot think: leave --thinking out, or choose a hosted model that can")
    if job.dialect not in ("auto", "chat"):
        raise JobError(
            f"the embedded model speaks chat, not {job.dialect}; leave --dialect out, or name a hosted model"
        )
    embedded = EmbeddedModel(name, slots=job.concurrency, probabilities=job.confidence == "auto")
    # Any weights that Quarry serves itself are embedded, whatever row their file's name finds.
    found = load_profiles(settings.profiles).find(embedded.weights, base_url=None)
    profile = found.model_copy(update={"embedded": True})
    mode = Mode(job.mode) if job.mode != "auto" else Mode.GRAMMAR
    return Endpoint(
        model=name,
        profile=profile,
        pricing=pricing_for(profile, embedded.weights, base_url=None),
        policy=ModelPolicy(
            name=name,
            mode=mode,
            thinking=None,
            max_input_tokens=embedded.max_input_tokens,
            max_output_tokens=embedded.max_output_tokens,
            weights=embedded.sha256,
            images=_image_limits(job, profile, name, settings),
            keywords=profile.schema_keywords,
            logprobs=profile.logprobs,
            tokenizer=GgufTokens(embedded.weights),
            tuned=None
            if embedded.adapter is None
            else TunedWays(embedded.adapter.system_sha256, embedded.adapter.omit_nulls, embedded.adapter.text_order),
        ),
        concurrency=embedded.slots,
        api_key=SecretStr(""),
        base_url=None,
        embedded=embedded,
        modes=(mode,),
    )


def settings_without_secrets(settings: Settings) -> dict[str, Any]:
    """What ``quarry doctor`` may show: the key only as set or not set."""
    return {
        "DASHSCOPE_API_KEY": "set" if settings.credentials.has_key else "not set",
        "QWEN_BASE_URL_COMPAT": settings.base_url,
        "QWEN_BASE_URL_DASHSCOPE": settings.dashscope_url,
        "DASHSCOPE_REGION": settings.region,
        "QWEN_WORKSPACE": settings.workspace,
        "QWEN_DEFAULT_MODEL": settings.default_model,
        "QWEN_FINAL_MODEL": settings.final_model,
        "QWEN_VISION_MODEL": settings.vision_model,
        "profiles": str(settings.profiles) if settings.profiles else None,
    }
