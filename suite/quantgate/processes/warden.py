"""A process that runs one command and leaves no process of it behind, however it or its parent ends.

The kernel ends a child with its parent where the child asks for that (PR_SET_PDEATHSIG), but not the child's own
children, and none that was forked twice. The warden adopts these (PR_SET_CHILD_SUBREAPER) and kills them all when the
command ends, when it gets SIGTERM, or when its parent is gone.

It runs as a script of the standard library alone, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

PATIENCE = 10.0
"""Seconds in which killed processes have to end: one that waits for a disk that does not answer is left."""
_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # prctl(2)


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` under a warden: start it in a session of its own, end it by `stop`."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a guarded command and all that it has started; return when they are gone."""
    process.terminate()
    try:
        process.wait(2 * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()  # the command gets SIGKILL when it asked for that; the rest is out of reach
        process.wait()


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this signal to this process when the thread that started it is gone."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)


def kill_descendants() -> None:
    """Kill and collect all children of this process, theirs, and so on. Call `adopt_orphans` before."""
    deadline = time.monotonic() + PATIENCE
    while (children := _children(os.getpid())) and time.monotonic() < deadline:
        for child in children:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        # The children of what has ended are this process's now: the next round sees them.
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)


def _children(parent: int) -> set[int]:
    children = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may hold anything; state and parent come after it: proc(5).
            if int(file.read_bytes().rpartition(b")")[2].split()[1]) == parent:
                children.add(int(file.parent.name))
    return children


def _close_inherited() -> None:
    """Close all descriptors but the first three: those that are open, since their limit is 2^30 in some containers, and
    to try so many takes a minute."""
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the folder itself is closed by now
            if int(file.name) > 2:
                os.close(int(file.name))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status. Where a signal ended it, the same signal ends this process."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    parent, *command = arguments
    adopt_orphans()
    signal.signal(signal.SIGTERM, end)
    end_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):
        return 1
    try:
        process = subprocess.Popen(command, close_fds=False)
        # Whoever waits for the end of a pipe waits for the command alone.
        _close_inherited()
        status = process.wait()
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # SIGKILL takes no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
