"""An S3 server on loopback: moto's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def running_s3(bucket: str) -> Iterator[str]:
    """The server's address, with one empty bucket in it."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT"), timeout=30):
                pass
            yield address
        finally:
            server.stdin.close()
            server.wait(timeout=30)
