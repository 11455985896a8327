"""Assets in the user's cache: their locks, their hashes, and what to do when the disk fails."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

from quantgate.errors import AssetError
from quantgate.locks import locked as lock
from quantgate.paths import cache_dir


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explained(name: str, needed: int) -> Iterator[None]:
    """Turn an error of the disk into one that says what to do. needed: bytes."""
    try:
        yield
    except OSError as error:
        text = f"cannot write below {cache_dir()}: {error}; set QUANTGATE_CACHE to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = (
                f"the disk of {cache_dir()} is full: at least {megabytes(needed)} are needed there (unfinished "
                f"files were removed). Free some space, or set QUANTGATE_CACHE to a folder elsewhere"
            )
        raise AssetError(f"asset {name!r}: {text}") from error
    except (BadZipFile, TarError) as error:  # its checksum was right
        text = f"the file that assets.toml pins is not a sound package: {error}"
        raise AssetError(f"asset {name!r}: {text}") from error


def locked(name: str) -> AbstractContextManager[None]:
    """Hold the lock of an asset; see `quantgate.locks`."""
    return lock(cache_dir() / "locks" / f"{name}.lock", f"fetch {name}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
