"""Where the hosted service is: regions, their hosts, workspace hosts, and which region an address is of.

Hosts are those of the provider's documentation and SDK. A key belongs to one region, and is refused with a
401 in every other. Frankfurt and Tokyo have workspace hosts only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from extractors.errors import JobError
from extractors.qwen import addresses

COMPAT = "/compatible-mode/v1"
_WORKSPACE_HOSTS = "maas.aliyuncs.com"
_WORKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PLAN_KEY = "sk-sp-"
"""How the keys of a Coding Plan or Token Plan begin."""
PLAN_HOSTS = ("coding-intl.dashscope.aliyuncs.com", "token-plan.ap-southeast-1.maas.aliyuncs.com")
_PLAN_ADDRESSES = (f"https://{PLAN_HOSTS[0]}/v1", f"https://{PLAN_HOSTS[1]}{COMPAT}")


@dataclass(frozen=True, slots=True)
class Region:
    """One region of the service. ``shared`` is its host for every account, None where it has none."""

    id: str
    place: str
    shared: str | None
    also: tuple[str, ...] = ()
    """Short names of it."""

    def base_url(self, workspace: str | None = None) -> str:
        """The root of the OpenAI-compatible API. Raises ``JobError`` for a workspace id that cannot be one, and
        where only workspaces have an address."""
        if workspace is not None:
            return f"https://{checked_workspace(workspace)}.{self.id}.{_WORKSPACE_HOSTS}{COMPAT}"
        if self.shared is None:
            raise JobError(
                f"{self.place} ({self.id}) has no address without a workspace: add --workspace (QWEN_WORKSPACE) with the "
                "workspace id that the provider's console shows"
            )
        return f"https://{self.shared}{COMPAT}"


REGIONS: tuple[Region, ...] = (
    Region("cn-beijing", "Beijing", "dashscope.aliyuncs.com", ("beijing", "cn")),
    Region("ap-southeast-1", "Singapore", "dashscope-intl.aliyuncs.com", ("singapore", "intl")),
    Region("us-east-1", "US Virginia", "dashscope-us.aliyuncs.com", ("virginia", "us")),
    Region("cn-hongkong", "Hong Kong", "cn-hongkong.dashscope.aliyuncs.com", ("hongkong",)),
    Region("eu-central-1", "Frankfurt", None, ("frankfurt", "eu")),
    Region("ap-northeast-1", "Tokyo", None, ("tokyo",)),
)


def region_named(name: str) -> Region:
    """A region by its id or a short name (``intl``). Raises ``JobError`` with those that there are."""
    plain = name.strip().lower()
    for region in REGIONS:
        if plain == region.id or plain in region.also:
            return region
    known = ", ".join(f"{region.id} ({' or '.join(region.also)})" for region in REGIONS)
    raise JobError(f"there is no region {name!r}: choose {known}")


def checked_workspace(workspace: str) -> str:
    """The workspace id, fit to stand in a host name. Raises ``JobError``; the SDK's own rule."""
    plain = workspace.strip()
    if not _WORKSPACE.fullmatch(plain):
        raise JobError(
            f"{workspace!r} is no workspace id: it begins with a letter or a digit and has up to 64 letters, digits, "
            "'_' and '-'"
        )
    return plain


def host_of(base_url: str) -> str:
    """The host of an address, in lower case, with its port where one is given."""
    parts = urlsplit(base_url if "//" in base_url else f"//{base_url}")
    host = (parts.hostname or "").rstrip(".").lower()
    try:
        port = parts.port
    except ValueError:
        return host
    return f"{host}:{port}" if port else host


def region_of(base_url: str) -> Region | None:
    """The region that a key must be of at an address; None for addresses that are not the provider's, and for the
    plans' own."""
    if host_of(base_url).partition(":")[0] in PLAN_HOSTS:
        return None
    found = addresses.region_of(base_url)
    return next((region for region in REGIONS if region.id == found), None)


def is_plan_key_at(base_url: str, key: str) -> bool:
    """Whether a key is of a plan, and the address is not one of the plans'."""
    return key.startswith(PLAN_KEY) and host_of(base_url).partition(":")[0] not in PLAN_HOSTS


def key_advice(base_url: str, key: str) -> str:
    """What to do after a 401 at an address, in one or two sentences; "" where there is nothing to say.

    The key itself is not part of it, only whether it is a plan's."""
    if is_plan_key_at(base_url, key):
        return (
            f"the key begins with {PLAN_KEY}, so it is of a Coding Plan or Token Plan, and those work only at their own "
            f"addresses: --base-url {' or '.join(_PLAN_ADDRESSES)}"
        )
    here = region_of(base_url)
    if here is None:
        return ""
    others = ", ".join(
        f"--region {region.id} ({region.place}" + ("" if region.shared else ", with --workspace") + ")"
        for region in REGIONS
        if region is not here
    )
    return (
        f"the address {host_of(base_url)} is of {here.place} ({here.id}), and a key is valid in its own region only. "
        f"If the key was made in another one, use {others}"
    )
