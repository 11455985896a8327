"""Unpack members of packages below one folder and nowhere else. Nothing is imported or executed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path

from quantgate.errors import AssetError
from quantgate.supply.assets.archive import Member, members
from quantgate.supply.assets.cache import explained
from quantgate.supply.assets.progress import Progress
from quantgate.supply.assets.spec import Asset, Pin, is_unsafe


def unpack(name: str, asset: Asset, packages: Sequence[Path], folder: Path, say: Progress) -> dict[str, Pin]:
    """Unpack the asset's members into a new folder; return the pins of what was written, by name.

    Raises AssetError if a member is missing, unsafe or not as pinned; OSError.
    """
    chunks = {chunk for pieces in asset.join.values() for chunk in pieces}
    names = {*asset.members, *chunks}
    missing = set(names)
    chosen: dict[str, Member] = {}
    with ExitStack() as stack:
        for package in packages:
            for member in members(package, stack):
                matching = {
                    n for n in names if n == member.name or (n not in chunks and fnmatchcase(member.name, n))
                }
                if not matching:
                    continue
                if is_unsafe(member.name) or not member.regular or member.name in chosen:
                    raise AssetError(
                        f"asset {name!r}: {package.name} has a member {member.name!r} that is refused: it is "
                        f"a link, occurs twice, or would be written outside its folder"
                    )
                chosen[member.name] = member
                missing -= matching
        if missing:
            where = ", ".join(package.name for package in packages)
            patterns = ", ".join(map(repr, sorted(missing)))
            raise AssetError(
                f"asset {name!r}: nothing in {where} matches {patterns}; "
                f"mend `members` or `join` in assets.toml"
            )
        targets = {member: [member] for member in chosen if member not in chunks} | asset.join
        total = sum(member.size for member in chosen.values())
        written: dict[str, Pin] = {}
        done = 0
        with explained(name, total + sum(package.stat().st_size for package in packages)):
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
                                say(f"{name}: unpacking", done, total)
                written[target] = Pin(size=done - start, sha256=digest.hexdigest())
    for target, pin in asset.files.items():
        if written.get(target) != pin:
            raise AssetError(
                f"asset {name!r}: {target} is not as pinned: expected {pin}, "
                f"found {written.get(target, 'no such file')}: mend `files` in assets.toml"
            )
    return written
