"""Run programs that a model wrote in a sandbox, or not at all.

Made of util-linux's tools: new user, process, mount, network and IPC namespaces, in which the root folder holds nothing
but Python and the system's libraries, read-only; no privileges, and limits on time, memory, files and processes. What
cannot be set up is an error: nothing is ever run with less.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from quantgate.errors import MeasurementError

TOOLS = ("unshare", "setpriv", "prlimit", "mount", "chroot", "timeout")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
"""What Python needs of the system, where it is there."""
NOBODY = 65534
MEMORY = 512 * 2**20
"""Bytes of a program's address space."""
WALL = 6
"""Wall time that a program gets for each second of processor time."""
SET_UP = 60.0
"""Seconds that setting up the sandbox may take."""
READY = "sandbox is ready"

Status = Literal["passed", "failed", "timeout"]


def run_program(program: str, seconds: int = 5) -> Status:
    """Run a Python program: `passed` when it came to its end without an error. seconds: of processor time.

    Raises MeasurementError where the sandbox cannot be set up: then nothing was run.
    """
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise MeasurementError(
            f"no sandbox without {', '.join(missing)} (util-linux, coreutils): install them"
        )
    mark = secrets.token_hex(16)  # a program that ends itself early has not passed
    with tempfile.TemporaryDirectory(prefix="quantgate-sandbox-") as folder:
        jail, source = Path(folder) / "jail", Path(folder) / "program.py"
        jail.mkdir()
        source.write_text(f"{program}\nprint({mark!r})\n", encoding="utf-8")
        source.chmod(0o444)
        status, output, errors = _run(_command(jail, source, seconds), WALL * seconds + SET_UP)
    if READY not in errors:
        reason = errors.strip().splitlines()[-1:] or [str(status)]
        raise MeasurementError(
            f"the sandbox cannot be set up here, so no program was run: {reason[0]}; "
            "unprivileged user namespaces have to be allowed"
        )
    if status == 0 and output.rstrip().endswith(mark):
        return "passed"
    used_up = (128 + signal.SIGKILL, 128 + signal.SIGXCPU)  # as the shell and `timeout` report them
    return "timeout" if status in used_up else "failed"


def _run(command: list[str], limit: float) -> tuple[int, str, str]:
    """Return exit status, output and errors."""
    # Files, not pipes: the limit on their size holds for what a program prints, too.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise MeasurementError("the sandbox did not end in time; is the machine overloaded?") from None
        output.seek(0)
        errors.seek(0)
        return status, output.read().decode(errors="replace"), errors.read().decode(errors="replace")


def _command(jail: Path, source: Path, seconds: int) -> list[str]:
    python = Path(sys.executable).resolve()
    interpreter = (Path(sys.base_prefix).resolve(), python.parent)
    binds = [Path(p) for p in dict.fromkeys([*SYSTEM, *map(str, interpreter)])]
    root, program = shlex.quote(str(jail)), shlex.quote(f"{jail}/program.py")
    steps = ["set -e", "umask 022", f"mount -t tmpfs -o size=1m,mode=755 none {root}"]
    for path in binds:
        place = shlex.quote(f"{jail}{path}")
        if path.is_symlink():
            steps.append(f"ln -s {shlex.quote(str(path.readlink()))} {place}")
        elif path.exists() and not any(path != other and path.is_relative_to(other) for other in binds):
            steps.append(f"mkdir -p {place}")
            steps.append(f"mount --bind {shlex.quote(str(path))} {place}")
            steps.append(f"mount -o remount,bind,ro {place}")
    rights = "--bounding-set=-all --inh-caps=-all --no-new-privs"
    spaces = "--mount --net --ipc --uts --pid --fork --kill-child"
    if os.getuid() == 0:  # root's files are root's in any user namespace: their owner must not be who runs
        rights += f" --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    else:
        spaces += " --user --map-root-user"
    steps += [
        f"cp {shlex.quote(str(source))} {program}",
        f"mount -o remount,ro {root}",
        f"echo {shlex.quote(READY)} >&2",
        # The first process of the namespace: when it ends, the kernel ends all others.
        f"exec timeout --signal=KILL {WALL * seconds} chroot {root} setpriv {rights} "
        f"prlimit --cpu={seconds} --as={MEMORY} --fsize=65536 --nofile=32 --nproc=1 --core=0 "
        f"{shlex.quote(str(python))} -I -S -B /program.py",
    ]
    return ["unshare", *spaces.split(), "sh", "-c", "\n".join(steps)]
