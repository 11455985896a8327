"""Where the program of a server is: on PATH, or built by `python -m quantgate.supply.llama_server`."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantgate.machine.environment import llama_library_hash
from quantgate.paths import cache_dir

LLAMA_SERVER = "llama-server"
TOOLS = "tools"
"""The folder of the cache with compiled programs."""


def program(name: str) -> Path | None:
    """Return the path of a program; None: there is none. On PATH goes before one that was built, which is taken only if
    it was built against the libraries that are installed now."""
    if path := shutil.which(name):
        return Path(path)
    if name != LLAMA_SERVER:
        return None
    built = (cache_dir() / TOOLS).glob(f"{LLAMA_SERVER}-{llama_library_hash()}-*/{LLAMA_SERVER}")
    return max(built, key=lambda file: file.stat().st_mtime, default=None)


def why_missing(name: str) -> str:
    """Say that a program is not there, and what to do; empty: it is there."""
    if program(name):
        return ""
    remedy = ": python -m quantgate.supply.llama_server builds it from the source of the installed llama-cpp-python"
    return f"{name} is not a program on PATH{remedy if name == LLAMA_SERVER else ''}"
