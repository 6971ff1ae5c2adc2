"""The process that holds the model: llama.cpp's own server, on loopback, for as long as its parent lives.

Started by ``local_server.LocalServer`` as a script, with its settings as one JSON argument; it imports nothing
of Quarry. It writes one line of JSON to stdout once it listens, and its log to stderr. It ends when its stdin
reaches end of file or its parent's id changes: either alone can fail (a forked sibling keeps the pipe open;
some systems keep the old parent's id), and a death signal would come as soon as the *thread* that started it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

_LOOK = 0.5
"""Seconds between looks at the parent's id."""
_QUIET, _LONGEST = 0.3, 3.0
"""Seconds without a word in the log after which it is all written, and those that are waited for that at most."""


def main() -> None:
    """Serve until the parent is gone."""
    settings = json.loads(sys.argv[1])
    # What native code prints must not get between the parent and the one line that it waits for.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parent = int(settings["parent"])
    gone = threading.Event()
    threading.Thread(target=_read_to_end, args=(gone,), daemon=True).start()
    threading.Thread(target=_serve, args=(settings, answer, gone), daemon=True).start()
    while not gone.wait(_LOOK):
        if os.name == "posix" and os.getppid() != parent:
            break
    unwanted = settings.get("log_to_remove")
    if unwanted and not _failed.is_set():
        # Only a server that failed, or was killed, leaves its log behind.
        with contextlib.suppress(OSError):
            Path(unwanted).unlink()
    # llama.cpp's destructors wait for the requests in flight; there is nobody left to want them.
    os._exit(1 if _failed.is_set() else 0)


_failed = threading.Event()


def _read_to_end(gone: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    gone.set()


def _serve(settings: dict[str, Any], answer: Any, gone: threading.Event) -> None:
    try:
        server = _start(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _failed.set()
        _wait_for_log(2)
        sys.stderr.write(f"the embedded server did not start: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        gone.set()
        return
    answer.write(json.dumps({"address": server.listening_address, "pid": os.getpid()}) + "\n")
    answer.close()
    threading.Event().wait()
    del server


def _wait_for_log(log: int) -> None:
    """Wait until a file is not written to any more. llama.cpp writes its log in a thread of its own, which would end with the
    process before it has said why."""
    ends = time.monotonic() + _LONGEST
    size, since = -1, time.monotonic()
    while (now := time.monotonic()) < ends and now - since < _QUIET:
        if (written := os.fstat(log).st_size) != size:
            size, since = written, now
        time.sleep(0.02)


def _start(settings: dict[str, Any]) -> Any:
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    if settings["adapter"] is not None:
        lora = llama.CommonAdapterLoraInfo()
        lora.path, lora.scale = settings["adapter"], 1.0
        params.lora_adapters = [lora]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_per_slot"]
    params.n_ubatch = settings["batch"]
    params.fit_params = False
    params.ui = False
    # The server would keep finished prompts in up to 8 GiB of memory; every record is asked about once.
    params.cache_ram_mib = 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = settings["threads"]
        threads.poll = settings["poll"]
    if settings["quantized_cache"]:
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_Q8_0
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    if settings["speculate"]:
        params.speculative.types = [llama.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K]
        params.speculative.ngram_map_k.size_n = 3
        params.speculative.ngram_map_k.size_m = 8
    return llama.Server(params)


if __name__ == "__main__":
    main()
