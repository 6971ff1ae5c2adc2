"""``python -m tests.fakes.qwen``: the fake service as a process of its own, and ``make simulator``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.fakes.cache import PromptCache
from tests.fakes.canned import Canned
from tests.fakes.faults import FAULTS, Answer, Faults
from tests.fakes.limits import Limits
from tests.fakes.plausible import Plausible
from tests.fakes.qwen import listen
from tests.fakes.rules import Rules
from tests.fakes.service import Service

_FROM_SCHEMA = "from-schema"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve in this process until it is ended, or until the command that ``--run`` names has ended: its exit code."""
    given = _parser().parse_args(argv)
    answer = _answer(given)
    seen: Counter[str] = Counter()
    if given.faults and callable(answer):
        answer = Faults(given.seed, mix=given.faults, then=answer)
        seen = answer.seen
    service = Service(
        answer,
        given.latency,
        rules=_rules(given),
        limits=_limits(given),
        cache=PromptCache() if given.cache else None,
        keep=False,
        piece=given.piece,
    )

    async def serve() -> int:
        server = await listen(service, port=given.port)
        port = server.sockets[0].getsockname()[1]
        if given.port_file is not None:
            # Renamed into place, so that who waits for the file never reads half of it.
            part = given.port_file.with_suffix(".part")
            part.write_text(str(port))
            part.rename(given.port_file)
        elif not given.run:
            _say(_greeting(port, key=given.api_key))
        if given.run:
            return await _run(given.run, port, key=given.api_key)
        await server.serve_forever()
        return 0

    code = 0
    # A shell starts what it runs in the background with Ctrl-C ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        code = asyncio.run(serve())
    if given.port_file is None:
        _say(_summary(service, seen))
    return code


async def _run(command: Sequence[str], port: int, *, key: str | None) -> int:
    """Run a command whose Qwen is this server, and wait for its end."""
    root = f"http://127.0.0.1:{port}"
    told = {
        "DASHSCOPE_API_KEY": key or "sk-simulated",
        "QWEN_BASE_URL_COMPAT": f"{root}/compatible-mode/v1",
        "QWEN_BASE_URL_DASHSCOPE": f"{root}/api/v1",
    }
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | told)
    return await process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakes.qwen",
        description="A Qwen-like server on loopback: chat, Responses, both native dialects, files, embeddings.",
        epilog=f"Faults by name: {', '.join(FAULTS)}.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0: a free one")
    add("--port-file", type=Path, help="where to write the port once it listens; nothing is printed then")
    add(
        "--answer",
        default="{}",
        help=f"the answer's text, `module:function` of the parsed body, or `{_FROM_SCHEMA}`: made from the "
        "request's schema and record",
    )
    add("--seed", type=int, default=0, help="of the faults and of the answers from a schema")
    add("--latency", type=float, default=0.0, help="seconds before each reply")
    add("--pace", type=float, default=0.0, help="seconds between the events of a stream")
    add("--piece", type=int, default=16, help="characters in each delta of a stream")
    add("--faults", type=_mix, default={}, help="shares of the requests, such as 429=0.2,500=0.05,reset=0.02,hang=0.01")
    add(
        "--rules",
        choices=["none", "basic", "documented"],
        default="none",
        help="what is refused: nothing; broken requests; also what the documents say that the model cannot do",
    )
    add("--api-key", help="the only key that is let in")
    add("--cache", action="store_true", help="simulate the prompt cache")
    add("--rpm", type=int, help="requests per minute, and a sixtieth of it per second")
    add("--tpm", type=int, help="tokens per minute, and a sixtieth of it per second")
    add("--in-flight", type=int, help="requests at the same time")
    add("--retry-after", type=float, help="seconds that a 429 of a limit tells to wait")
    add(
        "--run",
        nargs=argparse.REMAINDER,
        help="a command, to the end of the line, that is run with this server as its Qwen; the server ends with it",
    )
    return parser


def _answer(given: argparse.Namespace) -> Answer | Canned:
    if given.answer == _FROM_SCHEMA:
        return Plausible(given.seed, pace=given.pace)
    if re.fullmatch(r"[\w.]+:\w+", given.answer):
        module, _, name = given.answer.partition(":")
        found: Answer = getattr(importlib.import_module(module), name)
        return found
    checked = given.rules != "none" or given.faults or given.cache or given.api_key or _limits(given)
    if not checked:
        return Canned.of(given.answer, piece=given.piece)
    return lambda body: str(given.answer)


def _mix(told: str) -> dict[str, float]:
    """``429=0.2,reset=0.1`` as shares by name."""
    found: dict[str, float] = {}
    for one in filter(None, told.split(",")):
        name, _, share = one.partition("=")
        if name.strip() not in FAULTS:
            raise argparse.ArgumentTypeError(f"unknown fault {name.strip()!r}; known: {', '.join(FAULTS)}")
        try:
            found[name.strip()] = float(share)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{one!r} is not a share, such as 429=0.2") from error
    return found


def _rules(given: argparse.Namespace) -> Rules | None:
    if given.rules == "documented":
        return Rules.documented(api_key=given.api_key)
    return Rules(api_key=given.api_key) if given.rules == "basic" or given.api_key else None


def _limits(given: argparse.Namespace) -> Limits | None:
    if not (given.rpm or given.tpm or given.in_flight):
        return None
    return Limits(rpm=given.rpm, tpm=given.tpm, in_flight=given.in_flight, retry_after=given.retry_after)


def _greeting(port: int, *, key: str | None) -> str:
    root = f"http://127.0.0.1:{port}"
    secret = f"DASHSCOPE_API_KEY={key} " if key else ""
    return (
        f"compat  {root}/compatible-mode/v1\n"
        f"native  {root}/api/v1\n"
        f"counts  {root}/stats\n\n"
        f"{secret}quarry run examples/tickets.toml --model qwen3.7-plus \\\n"
        f"    --base-url {root}/compatible-mode/v1 --out simulator-out\n\n"
        "Ctrl-C ends it.\n"
    )


def _summary(service: Service, seen: Counter[str]) -> str:
    traffic = service.traffic
    lines = [
        f"\n{traffic.count} requests, {traffic.most_in_flight} at the same time, "
        f"{traffic.highest_rate()} in the busiest second",
        f"by dialect: {dict(service.dialects)}",
    ]
    if service.limits is not None:
        lines.append(f"refused by the limits: {service.limits.refused}")
    if seen:
        lines.append(f"faults: {dict(seen)}")
    lines += [f"error: {error}" for error in service.errors[:5]]
    return "\n".join(lines) + "\n"


def _say(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()
