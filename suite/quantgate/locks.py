"""Locks between processes, by `flock` on a file: the kernel releases them when their holder dies.

After a few seconds of waiting, a warning names the process that holds the lock. The package filelock does not know the
holder, refuses another user's file, and where there is no flock takes a lock that a killed process leaves behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil

SILENT = 3.0
"""Seconds of waiting before the first message; a minute later comes the next."""
_POLL = 0.1
_WITHOUT_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

log = logging.getLogger("quantgate")
_held: set[tuple[str, int]] = set()
"""Locked files, each with the thread of this process that holds it."""
_warned: set[str] = set()


class BusyError(Exception):
    """The lock is not free; the text names its holder."""


@contextmanager
def locked(path: Path, what: str, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; its folder is made. Threads of one process lock each other out too.

    what: the work under the lock, for the message ("quantize m to Q4_K_M"). patience: seconds after which BusyError is
    raised; None: wait until the lock is free. On a file system without locks, a warning is logged and nothing is held.
    Raises OSError, and RuntimeError if this thread holds the lock already and would wait for itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    key = (str(path.resolve()), threading.get_ident())
    if key in _held:
        if patience is not None:
            raise BusyError("this process")
        raise RuntimeError(f"{path}: this thread holds this lock already; to {what} would wait for ever")
    file = _open(path)
    try:
        _wait(file, path, what, patience)
        _held.add(key)
        _sign(file)
        yield
    finally:
        _held.discard(key)
        os.close(file)  # which releases it


def holder(path: Path) -> str:
    """Describe the process that last locked the file."""
    try:
        who = json.loads(path.read_bytes())
        return f"process {who['pid']} on {who['host']} (since {who['since']}, `{who['command']}`)"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's; a lock needs no right to write


def _wait(file: int, path: Path, what: str, patience: float | None) -> None:
    begin = time.monotonic()
    next_message = SILENT
    while not _try(file, path):
        waited = time.monotonic() - begin
        if patience is not None and waited >= patience:
            raise BusyError(holder(path))
        if waited >= next_message:
            next_message += 60.0
            log.warning("waiting to %s: %s holds %s; end that process if it hangs", what, holder(path), path)
        time.sleep(_POLL)


def _try(file: int, path: Path) -> bool:
    """Return whether the lock is held now, or cannot be had on this file system, of which a warning is logged once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_FLOCK:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if str(path.parent) not in _warned:
            _warned.add(str(path.parent))
            log.warning(
                "%s: this file system has no locks (flock: %s); continuing without: use it from one run at a time",
                path.parent,
                error.strerror,
            )
    return True


def _command() -> str:
    """Return the command that this process runs; of a process of pytest-xdist, which has none, that of the pytest that
    started it."""
    words = sys.argv
    if words[0] == "-c" and "PYTEST_XDIST_WORKER" in os.environ:
        with suppress(psutil.Error, IndexError):
            interpreter, *arguments = psutil.Process(os.getppid()).cmdline()
            words = arguments if Path(arguments[0]).is_file() else [interpreter, *arguments]
    return shlex.join([Path(words[0]).name, *words[1:]])


def _sign(file: int) -> None:
    """Write into the lock file who holds it."""
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command()[:200],
    }
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(who).encode(), 0)
    except OSError:
        return  # another user's file, or a full disk: the lock holds all the same
