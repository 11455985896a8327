"""Where a checkpoint comes from: an asset, a hub repository at a commit, a local path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from quantgate.config.sentences import WrongValueError, plainly, shown
from quantgate.records import Record


def _path(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise ValueError(f"must be a path in quotes, not {shown(value)}")  # noqa: TRY004 - pydantic's rule
    if not str(value) or "\0" in str(value):
        raise ValueError(f"must be a path, not {plainly(value)}")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"begins with a home directory that does not exist: {value}") from None
    return Path(value)


def _sha256(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError(
            f"must be the 64 hexadecimal digits that `sha256sum FILE` prints, not {plainly(value)}"
        )
    return value.lower()


class Source(Record):
    """Where a checkpoint comes from: exactly one of `asset`, `hub`, `path`."""

    asset: str | None = Field(default=None, min_length=1)
    hub: str | None = None
    revision: str | None = None
    path: Annotated[Path, BeforeValidator(_path)] | None = None
    file: str | None = Field(default=None, min_length=1)
    """Which file of the asset or hub repository (GGUF); None: the folder (safetensors)."""

    @model_validator(mode="after")
    def _one(self) -> Source:
        if sum(v is not None for v in (self.asset, self.hub, self.path)) != 1:
            raise ValueError("give exactly one of asset, hub, path")
        if self.hub is None and self.revision is not None:
            raise WrongValueError("revision", "is for a hub source only: remove it")
        if self.hub is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?", self.hub):
            raise WrongValueError(
                "hub", f"must be the name of a repository, OWNER/NAME, not {plainly(self.hub)}"
            )
        if self.hub is not None and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise WrongValueError(
                "revision",
                "must be the 40 hexadecimal digits of a commit, since a branch or a tag can move: "
                f"`git ls-remote https://huggingface.co/{self.hub} {self.revision or 'main'}` prints them",
            )
        return self

    @property
    def short(self) -> str:
        """The name of the file, folder, repository or asset, without where it lies."""
        local = "" if self.path is None else self.path.name or str(self.path)
        return self.file or local or self.hub or str(self.asset)

    def beside(self, matrix: Path) -> Path | None:
        """Return the local path, which is relative to the file of the matrix; None: the source is not local."""
        return None if self.path is None else (matrix.parent / self.path.expanduser()).absolute()


Sha256 = Annotated[str, AfterValidator(_sha256)]
"""In lower-case digits, however it was written."""


class Checkpoint(Source):
    """A checkpoint that one scheme of a model loads as it is."""

    sha256: Sha256 | Annotated[dict[str, Sha256], Field(min_length=1)] | None = None
    """What it must hold: the SHA-256 of its only file, or of files by name."""
