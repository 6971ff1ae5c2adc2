"""JAX keeps what it compiled in a folder, for child processes too: each test would compile the same again.

Set as this file is imported, before any test imports JAX, which reads it then.
"""

from __future__ import annotations

import os
import tempfile

_FOLDER = tempfile.TemporaryDirectory(prefix="quarry-jax-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _FOLDER.name
os.environ["JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
