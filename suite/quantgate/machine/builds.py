"""Which build of a library is installed, and whether one of its files was edited since, in milliseconds.

A distribution's RECORD has the hash of each installed file. A file that is younger than RECORD, or has another size, is
hashed again; for all others RECORD is believed. An edit that keeps the size and sets the time back goes unnoticed, but
for llama.cpp's libraries, which people build and replace: those are always hashed.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

BUILD = "build of "
"""What the keys of an environment that tell builds of one version apart begin with."""

LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "bitsandbytes": "bitsandbytes",
    "llama-cpp-python": "llama_cpp",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "numpy": "numpy",
}
"""Distributions that compute, and the import name of each."""

LLAMA_LIBRARIES = "LLAMA_CPP_LIB_PATH"
"""The variable that names a folder from which llama-cpp-python loads llama.cpp, in place of the one that it brings."""

LLAMA = "llama_cpp/lib/"
"""Where its own ones are, in the words of RECORD."""

LARGEST = 2**25
"""Bytes. Size and time stand for the content of a larger file that was edited."""


@functools.cache
def builds() -> dict[str, str | None]:
    """Return `build of <distribution>` by name, 12 digits; None for a distribution that is not installed."""
    return {f"{BUILD}{name}": build_of(name, package) for name, package in LIBRARIES.items()}


def build_of(name: str, package: str) -> str | None:
    """Return 12 digits that tell a distribution's build from others; None: it is not installed. package: its import
    name."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    folder = package_folder(package)
    if folder is None:
        return None
    record = distribution.read_text("RECORD")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    is_editable = origin.get("dir_info", {}).get("editable", False)
    if record is None or is_editable or folder != Path(str(distribution.locate_file(package))):
        lines = list(_listed(folder))
    else:
        lines = list(_recorded(folder, record.splitlines()))
    if package == "llama_cpp" and LLAMA_LIBRARIES in os.environ:
        lines += [f"{file.name} {_content(file)}" for file in llama_libraries()]
    return _digest(lines)


def llama_libraries() -> list[Path]:
    """Return the shared libraries that llama-cpp-python loads, sorted; empty: it is not installed."""
    package, chosen = package_folder("llama_cpp"), os.environ.get(LLAMA_LIBRARIES)
    if package is None:
        return []
    return sorted((Path(chosen) if chosen else package / "lib").glob("*.so*"))


def package_folder(package: str) -> Path | None:
    """Return the folder from which a package would be imported, without importing it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _recorded(package: Path, record: list[str]) -> Iterator[str]:
    """Yield the name and the content's hash of each file with code of a package."""
    root = str(package.parent)
    itself = next(line.partition(",")[0] for line in record if ".dist-info/RECORD," in line)
    installed = os.stat(f"{root}/{itself}").st_mtime_ns  # noqa: PTH116 - see below
    for line in record:
        name, _, rest = line.partition(",")  # a name with a comma is quoted, and no code
        recorded, _, size = rest.partition(",")
        if not (
            recorded and name.startswith((f"{package.name}/", f"{package.name}.libs/")) and _is_code(name)
        ):
            continue
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116 - ten thousand of them: four times as fast as by Path
        except OSError:
            yield f"{name} missing"
            continue
        edited = status.st_mtime_ns > installed or str(status.st_size) != size or name.startswith(LLAMA)
        yield f"{name} {_content(Path(root, name)) if edited else recorded}"


def _is_code(name: str) -> bool:
    return name.endswith((".py", ".so", ".pyd", ".dylib")) or ".so." in name


def _content(file: Path) -> str:
    """Return a file's hash as RECORD writes it: PEP 376 and 427."""
    status = file.stat()
    if status.st_size > LARGEST:
        return f"{status.st_size} bytes of {status.st_mtime_ns}"
    digest = hashlib.sha256(file.read_bytes()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _listed(folder: Path) -> Iterator[str]:
    """Yield name, size and time of each file of a package that no RECORD describes: one that is installed as editable,
    or comes first on PYTHONPATH."""
    for file in folder.rglob("*"):
        if _is_code(file.name):
            status = file.stat()
            yield f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}"


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
