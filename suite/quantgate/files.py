"""Files: written whole or not at all, hashed, read as plain text."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from quantgate.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_GZIP = b"\x1f\x8b\x08"
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # first, as a UTF-16 mark begins one of them
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` in one step; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(
    path: Path, place: Callable[[Path, Path], object] = Path.replace, mode: int = 0o666
) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` in one step when the block ends well. On any error the old file is untouched
    and nothing is left behind. place: moves the written file to `path`. mode: its permissions before the umask.

    Raises OSError (disk full, no permission).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(mode & ~umask)  # mkstemp makes files that only their owner reads
        place(Path(name), path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):
            raise OSError(error.errno, error.strerror, str(path)) from error  # that of a write names no file
        raise


def files_at(path: Path, *, pattern: bool) -> list[Path]:
    """Return the files that a path names, those of a folder included, sorted. pattern: parts of it have wildcards."""
    named = matching(path) if pattern else [path] if path.exists() else []
    return [
        file
        for one in named
        for file in (sorted(filter(Path.is_file, one.rglob("*"))) if one.is_dir() else [one])
    ]


def matching(pattern: Path) -> list[Path]:
    """Return the files and folders that a path names, parts of which have wildcards, sorted."""
    fixed = next((n for n, part in enumerate(pattern.parts) if "*" in part), len(pattern.parts) - 1)
    return sorted(Path(*pattern.parts[:fixed]).glob("/".join(pattern.parts[fixed:])))


def writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def path_problem(path: Path) -> str:
    """Return why the libraries that load models, which take UTF-8, cannot open a path; empty: they can."""
    shown = ascii(str(path)).strip("'")
    try:
        os.fsencode(path).decode()
        str(path).encode()
    except UnicodeDecodeError:
        return f"{shown}: is not UTF-8; rename it, or name another folder"
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        remedy = "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
        return f"{shown}: has characters that this locale's encoding ({encoding}) lacks; {remedy}"
    return ""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Return the SHA-256 (16 hexadecimal digits) of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_plain_text(path: Path) -> str:
    """Read a file of plain text in UTF-8, without a byte order mark; line ends stay as they are.

    Raises InputError naming the file and the place in it: unreadable, empty, in another encoding, with NUL bytes.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if raw.startswith(_POINTER):
        raise InputError(lfs_problem(path))
    text = decoded(path, raw)
    if not text.strip():
        raise InputError(f"{path}: is empty: name a file with text")
    return text


def decoded(path: Path, raw: bytes) -> str:
    """Return a file's bytes as text, without a byte order mark. Raises InputError naming the file and the place in it:
    another encoding, NUL bytes."""
    for encoding, marks in _MARKS.items():
        if raw.startswith(marks):
            remedy = _convert(path, encoding)
            raise InputError(f"{path}: is {encoding}, not UTF-8 (byte order mark at offset 0): {remedy}")
    if raw.startswith(_GZIP):
        raise InputError(f"{path}: is packed by gzip: unpack it by `gunzip -c {path} > {_beside(path)}`")
    if (offset := raw.find(0)) >= 0:
        raise InputError(
            f"{path}: has a NUL byte at offset {offset}: it is not plain text, or it is UTF-16 without its byte order "
            f"mark (then {_convert(path, 'UTF-16LE')})"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0)
        line = raw.count(b"\n", 0, offset) + 1
        raise InputError(
            f"{path}: is not UTF-8: byte 0x{raw[offset]:02x} at offset {offset} (line {line}): "
            f"if it is Latin-1, {_convert(path, 'LATIN1')}"
        ) from None
    return text


def _convert(path: Path, encoding: str) -> str:
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return f"convert it by `iconv -f {encoding} -t UTF-8 {path} > {target}`"


def _beside(path: Path) -> Path:
    """Return a name for the file's content."""
    return path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.txt")


def lfs_problem(path: Path) -> str:
    """Return why a file is not the one that its name says: it is what Git LFS leaves in its place until it is fetched;
    empty: it is not that."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) != _POINTER:
            return ""
    return f"{path}: is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`"


def leaves_folder(name: str) -> bool:
    """Return whether a file of this name could lie anywhere but below the folder that it is put into."""
    path = PurePosixPath(name)
    windows = "\\" in name or PureWindowsPath(name).drive != ""
    return path.is_absolute() or ".." in path.parts or windows or not name


def checked_name(what: str, name: str) -> str:
    """Return `name`. Raises InputError if it cannot be part of a file name (separators, `..`, `@` ...)."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r}: cannot be part of a file name; use letters, digits and . _ + -, and begin with a letter "
            "or digit"
        )
    return name
