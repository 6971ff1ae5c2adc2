"""``make ui``: a Prefect server, the deployments and a worker on this machine, until Ctrl-C.

Everything is kept in one folder (``.prefect`` of the project), so that the next start finds its runs, blocks and
schedules again. The server listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import httpx

from flows import environment

PROJECT = Path(__file__).parents[1]
POOL = "quarry"
_PORT = 4200
_SERVER_SECONDS = 180.0


def main() -> int:
    """Start everything, print where it is, and wait."""
    parser = argparse.ArgumentParser(
        description="Prefect's server, Quarry's deployments and a worker, on this machine."
    )
    parser.add_argument(
        "--port", type=int, help=f"The server's port. Default: {_PORT}, or any free one where that is taken."
    )
    parser.add_argument("--home", type=Path, default=PROJECT / ".prefect", help="Where Prefect keeps its database.")
    given = parser.parse_args()
    # Ctrl-C and a plain kill end it the same way: the processes it started go with it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with running(home=given.home, port=given.port) as url:
            _say(
                f"\n  {url}/deployments\n\n"
                "Choose the deployment `extract`, then Run > Custom run: source, schema, out. The same from a terminal:\n"
                f"  PREFECT_API_URL={url}/api {_bin('prefect')} deployment run extract/extract "
                """-p job='{"source": "examples/data/products.csv", "schema": "schemas.product:Product", "out": "out/products"}'\n"""
                "A key goes into a block of the kind Qwen credentials (Blocks > +), and its name into the form.\n"
                "Without a key the embedded model answers. Ctrl-C ends the server and the worker; all is kept."
            )
            signal.pause()
    except KeyboardInterrupt:
        _say("stopped")
    except UIError as error:
        _say(str(error))
        return 1
    return 0


class UIError(Exception):
    """Something did not start; the message says what and where its log is."""


@contextlib.contextmanager
def running(*, home: Path, port: int | None = None, worker: bool = True) -> Iterator[str]:
    """Server, deployments and worker; gives the server's address. Raises ``UIError``."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    env = surroundings(home, url)
    log = home / "quarry-ui.log"
    with contextlib.ExitStack() as stack, log.open("a") as out:
        _say(f"starting Prefect's server on {url} (15 to 60 s; log: {log})")
        server = stack.enter_context(
            _process([_bin("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)], env, out)
        )
        _wait_for(url, server, log)
        _say("registering the credentials block, the work pool and the deployments")
        _run([_bin("prefect"), "block", "register", "--module", "flows.blocks"], env)
        _run([_bin("prefect"), "work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
        _run([_bin("prefect"), "--no-prompt", "deploy", "--all"], env)
        if worker:
            stack.enter_context(
                _process([_bin("prefect"), "worker", "start", "--pool", POOL, "--type", "process"], env, out)
            )
        yield url


def surroundings(home: Path, url: str) -> dict[str, str]:
    """The environment of the server, the worker and the flow runs that it starts."""
    return {
        **environment.DEFAULTS,
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{url}/api",
        # The page asks this address, whatever port the server was given.
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_UI_URL": url,
        "QUARRY_PROJECT": str(PROJECT),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def free_port(wanted: int | None) -> int:
    """The port that is wanted; the usual one, or any that is free, where none is. Raises ``UIError``."""
    for port in (wanted,) if wanted is not None else (_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port or 0))
            except OSError as error:
                if wanted is not None:
                    raise UIError(
                        f"port {wanted} is taken ({error.strerror}): leave --port out for a free one"
                    ) from error
                continue
            return int(probe.getsockname()[1])
    raise UIError("no port is free")


@contextlib.contextmanager
def _process(command: list[str], env: Mapping[str, str], out: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, so that it and what it started are ended together."""
    process = subprocess.Popen(
        command, env=dict(env), cwd=PROJECT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        # Not SIGINT: who is started in the background of a shell ignores it, and so do its children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise UIError(f"Prefect's server ended with {server.returncode}; its log is {log}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/health", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise UIError(f"Prefect's server did not answer in {_SERVER_SECONDS:.0f} s; its log is {log}")


def _run(command: list[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(env), cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UIError(f"`prefect {' '.join(command[1:])}` failed:\n{done.stdout}{done.stderr}")


def _bin(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
