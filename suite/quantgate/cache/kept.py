"""Check what the cache keeps against checksums before it is used, and note when it was used (README.md).

A run checks each thing once. Files up to `SMALL` bytes are hashed; of a larger one, which would take seconds a run,
size and time of modification are compared with those that it had when it was last hashed, and where they differ it is
hashed again. Of a virtual environment, with its tens of thousands of files, names, sizes and times are compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from quantgate.files import write_atomic
from quantgate.locks import locked
from quantgate.records import Record

SMALL = 16 * 2**20
ENTRIES = "entries"
LOCKS = "locks"
PARTIAL = ".partial"
"""How the name of a download ends that goes on in the next run."""

log = logging.getLogger("quantgate")
_checked: set[Path] = set()
_named: set[tuple[Path, str]] = set()


class File(Record):
    """mtime_ns: of the file when it was last hashed."""

    size: int
    sha256: str
    mtime_ns: int


class Entry(Record):
    """files: by path below a folder; the name "" is the thing itself. tree: in their place, a hash of names, sizes and
    times of modification. bytes: of all files."""

    bytes: int
    files: dict[str, File] = Field(default_factory=dict)
    tree: str = ""

    def write(self, path: Path) -> None:
        """Write it as the entry of `path`. Raises OSError."""
        write_atomic(entry_file(path), self.model_dump_json().encode())


def made(path: Path, what: str, make: Callable[[], object], *, hashed: bool = True) -> Path:
    """Return `path`, made by `make` unless it is there and intact. Of several processes at once, one makes it and the
    others wait. what: the work, for messages. hashed: as in `keep`. Raises OSError, and what `make` raises."""
    if not intact(path):
        with locked(lock_file(path), what):
            if not intact(path):  # another process may have made it while this one waited
                discard(path)
                make()
                keep(path, hashed=hashed)
    return path


def keep(path: Path, *, hashed: bool = True) -> None:
    """Write the entry of what was just made. hashed: by content, not by sizes and times. Raises OSError."""
    if hashed:
        files = {name: _hash(file) for name, file in _files(path).items()}
        Entry(bytes=sum(file.size for file in files.values()), files=files).write(path)
    else:
        Entry(bytes=size_of(path), tree=_tree(path)).write(path)
    _checked.add(path)


def intact(path: Path) -> bool:
    """Return whether it is there and as it was made; then it counts as used. Warn of anything else once."""
    if not path.exists():
        return False
    if problem := damage(path):
        if (path, problem) not in _named:
            _named.add((path, problem))
            log.warning("%s: %s; making it again", path, problem)
        return False
    with contextlib.suppress(OSError):  # a cache that cannot be written is used all the same
        os.utime(entry_file(path))
    return True


def damage(path: Path) -> str:
    """Return what is wrong with it; empty: nothing. Looks once a process."""
    if path in _checked:
        return ""
    entry = read_entry(path)
    if entry is None:
        return "has no checksums (made by an earlier version, or left by a run that was killed)"
    try:
        problem = _compare(path, entry)
    except OSError as error:
        problem = f"{error.filename or path} cannot be read ({error.strerror})"
    if not problem:
        _checked.add(path)
    return problem


def discard(path: Path) -> None:
    """Remove it with its entry, in one step, so that no other process sees half of it. Raises OSError."""
    _checked.discard(path)
    entry_file(path).unlink(missing_ok=True)
    if path.exists() or path.is_symlink():
        room = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        path.rename(room / "removed")
        shutil.rmtree(room, ignore_errors=True)


def entry_file(path: Path) -> Path:
    """Return the path of its entry."""
    return path.parent.parent / ENTRIES / path.parent.name / f"{path.name}.json"


def lock_file(path: Path) -> Path:
    """Return the lock that is held while it is made or removed; what is made of it meanwhile may lie beside it."""
    return path.parent.parent / LOCKS / f"{path.name.removesuffix(PARTIAL)}.lock"


def read_entry(path: Path) -> Entry | None:
    """Return its entry; None: there is none, or it cannot be read."""
    try:
        return Entry.model_validate_json(entry_file(path).read_bytes())
    except (OSError, ValidationError):
        return None


def size_of(path: Path) -> int:
    """Return the bytes of all its files."""
    total = 0
    for file in _files(path).values():
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total


def _compare(path: Path, entry: Entry) -> str:
    if entry.tree:
        return "" if _tree(path) == entry.tree else "files in it were changed, added or removed"
    there = _files(path)
    if missing := sorted(entry.files.keys() - there.keys()):
        return f"{missing[0] or 'it'} is missing"
    if more := sorted(there.keys() - entry.files.keys()):
        return f"{more[0] or 'it'} was not there when it was made"
    seen = dict(entry.files)
    for name, recorded in entry.files.items():
        now = there[name].stat()
        place = f"{name} " if name else ""
        if now.st_size != recorded.size:
            return f"{place}has {now.st_size:,} bytes, not {recorded.size:,}"
        if recorded.size <= SMALL or now.st_mtime_ns != recorded.mtime_ns:
            seen[name] = _hash(there[name])
            if seen[name].sha256 != recorded.sha256:
                return f"{place}has changed: its SHA-256 is another"
    if seen != entry.files:
        with contextlib.suppress(OSError):  # a cache that cannot be written: hashed in each run
            entry.model_copy(update={"files": seen}).write(path)
    return ""


def _hash(path: Path) -> File:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(size=status.st_size, sha256=digest, mtime_ns=status.st_mtime_ns)


def _files(path: Path) -> dict[str, Path]:
    """Return its files by their path below it; a file is called ""."""
    if not path.is_dir():
        return {"": path}
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return {str(file.relative_to(path)): file for file in files}


def _tree(path: Path) -> str:
    """Return the hash of names, sizes and times, without compiled modules, which Python writes at any time."""
    lines = []
    for name, file in _files(path).items():
        if "__pycache__" not in name:
            status = file.lstat()
            lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()
