"""Packages that pip takes, for tests of assets."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

from quantgate.files import sha256_of
from quantgate.paths import cache_dir
from quantgate.supply.assets import Asset, Part


def make_wheel(folder: Path, package: str, members: dict[str, bytes], link: str = "") -> Part:
    """Write a wheel that pip takes; `link`: a member to be marked as a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{package.replace('-', '_')}-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    metadata = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **metadata}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name == link else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return Part(package=package, version="1.0", size=path.stat().st_size, sha256=sha256_of(path))


def make_sdist(folder: Path, members: dict[str, bytes], link: str = "") -> Part:
    """Write a source distribution of `my-model` 1.0; `link`: a member that is made a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "my_model-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"my_model-1.0/{name}")
            info.size = len(content)
            if name == link:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(info, io.BytesIO(content))
    return Part(package="my-model", version="1.0", size=path.stat().st_size, sha256=sha256_of(path))


def make_asset(*parts: Part, members: tuple[str, ...] = ("my_model/weights.bin",), **more: object) -> Asset:
    content = {"parts": [part.model_dump() for part in parts], "licence": "MIT", "members": members}
    return Asset.model_validate(content | more)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def leftovers() -> set[str]:
    """Every file of the cache but locks and finished assets."""
    return {
        name for name in files_below(cache_dir()) if not name.startswith(("locks/", "assets/", "entries/"))
    }


def unpacked() -> set[str]:
    return files_below(cache_dir() / "assets")
