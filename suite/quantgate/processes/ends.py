"""How a process ended badly, in words."""

from __future__ import annotations

import re
import signal
from pathlib import Path

TAIL = 12
"""Lines of a failed process's log that its error shows where none of them says the cause."""

ASSERTION = re.compile(
    r"GGML_ASSERT\(.*failed|Assertion .* failed|^terminate called|^\s*what\(\):|GGML_ABORT"
)
"""How C and C++ libraries say why they abort."""


def explained(status: int, log: Path) -> str:
    """Why a process ended badly: the cause where its log says one, else the last lines of the log. Exit status 1
    is an exception, which `quantgate.measure.worker` leaves as the last line; an abort is an assertion that did
    not hold."""
    lines = _lines(log)
    cause = ""
    if status == 1 and lines and re.match(r"[A-Za-z_.]*(Error|Exception)\b|out of memory", lines[-1]):
        cause = re.sub(r"^(Measurement|Asset|Input|Quantgate)Error: ", "", lines[-1])
    elif status == -signal.SIGABRT:
        cause = next((line.strip() for line in reversed(lines) if ASSERTION.search(line)), "")
        cause = re.sub(r"^/\S*/", "", cause)  # of the source file, its name is enough
    if cause:
        return f"{cause} (the process {reason(status)})\n    full log: {log}"
    return f"{reason(status)}{tail(log)}"


def _lines(log: Path) -> list[str]:
    try:
        return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


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
