"""The other environment of an A/B run: an interpreter that exists, or one that is built here and kept.

<cache>/environments/<key>/            a virtual environment; the key is a hash of all that is in it
<cache>/environments/<key>/.complete   its requirements, written last: without it, it is built anew
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

from quantgate.cache.kept import discard, intact, keep
from quantgate.errors import InputError
from quantgate.files import hash_of, write_atomic
from quantgate.locks import locked
from quantgate.machine.environment import Environment
from quantgate.paths import cache_dir, import_root
from quantgate.processes.server import python_path
from quantgate.processes.warden import guarded, stop
from quantgate.supply.assets import PIP

NOT_NEEDED = {"pip", "quantgate"}
"""pip installs from outside; the suite itself is imported from this checkout."""

TAIL = 15
"""Of pip's output, the last so many lines are in its error."""

SHOWN = ("Downloading ", "Building wheel", "Installing ", "Successfully installed")
"""How the lines of pip's output begin that are shown while it works."""

EXAMINE = """\
import json, quantgate.measure.worker
from quantgate.machine.environment import builds, llama_library_hash, versions
print(json.dumps([versions(), builds(), llama_library_hash()]))
"""

Say = Callable[[str], None]


def parse(against: str) -> Path | list[Requirement]:
    """What `--against` names: an interpreter, or requirements. Raises InputError."""
    if against.startswith(("/", "./", "../", "~")) or Path(against).exists():
        # Not resolved: a virtual environment's interpreter is a link to the one it was made from.
        path = Path(against).expanduser().absolute()
        if path.is_file() and os.access(path, os.X_OK):
            return path
        inside = path / "bin" / "python"
        hint = f"name its interpreter: {inside}" if inside.exists() else "no interpreter is there"
        raise InputError(f"--against {against}: {hint}")
    named = []
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
        named.append(requirement)
    if not named:
        raise InputError("--against: name a python, or what to install: --against 'transformers==5.17.0'")
    return named


def environment_of(named: Path | Sequence[Requirement], say: Say) -> Environment:
    """The environment to compare with, built first where requirements are named. Raises InputError."""
    try:
        python = named if isinstance(named, Path) else build(requirements(named, installed()), say)
    except InputError as error:
        raise InputError(f"--against: {error}") from None
    done = _run(python)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(
            f"--against {python}: quantgate cannot measure there: {last[0]}; that environment needs the packages "
            f"that quantgate depends on (pyproject.toml), and Python 3.11 or newer"
        )
    versions, builds, library = json.loads(done.stdout.splitlines()[-1])
    return Environment(str(python), (versions, builds, library))


def _run(python: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(python), "-c", EXAMINE],
            cwd=import_root(),
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise InputError(f"--against {python}: cannot be started: {error.strerror}") from error


def installed() -> dict[str, str]:
    """What is installed here, by canonical name, each as pip takes it: `torch==2.13.0`, `x @ git+https://...`."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name:  # what an interrupted installation has left
            continue
        origin = distribution.read_text("direct_url.json")
        found.setdefault(
            canonicalize_name(name),
            f"{name} @ {_origin(json.loads(origin))}" if origin else f"{name}=={distribution.version}",
        )
    return found


def requirements(named: Iterable[Requirement], here: dict[str, str]) -> list[str]:
    """All of `here` as it is, but for what is named."""
    lines = here | {str(canonicalize_name(requirement.name)): str(requirement) for requirement in named}
    return [line for name, line in sorted(lines.items()) if name not in NOT_NEEDED]


def layer(wanted: Sequence[str], say: Say) -> Path:
    """The interpreter of a virtual environment with these requirements, and beneath them all that is
    installed here: what they do not bring is not installed again. Built as by `build`."""
    return build(wanted, say, beneath=site.getsitepackages())


def build(wanted: Sequence[str], say: Say, beneath: Sequence[str] = ()) -> Path:
    """The interpreter of a virtual environment with exactly these requirements, built with pip where the cache
    lacks it; pip's own settings (index, proxy) apply. beneath: folders of packages that are there too.

    Of several runs at once, one builds and the others wait. Raises InputError with pip's last lines.
    """
    under = [list(beneath), sorted(installed().values())] if beneath else []
    key = hash_of([sorted(wanted), sys.version, platform.machine(), *under])
    folder = cache_dir() / "environments" / key
    marker, python = folder / ".complete", folder / "bin" / "python"
    if marker.exists() and intact(folder):
        return python
    with locked(cache_dir() / "locks" / f"environment-{key}.lock", f"build {folder}"):
        if marker.exists() and intact(folder):
            return python
        say(f"building {folder} ({len(wanted)} packages): once, it is kept")
        try:
            discard(folder)
            venv.create(folder, with_pip=False)
            if beneath:
                # After its own packages, with what .pth files there add.
                lines = [f"import site; site.addsitedir({path!r})" for path in beneath]
                (_packages(folder) / "beneath.pth").write_text("\n".join(lines))
            _install(python, wanted, folder / "requirements.txt", say)
            write_atomic(marker, "\n".join(wanted).encode())
            keep(folder, hashed=False)
        except OSError as error:
            raise InputError(f"{folder} cannot be built: {error.strerror or error}") from error
        finally:
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)
    return python


def _packages(folder: Path) -> Path:
    """Where a virtual environment has its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _install(python: Path, wanted: Sequence[str], file: Path, say: Say) -> None:
    file.write_text("\n".join(wanted))
    # A constraints file of the user's (tox sets one) pins what is to be different here.
    settings = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    command = [*PIP, "--python", str(python), "install", "--progress-bar", "off", "-r", str(file)]
    tail: deque[str] = deque(maxlen=TAIL)
    with subprocess.Popen(
        guarded(command),
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                tail.append(line.rstrip())
                if line.strip().startswith(SHOWN):
                    say(line.strip())
        except BaseException:
            stop(
                pip
            )  # with the child that it works through (`--python`), which would go on writing into the folder
            raise
    if pip.returncode != 0:
        said = "".join(f"\n    | {line}" for line in tail if line)
        raise InputError(
            f"pip cannot install these versions:{said}\n"
            "    where another package's requirement is in the way, name that one too "
            "(--against 'transformers==5.17.0 tokenizers==0.22.1'); where the index does not have a version, set "
            "PIP_INDEX_URL or PIP_FIND_LINKS, or build the environment yourself and name its python"
        )


def _origin(direct: Mapping[str, object]) -> str:
    """PEP 610's record of where a distribution came from, as the URL of a requirement."""
    url, vcs, folder = str(direct["url"]), direct.get("vcs_info"), direct.get("subdirectory")
    if isinstance(vcs, dict):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{url}#subdirectory={folder}" if folder else url
