"""The ``Qwen credentials`` block: saved once in Prefect, named by jobs, so that a key is never a parameter."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from extractors.credentials import QwenCredentials
from extractors.endpoint import Settings
from extractors.errors import JobError


class QwenCredentialsBlock(Block):
    """A key of the Qwen API and where it is valid: a region, or an address of its own."""

    _block_type_name = "Qwen credentials"
    _block_type_slug = "qwen-credentials"
    _description = "A key of the Qwen API with its region, address and workspace, for Quarry's flows."

    api_key: SecretStr = Field(default=SecretStr(""), title="API key", description="The key; kept secret.")
    region: str | None = Field(default=None, description="A region's id or short name, such as intl or beijing.")
    base_url: str | None = Field(
        default=None, title="Base URL", description="The root of an OpenAI-compatible API, in the place of a region."
    )
    workspace: str | None = Field(default=None, description="A workspace id, for the workspace's own host.")

    def credentials(self) -> QwenCredentials:
        """The same as the plain model that the extractors know."""
        return QwenCredentials(
            api_key=self.api_key, region=self.region, workspace=self.workspace, base_url=self.base_url
        )


def settings_with(name: str | None) -> Settings:
    """The environment's settings, with the key and the place of the block ``name`` where one is named.

    Raises ``JobError`` for a block that there is none of."""
    settings = Settings.from_environment()
    if name is None:
        return settings
    try:
        block = cast(QwenCredentialsBlock, QwenCredentialsBlock.load(name))
    except ValueError as error:
        raise JobError(
            f"there is no Qwen credentials block {name!r} in this Prefect: make it in the UI under Blocks, or with "
            f"`python -m flows.blocks {name}` (key and region from DASHSCOPE_API_KEY and DASHSCOPE_REGION)"
        ) from error
    told = block.credentials()
    return replace(settings, api_key=told.api_key, region=told.region, base_url=told.base_url, workspace=told.workspace)


def save_from_environment(name: str) -> None:
    """Keep the environment's key and place as the block ``name``. Raises ``JobError`` where there is no key."""
    found = QwenCredentials.from_environment()
    if not found.has_key:
        raise JobError("set DASHSCOPE_API_KEY (and DASHSCOPE_REGION or QWEN_BASE_URL_COMPAT) first")
    block = QwenCredentialsBlock(
        api_key=found.api_key, region=found.region, base_url=found.base_url, workspace=found.workspace
    )
    block.save(name, overwrite=True)


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: python -m flows.blocks NAME")
    try:
        save_from_environment(sys.argv[1])
    except JobError as error:
        sys.exit(str(error))
