"""How a process ended badly, in words."""

from __future__ import annotations

import signal
from pathlib import Path

TAIL = 12
"""Lines of a failed process's log that its error shows."""


def reason(status: int) -> str:
    """status: the exit status, or minus the number of a signal."""
    if status > 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f"signal {-status}"
    hint = {
        "SIGKILL": ": out of memory?",
        "SIGILL": ": a library built for another processor (reinstall llama-cpp-python from source here)",
    }
    return f"was killed by {name}{hint.get(name, '')}"


def tail(log: Path) -> str:
    """The last lines of its log, and where the rest is."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"\n    its log {log} cannot be read: {error.strerror}"
    lines = [line for line in text.splitlines() if line.strip()][-TAIL:]
    return "".join(f"\n    | {line}" for line in lines) + f"\n    full log: {log}"
