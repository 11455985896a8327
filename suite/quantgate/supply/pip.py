"""Run pip, so that the user's index, mirror and proxy settings apply."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Timer

from quantgate.processes.warden import guarded, stop

# -P: a file pip.py in the current folder is not taken for pip.
PIP = (sys.executable, "-P", "-m", "pip")


def run_pip(
    arguments: Sequence[str],
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    limit: float | None = None,
) -> int:
    """Run pip and return its exit status. Neither pip nor what it starts outlives this call.

    on_line: takes each line of its output. limit: seconds. Raises subprocess.TimeoutExpired.
    """
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
