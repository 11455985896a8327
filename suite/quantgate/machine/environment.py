"""The environment of a measurement: versions and builds of libraries, variables, this engine's code, processor."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from quantgate import __version__
from quantgate.machine.builds import LIBRARIES, LLAMA_LIBRARIES, builds, llama_libraries
from quantgate.machine.quota import cores as quota
from quantgate.paths import PACKAGE
from quantgate.records import Scalar

PACKAGES = [*LIBRARIES, "datasets", "lm_eval", "gguf"]
"""Distributions whose version can change a measured number."""

EXTENSIONS = ("quantgate.backends", "quantgate.metrics")
"""Groups of entry points by which other distributions measure, too."""

MEASURING = ("backends/*.py", "backends/runtime/*.py", "serving/*.py", "measure/*.py", "measure/metrics/*.py")
"""Files of the engine that make a measured number."""

_COMPUTING = re.compile(
    r"(?:MKL|MKLDNN|ONEDNN|DNNL|ATEN|OMP|GOMP|KMP|LIBOMP|OPENBLAS|GOTO|BLIS|BLAS|VECLIB|NUMEXPR|NPY|"
    r"MALLOC|JEMALLOC|TCMALLOC|MIMALLOC|GGML|LLAMA|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|TRITON|XNNPACK|"
    r"CUBLAS|CUBLASLT|CUDA|CUDNN|NVIDIA|NVTE|BNB|BITSANDBYTES|HIP|HSA|ROCR|ROCBLAS|"
    r"MIOPEN|ZE|SYCL|ONEAPI|USE_(?:NNPACK|FLASH|MEM)\w*?)_\w+"
    r"|LD_PRELOAD|LD_LIBRARY_PATH|LD_BIND_NOW|GLIBC_TUNABLES|PYTHONMALLOC|_?RJEM_MALLOC_CONF"
)
"""Names of variables that libraries compute by."""

_PLACES = re.compile(
    r".*_(?:HOME|ROOT|DIR|PATH|CACHE\w*|VERSION|LOGS?|LOG_LEVEL)|NVIDIA_(?:DRIVER_CAPABILITIES|REQUIRE_\w+)"
    r"|CUDA_(?:HOME|PATH)\w*|TORCH_SHOW_\w+|TORCH_CPP_LOG_LEVEL"
)
"""Those of them that only say where files are, what is printed, or what a container image was made for."""

_SECRET = re.compile(r".*_(?:KEY|TOKEN|SECRET|PASSWORD)S?")
"""Those that are nobody's business: llama-server takes its key from LLAMA_API_KEY."""

_LOADING = {"LD_LIBRARY_PATH", LLAMA_LIBRARIES, "GGML_BACKEND_PATH", "BNB_CUDA_VERSION"}
"""Exceptions: these decide which library is loaded."""

_WORDS_OR_STRING = re.compile(
    r'(?m)(?P<words>^[ \t]*r?"{3}(?s:(?!"{3})[^\\]|\\.)*"{3}[ \t]*$|[ \t]*#.*$)'
    r'|("{3}|\x27{3})(?s:[^\\]|\\.)*?\2|(["\x27])(?:[^\\\n]|\\(?s:.))*?\3'
)
"""Docstrings and comments of Python source, which are no code, and strings, in which `#` begins no comment. Python's
parser takes seven times as long, in each process that measures."""

Facts = dict[str, Scalar]


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that are set and compute, by name. environ: in place of this process's. Bytes that are no
    UTF-8 are written out, since records are text.

    OMP_NUM_THREADS is not among them: `quantgate.processes.server` sets it, and a measurement records it as `threads`.
    """
    environ = os.environ if environ is None else environ
    return {
        name: environ[name].encode(errors="backslashreplace").decode()
        for name in sorted(environ)
        if name != "OMP_NUM_THREADS"
        and _COMPUTING.fullmatch(name)
        and not _SECRET.fullmatch(name)
        and (name in _LOADING or not _PLACES.fullmatch(name))
    }


_AT_START = variables()
"""As the user set them: libraries set more of them when they are imported."""


def describe() -> Facts:
    """Return the environment of this process, which each measurement records."""
    engine = {"quantgate": __version__, **_code(), "commit": commit_of()}
    return {**versions(), **builds(), **_AT_START, **machine(), **engine}


def work_facts(libraries: Facts) -> Facts:
    """Return what can make two measurements of one job differ: `libraries` (versions and builds), variables, measuring
    code, and the machine without the size of its memory, which varies from start to start."""
    facts = {**libraries, **variables(), **_code(), **machine()}
    del facts["memory_gb"]
    return facts


def _code() -> Facts:
    return {"quantgate code": code_hash(*MEASURING), **extensions()}


@functools.cache
def extensions() -> Facts:
    """Return version and hash of the code of each distribution that adds a backend or a metric group (entry points).
    The keys begin as that of the engine's own code: a change is named, measured anew, and widens no tolerance."""
    facts: Facts = {}
    for entry in (entry for group in EXTENSIONS for entry in metadata.entry_points(group=group)):
        package = importlib.util.find_spec(entry.module.partition(".")[0])
        if entry.dist is not None and package is not None:
            folders = [Path(folder) for folder in package.submodule_search_locations or ()]
            files = [file for folder in folders for file in folder.rglob("*.py")] or [
                Path(str(package.origin))
            ]
            code = _digest((file, file.read_bytes()) for file in sorted(files))
            facts[f"quantgate code of {entry.dist.name}"] = f"{entry.dist.version} ({code})"
    return facts


@functools.cache
def commit_of(folder: Path = PACKAGE, short: str = "--short=12") -> str | None:
    """Return the commit of the repository that holds a folder; None: it is in none. short: git's option."""
    command = ["git", "-C", str(folder), "rev-parse", short, "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def versions() -> Facts:
    """Return the versions of Python and of `PACKAGES`; None for a package that is not installed."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}


def version_of(package: str) -> str | None:
    """Return the version of a distribution; None: it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
        return (self.python, "-m", "quantgate.measure.worker")


WORKER = Environment().worker
"""The command of a process of this interpreter."""


@functools.cache
def machine() -> Facts:
    """Return what makes timings of two machines comparable."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "cpu_quota": quota(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.machine()}",
        "governor": governor.read_text().strip() if governor.exists() else None,
    }


@functools.cache
def instruction_sets() -> str:
    """Return the processor's instruction sets by which numeric libraries choose their kernels."""
    flags = _cpuinfo("flags").split()
    return " ".join(f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags)


def _cpuinfo(key: str) -> str:
    """Return a value of the first processor; empty where the kernel does not say."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


@functools.cache
def cuda_devices() -> int:
    """Return the number of CUDA devices, from the driver itself: the parent process does not import torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the release of NVIDIA's kernel driver, as it says in its file; None: there is none."""
    try:
        release = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", file.read_text())
    except OSError:
        return None
    return release[0] if release else None


@functools.cache
def llama_library_hash() -> str:
    """Return the SHA-256 (12 digits) of llama.cpp's shared libraries: a rebuilt or patched one has the same version."""
    files = llama_libraries()
    return _digest((file, file.read_bytes()) for file in files) if files else "absent"


@functools.cache
def code_hash(*patterns: str) -> str:
    """Return the SHA-256 (12 digits) of these files of the engine, so that what other code made is not reused. Comments
    and docstrings do not count. Raises ValueError for a pattern that matches no file."""
    files = {pattern: list(PACKAGE.glob(pattern)) for pattern in patterns}
    if missing := [pattern for pattern, matches in files.items() if not matches]:
        # A file that moved would otherwise drop out of the hash unseen, and stale records would be reused.
        raise ValueError(f"no file of the engine matches {missing}: name where the code is now")
    paths = sorted(file for matches in files.values() for file in matches)
    return _digest((file, without_words(file.read_text(encoding="utf-8")).encode()) for file in paths)


def without_words(source: str) -> str:
    """Return Python source without comments, docstrings and empty lines. A string in three quotes that has its lines to
    itself is taken for a docstring."""
    code = _WORDS_OR_STRING.sub(lambda token: "" if token["words"] else token[0], source)
    return "\n".join(line.rstrip() for line in code.split("\n") if line.strip())


def _digest(contents: Iterable[tuple[Path, bytes]]) -> str:
    digest = hashlib.sha256()
    for file, content in contents:
        digest.update(f"{file.parent.name}/{file.name}".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
