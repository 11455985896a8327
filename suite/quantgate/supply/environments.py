"""Other Python environments: one side of an A/B run, or what a quantizer needs. Built here once and kept.

<cache>/environments/<key>/    a virtual environment; the key is a hash of its requirements
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from quantgate.cache.kept import made
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.machine.environment import Environment
from quantgate.paths import cache_dir, import_root
from quantgate.processes.server import environment
from quantgate.supply.pip import run_pip
from quantgate.words import plural

NOT_NEEDED = {"pip", "quantgate"}
"""pip installs from outside; quantgate is imported from where it is now."""

SHOWN = ("Downloading ", "Building wheel", "Installing ", "Successfully installed")
"""Beginnings of the lines of pip's output that are shown while it works."""

EXAMINE = """\
import json, quantgate.measure.worker
from quantgate.machine.environment import builds, llama_library_hash, versions
print(json.dumps([versions(), builds(), llama_library_hash()]))
"""

Say = Callable[[str], None]


def parse(against: str) -> Path | list[Requirement]:
    """Return what `--against` names: an interpreter, or requirements. Raises InputError."""
    if against.startswith(("/", "./", "../", "~")) or Path(against).exists():
        # Do not resolve links: a virtual environment's interpreter is a link to the one it was made from.
        path = Path(against).expanduser().absolute()
        if path.is_file() and os.access(path, os.X_OK):
            return path
        inside = path / "bin" / "python"
        hint = f"name its interpreter: {inside}" if inside.exists() else "no interpreter is there"
        raise InputError(f"--against {against}: {hint}")
    parsed = []
    try:
        words = shlex.split(against)
    except ValueError as error:
        raise InputError(f"--against {against!r}: {error}; write 'NAME==VERSION NAME==VERSION'") from None
    for word in words:
        try:
            requirement = Requirement(word)
        except InvalidRequirement as error:
            raise InputError(f"--against: {word!r}: {error}; write NAME==VERSION") from None
        if not (requirement.specifier or requirement.url):
            raise InputError(
                f"--against: {word!r} names no version: write {word}==VERSION, or the path of a python"
            )
        parsed.append(requirement)
    if not parsed:
        raise InputError("--against: name a python, or what to install: --against 'transformers==5.17.0'")
    return parsed


def environment_of(named: Path | Sequence[Requirement], say: Say) -> Environment:
    """Return the environment of an interpreter, or one that is built by requirements. Raises InputError."""
    try:
        python = named if isinstance(named, Path) else build(requirements(named, installed()), say)
    except InputError as error:
        raise InputError(f"--against: {error}") from None
    try:
        return examined(python)
    except InputError as error:
        raise InputError(f"--against {error}") from None


def examined(python: Path) -> Environment:
    """Return the environment of an interpreter with what is installed there. Raises InputError where quantgate cannot
    measure in it."""
    try:
        done = subprocess.run(
            [str(python), "-c", EXAMINE],
            cwd=import_root(),
            env=environment(None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise InputError(f"{python}: cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(
            f"{python}: quantgate cannot measure there: {last[0]}; that environment needs the packages "
            f"that quantgate depends on (pyproject.toml), and Python 3.11 or newer"
        )
    versions, builds, library = json.loads(done.stdout.splitlines()[-1])
    return Environment(str(python), (versions, builds, library))


def installed() -> dict[str, str]:
    """Return what is installed here, by canonical name, as requirements: `torch==2.13.0`, `x @ git+https://...`."""
    lines: dict[str, str] = {}
    for distribution in metadata.distributions():
        facts = distribution.metadata  # read anew each time
        name = facts["Name"]
        if not name:  # left by an interrupted installation
            continue
        origin = distribution.read_text("direct_url.json")
        lines.setdefault(
            canonicalize_name(name),
            f"{name} @ {_origin(json.loads(origin))}" if origin else f"{name}=={facts['Version']}",
        )
    return lines


def requirements(named: Iterable[Requirement], here: dict[str, str]) -> list[str]:
    """Return the requirements `here` with those of `named` in place of theirs."""
    lines = here | {str(canonicalize_name(requirement.name)): str(requirement) for requirement in named}
    return [line for name, line in sorted(lines.items()) if name not in NOT_NEEDED]


def layer(needed: Sequence[str], say: Say, pins: Sequence[str] = ()) -> Path:
    """Return the interpreter of an environment with these requirements on top of everything that is installed here,
    built unless it is in the cache; see `build`. What the requirements do not change is not installed again.
    pins: the versions of packages that are not required, but may be, by one that is."""
    return build(needed, say, beneath=site.getsitepackages(), pins=pins)


def build(needed: Sequence[str], say: Say, beneath: Sequence[str] = (), pins: Sequence[str] = ()) -> Path:
    """Return the interpreter of a virtual environment with exactly these requirements, built by pip unless it is in
    the cache. pip's settings (index, proxy) apply. beneath: folders whose packages can be imported too. pins: pip's
    constraints.

    Of several runs at once, one builds and the others wait. Raises InputError with pip's last lines.
    """
    under = [list(beneath), sorted(installed().values())] if beneath else []
    bounds = [sorted(pins)] if pins else []
    key = hash_of([sorted(needed), sys.version, platform.machine(), *under, *bounds])
    folder = cache_dir() / "environments" / key
    python = folder / "bin" / "python"

    def make() -> None:
        say(
            f"building an environment of {plural(len(needed), 'package')} in {folder}; it is kept for later runs"
        )
        try:
            venv.create(folder, with_pip=False)
            if beneath:
                # They come after the environment's packages, with what their .pth files add.
                lines = [f"import site; site.addsitedir({path!r})" for path in beneath]
                base = {"base": str(folder), "platbase": str(folder)}
                packages = Path(sysconfig.get_path("purelib", "venv", base))
                (packages / "beneath.pth").write_text("\n".join(lines))
            _install(python, needed, pins, folder, say)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    try:
        made(folder, f"build {folder}", make, hashed=False)
    except OSError as error:
        raise InputError(f"the environment {folder} cannot be built: {error.strerror or error}") from error
    return python


def _install(python: Path, needed: Sequence[str], pins: Sequence[str], folder: Path, say: Say) -> None:
    file, constraints = folder / "requirements.txt", folder / "constraints.txt"
    file.write_text("\n".join(needed))
    constraints.write_text("\n".join(pins))
    tail: deque[str] = deque(maxlen=15)

    def read(line: str) -> None:
        tail.append(line)
        if line.strip().startswith(SHOWN):
            say(line.strip())

    # Its warnings about packages that no longer go together would be read by nobody.
    quiet = ["--progress-bar", "off", "--no-warn-conflicts"]
    install = ["install", *quiet, "-r", str(file), "-c", str(constraints)]
    if run_pip(["--python", str(python), *install], read) != 0:
        output = "".join(f"\n    | {line}" for line in tail if line)
        raise InputError(
            f"pip cannot install these versions:{output}\n"
            "    if another package's requirement is in the way, name that package too "
            "(--against 'transformers==5.17.0 tokenizers==0.22.1'); if the index does not have a version, set "
            "PIP_INDEX_URL or PIP_FIND_LINKS, or build the environment yourself and name its python"
        )


def _origin(direct: Mapping[str, object]) -> str:
    """Return the origin of a distribution, which PEP 610 records, as the URL of a requirement."""
    url, vcs, folder = str(direct["url"]), direct.get("vcs_info"), direct.get("subdirectory")
    if isinstance(vcs, dict):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{url}#subdirectory={folder}" if folder else url
