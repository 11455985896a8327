"""Append the file of a run to a history. A file appears whole or not at all, and is never written again."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from quantgate.errors import InputError
from quantgate.files import replacing
from quantgate.history.record import DIGITS, read_header, split_points, to_lines
from quantgate.records import Verdict
from quantgate.report import RunInfo

_WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def append(folder: Path, verdicts: Sequence[Verdict], info: RunInfo) -> tuple[Path, bool]:
    """Write the file of a run and return its path, and whether it is new: a run that is there already is left as it is.

    Two processes never meet, since the names of their files differ by the run's id. Raises InputError naming the folder
    where it cannot be written.
    """
    header, content = to_lines(verdicts, info)
    path = folder / header.name
    for there in folder.glob(f"*/*/*-{header.run[:DIGITS]}*.jsonl"):
        if _run_of(there) == header.run:
            return there, False
    if path.exists():  # of another run, whose id begins alike
        path = path.with_name(f"{path.stem}{header.run[DIGITS:]}.jsonl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path, _create(path, content)
    except OSError as error:
        raise InputError(
            f"cannot write this run into the history {folder}: {error.strerror or error}. What is there is unharmed; "
            "free some space or name a writable folder; then run again with --reuse, which measures nothing anew, "
            "or import the report of this run with `python -m quantgate.history import`."
        ) from error


def _run_of(path: Path) -> str:
    """Return the id of a file's run; empty where the file is damaged, which is then no reason to leave out a run."""
    try:
        content = path.read_bytes()
        header = read_header(content.partition(b"\n")[0])
        split_points(content, header.points)
        return header.run
    except (OSError, InputError):
        return ""


def _create(path: Path, content: bytes) -> bool:
    """Make a file in one step; return False where it was there. On any error nothing is left behind."""
    try:
        with replacing(path, _link, mode=0o444) as file:
            file.write(content)
    except FileExistsError:  # another process has written the same run since
        return False
    _sync(path.parent)
    return True


def _link(written: Path, path: Path) -> None:
    """Move a file to `path`; unlike a rename, never replace one there."""
    try:
        path.hardlink_to(written)
        written.unlink()
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS or path.exists():
            raise
        written.rename(path)


def _sync(folder: Path) -> None:
    """Make a new name in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
