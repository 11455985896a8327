"""What a package's file holds, member by member: a wheel is a zip file, a source distribution a compressed tar."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from zipfile import ZipFile


@dataclass(frozen=True)
class Member:
    """One that is not a folder. size: bytes. regular: a plain file, no link and no device."""

    name: str
    size: int
    regular: bool
    open: Callable[[], IO[bytes]]


def members(path: Path, stack: ExitStack) -> Iterator[Member]:
    """The members in their order; they can be opened until `stack` is closed. A tar's are opened fastest in that order.

    Raises OSError, BadZipFile, TarError.
    """
    if path.suffix == ".whl":
        archive = stack.enter_context(ZipFile(path))
        for info in archive.infolist():
            if not info.is_dir():
                # 0: the archive was made where files have no Unix mode.
                regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield Member(info.filename, info.file_size, regular, partial(archive.open, info))
    else:
        tar = stack.enter_context(tarfile.open(path, "r:gz"))  # noqa: SIM115 - closed with the stack
        for entry in tar.getmembers():
            if not entry.isdir():
                yield Member(entry.name, entry.size, entry.isreg(), partial(_file, tar, entry))


def _file(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(entry)
    assert file is not None  # a regular one has content
    return file
