"""What the tests of `quantgate.processes` let a process do: makers, called as (output, report=..., **arguments)."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Report = Callable[[str, float, float], None]


def make_file(output: Path, *, report: Report, text: str) -> None:
    """End well."""
    print(f"writing {text}")
    output.write_text(text)


def promise(output: Path, *, report: Report) -> None:
    """Leave the work to the end of the process."""
    atexit.register(output.write_text, "at the end")


def count(output: Path, *, report: Report, steps: int) -> None:
    """Report each step, slowly enough for each to be sent."""
    for step in range(steps):
        report("counting", step, steps)
        time.sleep(0.11)
    report("last", 0, 1)


def say_and_exit(output: Path, *, report: Report, lines: int, status: int) -> None:
    """Print, with empty lines in between, and end with an exit status."""
    for number in range(lines):
        print(f"line {number}\n")
    sys.stdout.flush()
    os._exit(status)


def refuse(output: Path, *, report: Report, error: str, text: str) -> None:
    """Raise one of the suite's errors, or a builtin one."""
    import builtins

    from quantgate import errors

    raise (getattr(errors, error, None) or getattr(builtins, error))(text)


def kill_self(output: Path, *, report: Report, name: str) -> None:
    """End by a signal."""
    print(f"sending {name}", flush=True)
    os.kill(os.getpid(), int(name) if name.isdigit() else getattr(signal, name))
    time.sleep(60)


def sleep_forever(output: Path, *, report: Report) -> None:
    """Start a process that sleeps, write both process numbers, sleep."""
    child = subprocess.Popen(["sleep", "600"])
    output.write_text(f"{os.getpid()} {child.pid}")
    print("gone to sleep", flush=True)
    report("sleeping", 0, 1)
    time.sleep(600)


def leave_child(output: Path, *, report: Report) -> None:
    """End well, but leave a process behind."""
    child = subprocess.Popen(["sleep", "600"])
    output.write_text(f"{os.getpid()} {child.pid}")


def leave_fork(output: Path, *, report: Report) -> None:
    """End well, but leave a forked copy behind: it holds whatever is open."""
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    output.write_text(f"{os.getpid()} {child}")


def leave_daemon(output: Path, *, report: Report) -> None:
    """End well, but leave a process behind that was forked twice and has a session of its own."""
    reader, writer = os.pipe()
    if not os.fork():
        os.setsid()
        if not (daemon := os.fork()):
            os.write(writer, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0 if daemon else 1)
    output.write_text(f"{os.getpid()} {os.read(reader, 64).decode()}")


def write_progress(output: Path, *, report: Report, text: str, times: int = 1) -> None:
    """Send something in place of progress."""
    for _ in range(times):
        os.write(int(os.environ["QUANTGATE_PROGRESS_FD"]), text.encode())


def dump(output: Path, *, report: Report) -> None:
    """Write down what the process was given."""
    import json

    facts = {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "stdin": sys.stdin.read(),
        "session": os.getsid(0),
        "process": os.getpid(),
        "parent": os.getppid(),
        "modules": sorted(sys.modules),
    }
    output.write_text(json.dumps(facts))


_calls = 0


def count_calls(output: Path, *, report: Report) -> None:
    """Write how often this was called in this process."""
    global _calls
    _calls += 1
    output.write_text(f'{{"calls": {_calls}}}')


def multiply(output: Path, *, report: Report) -> None:
    """What numpy, scipy and, where it has been imported, torch compute in threads, of whole numbers: how far from
    exact, how many threads."""
    import json

    import numpy as np
    from scipy.linalg import blas

    a, b = np.random.default_rng(0).integers(-8, 8, size=(2, 300, 300)).astype(np.float32)
    exact = a.astype(np.int64) @ b.astype(np.int64)  # not by BLAS
    products = {"numpy": a @ b, "scipy": blas.sgemm(1.0, a, b)}
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(2)
        products["torch"] = torch.from_numpy(a) @ torch.from_numpy(b)
    wrong = {name: float(abs(np.asarray(product) - exact).max()) for name, product in products.items()}
    wrong["solve"] = float(abs(np.linalg.solve(2 * np.eye(300), a) - a / 2).max())
    output.write_text(json.dumps({"wrong": wrong, "threads": len(os.listdir("/proc/self/task"))}))  # noqa: PTH208


def alternate(
    output: Path, *, report: Report, name: str, first: bool, book: str, turns: int, end: str = ""
) -> None:
    """Write the name into `book` turn by turn; in the third, end the way `end` says."""
    from quantgate.processes.turns import inherited

    mine = inherited(first)
    mine.meet()
    output.write_text(str(os.getpid()))
    for number in range(turns):

        def work(number: int = number) -> float:
            report(f"{name} {number}", 0, 1)  # the first of a phase is not held back
            if number == 2:
                _end(end)
            with Path(book).open("a") as file:
                file.write(f"{name}{number} ")
            return float(number)

        mine.take(work)
    report("done", 1, 1)


def _end(how: str) -> None:
    if how == "error":
        raise ValueError("a kernel is missing")
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(600)
