"""``QwenCredentials``: the key and where it is valid, as one object that never shows the key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from extractors.qwen.regions import checked_workspace, is_plan_key_at, key_advice, region_named
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, ErrorKind


class QwenCredentials(BaseModel):
    """A key of the hosted service with its region, or its own address.

    An address wins over a region. Neither: there is no hosted address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr = Field(default_factory=lambda: SecretStr(""), description="The key; never shown.")
    region: str | None = Field(default=None, description="A region's id or short name, such as cn-beijing or intl.")
    workspace: str | None = Field(default=None, description="The workspace id, for the workspace's own host.")
    base_url: str | None = Field(default=None, description="The root of an OpenAI-compatible API.")

    @field_validator("region", "workspace", "base_url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return (value.strip() or None) if isinstance(value, str) else value

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> QwenCredentials:
        """``DASHSCOPE_API_KEY``; ``QWEN_BASE_URL_COMPAT``; the region and the workspace under the names that the
        provider's SDKs read (``DASHSCOPE_REGION``, ``DASHSCOPE_API_REGION``; ``DASHSCOPE_WORKSPACE``,
        ``DASHSCOPE_WORKSPACE_ID``) or as ``QWEN_REGION`` and ``QWEN_WORKSPACE``, which go first."""
        env = os.environ if environ is None else environ
        regions = ("QWEN_REGION", "DASHSCOPE_REGION", "DASHSCOPE_API_REGION")
        workspaces = ("QWEN_WORKSPACE", "DASHSCOPE_WORKSPACE", "DASHSCOPE_WORKSPACE_ID")
        return cls(
            api_key=SecretStr(env.get("DASHSCOPE_API_KEY", "").strip()),
            region=next((env[name] for name in regions if env.get(name)), None),
            workspace=next((env[name] for name in workspaces if env.get(name)), None),
            base_url=env.get("QWEN_BASE_URL_COMPAT"),
        )

    def address(self) -> str | None:
        """The root of the OpenAI-compatible API that these credentials mean; None without a region or an address.
        Raises ``JobError`` for a region or a workspace that cannot be."""
        if self.base_url is not None:
            return self.base_url
        if self.region is not None:
            return region_named(self.region).base_url(self.workspace)
        if self.workspace is not None:
            checked_workspace(self.workspace)
        return None

    @property
    def has_key(self) -> bool:
        """Whether there is a key at all."""
        return bool(self.api_key.get_secret_value())

    def is_plan_key_at(self, address: str) -> bool:
        """Whether the key is of a plan, and the address is not one of the plans'."""
        return is_plan_key_at(address, self.api_key.get_secret_value())


class KeyAdvice:
    """A ``Call`` whose refused keys come with what to do: which region the address is of, and which others are."""

    def __init__(self, call: Call, address: str, api_key: SecretStr) -> None:
        self._call = call
        self._advice = key_advice(address, api_key.get_secret_value())

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """The call's result, its message longer where it is a 401."""
        result = await self._call(request)
        if (
            isinstance(result, CallError)
            and result.kind is ErrorKind.KEY
            and result.http_status == 401
            and self._advice
        ):
            return replace(result, message=f"{result.message}. {self._advice[0].upper()}{self._advice[1:]}")
        return result
