"""Run pip, so that the user's index, mirror and proxy settings apply."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from threading import Event, Timer

from quantgate.processes.warden import guarded, stop

# -P: a file pip.py in the current folder is not taken for pip.
PIP = (sys.executable, "-P", "-m", "pip")


def run_pip(
    arguments: Sequence[str], on_line: Callable[[str], None], limit: float | None = None, **variables: str
) -> int:
    """Run pip and return its exit status. Neither pip nor what it starts outlives this call.

    on_line: takes each line of its output. limit: seconds. variables: of its environment, beside those of this process.
    Raises subprocess.TimeoutExpired.
    """
    # A constraints file of the user's (tox sets one) would pin versions, and the caller names those that it wants.
    env = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"} | variables
    with subprocess.Popen(
        guarded([*PIP, *arguments]),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as pip:
        late = Event()

        def expire() -> None:
            late.set()
            stop(pip)

        timer = Timer(limit or 0, expire)
        if limit is not None:
            timer.start()
        try:
            for line in pip.stdout or ():
                on_line(line.rstrip())
        except BaseException:
            stop(pip)
            raise
        finally:
            timer.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(pip.args, limit or 0)
    return pip.returncode
