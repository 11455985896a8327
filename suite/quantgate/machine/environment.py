"""The environment of a measurement: versions and builds of libraries, variables, this engine's code, processor."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from quantgate import __version__
from quantgate.machine.builds import builds
from quantgate.machine.code import without_words
from quantgate.machine.quota import cores as quota
from quantgate.machine.variables import variables
from quantgate.paths import PACKAGE

PACKAGES = [
    "torch", "transformers", "bitsandbytes", "llama-cpp-python", "accelerate", "safetensors", "tokenizers",
    "numpy", "datasets", "lm_eval", "gguf",
]  # fmt: skip
"""Distributions whose version can change a measured number."""

MEASURING = ("backends/*.py", "backends/runtime/*.py", "measure/*.py", "measure/metrics/*.py")
"""Files of the engine that make a measured number."""

WORKER_MODULE = "quantgate.measure.worker"
"""Runs as the process that measures or makes something."""

Facts = dict[str, str | int | float | bool | None]

_AT_START = variables()
"""As the user set them: libraries set more of them when they are imported."""


def describe() -> Facts:
    """Return the environment of this process, which each measurement records."""
    return {**versions(), **builds(), **_AT_START, **machine(), **suite_facts()}


def suite_facts() -> Facts:
    """Return this engine's version, the hash of its measuring code, and its commit."""
    return {"quantgate": __version__, "quantgate code": code_hash(*MEASURING), "commit": commit()}


@functools.cache
def commit() -> str | None:
    """Return the commit of the repository that holds this engine; None: it is in none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def work_facts(libraries: Facts) -> Facts:
    """Return what can make two measurements of one job differ: `libraries` (versions and builds), variables, measuring
    code, and the machine without the size of its memory, which varies from start to start."""
    place = {key: value for key, value in machine().items() if key != "memory_gb"}
    return {**libraries, **variables(), "quantgate code": code_hash(*MEASURING), **place}


@functools.cache
def versions() -> Facts:
    """Return the versions of Python and of `PACKAGES`; None for a package that is not installed."""
    facts: Facts = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = None
    return facts


@dataclass(frozen=True)
class Environment:
    """A Python environment that measures or makes something.

    elsewhere: versions, builds and the hash of llama.cpp's libraries in another interpreter's environment; None: those
    of this process, which are looked up on first use, as collecting cases does not need them.
    """

    python: str = sys.executable
    elsewhere: tuple[Facts, Facts, str] | None = None

    @property
    def versions(self) -> Facts:
        return self.elsewhere[0] if self.elsewhere else versions()

    @property
    def libraries(self) -> Facts:
        """Versions and builds."""
        return {**self.versions, **(self.elsewhere[1] if self.elsewhere else builds())}

    @property
    def llama_library(self) -> str:
        return self.elsewhere[2] if self.elsewhere else llama_library_hash()

    @property
    def worker(self) -> tuple[str, ...]:
        """The command of a process that measures or makes something there."""
        return (self.python, "-m", WORKER_MODULE)


WORKER = Environment().worker
"""The command of a process of this interpreter."""


@functools.cache
def machine() -> Facts:
    """Return what makes timings of two machines comparable."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cpu_quota": quota(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.machine()}",
        "governor": governor.read_text().strip() if governor.exists() else None,
    }


@functools.cache
def instruction_sets() -> str:
    """Return the processor's instruction sets by which numeric libraries choose their kernels."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return " ".join(f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


@functools.cache
def llama_library_hash() -> str:
    """Return the SHA-256 (12 digits) of llama.cpp's shared libraries: a rebuilt or patched one has the same version."""
    return _hash_files("llama_cpp", "lib/*.so*")


@functools.cache
def code_hash(*patterns: str) -> str:
    """Return the SHA-256 (12 digits) of these files of the engine, so that what other code made is not reused. Comments
    and docstrings do not count. Raises ValueError for a pattern that matches no file."""
    files = {pattern: sorted(PACKAGE.glob(pattern)) for pattern in patterns}
    if missing := [pattern for pattern, matches in files.items() if not matches]:
        # A file that moved would otherwise drop out of the hash unseen, and stale records would be reused.
        raise ValueError(f"no file of the engine matches {missing}: name where the code is now")
    paths = sorted(file for matches in files.values() for file in matches)
    return _digest((file, without_words(file.read_text(encoding="utf-8")).encode()) for file in paths)


def _hash_files(package: str, pattern: str) -> str:
    spec = importlib.util.find_spec(package)  # finds without importing
    if spec is None or not spec.submodule_search_locations:
        return "absent"
    files = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    return _digest((file, file.read_bytes()) for file in files)


def _digest(contents: Iterable[tuple[Path, bytes]]) -> str:
    digest = hashlib.sha256()
    for file, content in contents:
        digest.update(f"{file.parent.name}/{file.name}".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
