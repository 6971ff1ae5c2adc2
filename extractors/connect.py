"""Opens the way to a model: the transport, and the policies around it, in one order.

``Traced(KeyAdvice(WarmUp(asking(Retrying(Limited(Gate(shaping(Budgeted(HttpTransport)))))))))``, from the outside:

- ``Traced`` tells of each call, where telemetry is configured (``traced``);
- ``KeyAdvice`` puts a refused key into words;
- ``WarmUp`` lets the first call end before the others begin, where the provider caches prefixes. Those that wait hold
  nothing;
- ``asking`` asks again in another way what a model does not take, which is another question with tries of its own;
- ``Retrying`` waits outside of the limiter, so that a wait holds no slot;
- ``Limited`` sees every try, because that is what a provider's rate limit counts;
- ``Gate`` turns away what was still waiting there when the run was stopped, or when a call found the key rejected;
- ``shaping`` gives what is left the shape that the model takes by now;
- ``Budgeted`` reserves money for each HTTP try, so that a try that the provider may charge is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from extractors.account import ACCOUNTS, LimitStats
from extractors.budget import Budget, Budgeted
from extractors.credentials import KeyAdvice
from extractors.endpoint import Endpoint
from extractors.fallback import ModeFallback
from extractors.limits import Limited, Permit
from extractors.qwen.profiles import is_loopback
from extractors.qwen.requests import Call, CallError, ChatReply, ChatRequest, ErrorKind, Purpose
from extractors.qwen.transport import HttpTransport
from extractors.retry import Retrying
from extractors.vectors.models import HelperModel
from extractors.vectors.wire import EMBEDDINGS, RERANKS, Checked, embedding_bound, rerank_bound
from extractors.warmup import WarmUp, worth_waiting_for
from schemas.job import ExtractionJob

RAMP_SECONDS = 1.0
"""Over how long the first window of calls to a hosted service is spread."""


async def connect(
    job: ExtractionJob,
    endpoint: Endpoint,
    address: str,
    stack: AsyncExitStack,
    stopping: asyncio.Event,
    *,
    on_limits: Callable[[LimitStats], None],
    permit: Permit | None = None,
    final_address: str = "",
    final_traced: Callable[[Call], Call] | None = None,
    on_budget: Callable[[Budget], None] | None = None,
    make_budget: Callable[[Decimal | None, int | None], Budget] = Budget,
    traced: Callable[[Call], Call] | None = None,
) -> Call:
    """The call that the engine asks through. ``permit`` is a limit that all machines share; ``final_address`` is that
    of the endpoint's final model, which has policies of its own and the same budget, which
    ``make_budget`` makes of the job's ceilings. Raises ``JobError`` for a ceiling
    that cannot be held."""
    budget = None
    if job.max_cost is not None or job.max_tokens is not None:
        budget = make_budget(job.max_cost, job.max_tokens)
        if on_budget is not None:
            on_budget(budget)
    call = await _connect_one(
        job, endpoint, address, stack, stopping, budget, on_limits=on_limits, permit=permit, traced=traced
    )
    helpers = {
        helper.purpose: await _connect_helper(job, helper, stack, stopping, budget, permit, endpoint.concurrency)
        for helper in endpoint.helpers.models
    }
    call = await _with_final(
        job, endpoint, call, final_address, stack, stopping, budget, permit=permit, traced=final_traced
    )
    if not helpers:
        return call

    async def helped(request: ChatRequest) -> ChatReply | CallError:
        return await helpers.get(request.purpose, call)(request)

    return helped


async def _with_final(
    job: ExtractionJob,
    endpoint: Endpoint,
    call: Call,
    address: str,
    stack: AsyncExitStack,
    stopping: asyncio.Event,
    budget: Budget | None,
    *,
    permit: Permit | None,
    traced: Callable[[Call], Call] | None,
) -> Call:
    """``call``, with the final model's beside it where there is one."""
    final = endpoint.final
    if final is None:
        return call
    other = await _connect_one(
        job,
        final,
        address,
        stack,
        stopping,
        budget,
        on_limits=lambda stats: None,
        permit=permit,
        traced=traced,
    )

    async def asked(request: ChatRequest) -> ChatReply | CallError:
        return await (other if request.model == final.model else call)(request)

    return asked


async def _connect_one(
    job: ExtractionJob,
    endpoint: Endpoint,
    address: str,
    stack: AsyncExitStack,
    stopping: asyncio.Event,
    budget: Budget | None,
    *,
    on_limits: Callable[[LimitStats], None],
    permit: Permit | None,
    traced: Callable[[Call], Call] | None,
) -> Call:
    """The policies around one model."""
    transport = await stack.enter_async_context(
        HttpTransport(
            address,
            api_key=endpoint.api_key,
            pricing=endpoint.pricing,
            profile=endpoint.profile,
            dialect=endpoint.dialect,
            stream=job.stream,
            timeout=job.timeout,
            idle_timeout=job.idle_timeout,
            connections=endpoint.concurrency,
        )
    )
    call: Call = transport
    if budget is not None:
        least = 0 if endpoint.dialect.limits_output else endpoint.profile.max_output
        call = Budgeted(call, budget, pricing=endpoint.pricing, least_output=least)
    sleep = partial(_sleep, stopping)
    fallback = ModeFallback.of(endpoint, address)
    gated = Gate(fallback.shaping(call), stopping)
    limited = Limited(
        gated,
        concurrency=endpoint.concurrency,
        rpm=job.rpm,
        tpm=job.tpm,
        # Only hosted services guard against steep growth, and a pace is gentle by itself.
        ramp=0.0 if is_loopback(address) or job.rpm else RAMP_SECONDS,
        account=ACCOUNTS.at(address, endpoint.api_key, endpoint.model, now=time.monotonic()),
        permit=permit,
        sleep=sleep,
        stopped=stopping.is_set,
    )
    stack.callback(limited.close)
    on_limits(limited.stats)
    retrying = Retrying(limited, attempts=job.transport_attempts, total_seconds=job.transport_seconds, sleep=sleep)
    call = fallback.asking(retrying)
    if worth_waiting_for(endpoint.profile):
        call = WarmUp(call, profile=endpoint.profile, sleep=sleep)
    call = KeyAdvice(call, address, endpoint.api_key)
    return call if traced is None else traced(call)


async def _connect_helper(
    job: ExtractionJob,
    helper: HelperModel,
    stack: AsyncExitStack,
    stopping: asyncio.Event,
    budget: Budget | None,
    permit: Permit | None,
    concurrency: int,
) -> Call:
    """The policies around a model that embeds or re-ranks: those of any other that say something about it."""
    ranks = helper.purpose is Purpose.RERANK
    transport = await stack.enter_async_context(
        HttpTransport(
            helper.address,
            api_key=helper.api_key,
            pricing=helper.pricing,
            profile=helper.profile,
            dialect=RERANKS if ranks else EMBEDDINGS,
            stream="never",
            timeout=job.timeout,
            connections=concurrency,
        )
    )
    call: Call = Checked(transport, dimensions=helper.dimensions or None)
    if budget is not None:
        bound = partial(rerank_bound if ranks else embedding_bound, helper.pricing)
        call = Budgeted(call, budget, pricing=helper.pricing, bound=bound)
    sleep = partial(_sleep, stopping)
    limited = Limited(
        Gate(call, stopping),
        concurrency=concurrency,
        rpm=job.rpm,
        tpm=job.tpm,
        ramp=0.0 if is_loopback(helper.address) or job.rpm else RAMP_SECONDS,
        account=ACCOUNTS.at(helper.address, helper.api_key, helper.name, now=time.monotonic()),
        permit=permit,
        sleep=sleep,
        stopped=stopping.is_set,
    )
    stack.callback(limited.close)
    retrying = Retrying(limited, attempts=job.transport_attempts, total_seconds=job.transport_seconds, sleep=sleep)
    return KeyAdvice(retrying, helper.address, helper.api_key)


class Gate:
    """Lets calls through until the run is stopped, or one has met what would meet them all (a rejected key, an
    unknown model); after that they are turned away unasked."""

    def __init__(self, call: Call, stopping: asyncio.Event) -> None:
        self._call = call
        self._stopping = stopping
        self._shut = False

    async def __call__(self, request: ChatRequest) -> ChatReply | CallError:
        """The call's result, or ``CANCELLED``."""
        if self._shut or self._stopping.is_set():
            return CallError(ErrorKind.CANCELLED, "the run was stopped before this was asked", request.model)
        result = await self._call(request)
        if isinstance(result, CallError) and result.fatal:
            self._shut = True
        return result


async def _sleep(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until the run is stopped."""
    if stopping.is_set():
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def liveness(address: str) -> Callable[[], Coroutine[Any, Any, str | None]]:
    """A probe that says, in one sentence, when nothing listens at the address any more; else None."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    async def probe() -> str | None:
        for attempt in range(3):
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout=5)
            except (OSError, TimeoutError) as error:
                trouble = error
                await asyncio.sleep(0.2 * (attempt + 1))
                continue
            writer.close()
            return None
        return (
            f"nothing answers at {host}:{port} ({type(trouble).__name__}); start the server or mend --base-url, "
            "then run the same command again: only what is missing is asked"
        )

    return probe
