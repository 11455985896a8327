"""Why a process failed, in words."""

from __future__ import annotations

import re
import signal
from pathlib import Path

TAIL = 12
"""Lines of a failed process's log that its error shows when none of them gives the cause."""

ASSERTION = re.compile(
    r"GGML_ASSERT\(.*failed|Assertion .* failed|^terminate called|^\s*what\(\):|GGML_ABORT"
)
"""How C and C++ libraries announce why they abort."""

CAUSE = "error: "
"""Begins the last line of the log of a job that failed with exit status 1: the line is the cause."""

REFUSAL = "refused: "
"""Begins it where what the job was given is wrong: the line says all that there is to say."""

_EXCEPTION = re.compile(r"[A-Za-z_.]*(Error|Exception)\b")
"""The last line of an interpreter that ends with a traceback."""

_HINTS = {
    "SIGKILL": ": out of memory?",
    "SIGILL": ": a library built for another processor (reinstall llama-cpp-python from source here)",
}

_AMX = re.compile(r"\bAMX model buffer size")
"""What llama.cpp logs when it lays weights out for its AMX kernels."""

_AMX_HINT = (
    ": llama.cpp's AMX kernels crash where GCC 12 or an older compiler built them (ggml-org/llama.cpp issue 20824); "
    "reinstall llama-cpp-python with --no-cache-dir and a newer compiler, or without them: "
    'CMAKE_ARGS="-DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__"'
)


def explain(status: int, log: Path) -> str:
    """Return why a process failed: the cause that its log gives, or else the last lines of the log.

    status: the exit status, or minus the number of the signal that killed it. Status 1 is an exception, which is the
    last line of the log; SIGABRT is an assertion that did not hold.
    """
    try:
        lines = _lines(log)
    except OSError:
        lines = []
    last, cause = lines[-1] if lines else "", ""
    if status == 1 and last.startswith(REFUSAL):
        return last.removeprefix(REFUSAL)
    if status == 1 and last.startswith(CAUSE):
        return f"{last.removeprefix(CAUSE)}\n    full log: {log}"
    if status == 1 and _EXCEPTION.match(last):
        cause = last
    elif status == -signal.SIGABRT:
        cause = next((line.strip() for line in reversed(lines) if ASSERTION.search(line)), "")
        cause = re.sub(r"^/\S*/", "", cause)  # the name of the source file is enough
    if cause:
        return f"{cause} (the process {_describe(status)})\n    full log: {log}"
    hint = _AMX_HINT if status == -signal.SIGSEGV and any(map(_AMX.search, lines)) else ""
    return f"{_describe(status)}{hint}{tail(log)}"


def tail(log: Path) -> str:
    """Return the last lines of a log, indented, and where the rest is."""
    try:
        lines = _lines(log)[-TAIL:]
    except OSError as error:
        return f"\n    its log {log} cannot be read: {error.strerror}"
    return "".join(f"\n    | {line}" for line in lines) + f"\n    full log: {log}"


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def _describe(status: int) -> str:
    """Return how a process ended, and what that may mean."""
    if status > 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f"signal {-status}"
    return f"was killed by {name}{_HINTS.get(name, '')}"
