"""Programs that a model wrote, run where they can do no harm, or not at all.

Made of util-linux's tools: a user, process, mount, network and IPC namespace of their own, in which the root folder
holds nothing but Python and the system's libraries, read-only; no privileges, and limits on time, memory, files and
processes. What cannot be set up is an error: nothing is ever run with less.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantgate.errors import MeasurementError

TOOLS = ("unshare", "setpriv", "prlimit", "mount", "chroot", "timeout")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
"""What Python needs of the system, where it is there."""
NOBODY = 65534
WALL = 6
"""Wall time that a program gets for each second of processor time."""
SET_UP = 60.0
"""Seconds that setting up the sandbox may take."""
READY = "sandbox is ready"

Status = Literal["passed", "failed", "timeout"]


@dataclass(frozen=True)
class Limits:
    """seconds: of processor time (wall time: see `WALL`). memory: of address space, bytes."""

    seconds: int = 5
    memory: int = 512 * 2**20


def run_program(program: str, limits: Limits | None = None) -> Status:
    """Run a Python program: `passed` when it came to its end without an error.

    Raises MeasurementError where the sandbox cannot be set up: then nothing was run.
    """
    limits = limits or Limits()
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
        return _outcome(_command(jail, source, limits), limits, mark)


def _outcome(command: list[str], limits: Limits, mark: str) -> Status:
    # Files, not pipes: the limit on their size holds for what a program prints, too.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            start_new_session=True,
        )
        try:
            process.wait(timeout=WALL * limits.seconds + SET_UP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise MeasurementError("the sandbox did not end in time; is the machine overloaded?") from None
        out.seek(0)
        err.seek(0)
        output, errors = out.read(), err.read()
    if READY.encode() not in errors:
        said = errors.decode(errors="replace").strip().splitlines()
        raise MeasurementError(
            f"the sandbox cannot be set up here, so no program was run: {said[-1] if said else process.returncode}; "
            "unprivileged user namespaces have to be allowed"
        )
    if process.returncode == 0 and output.decode(errors="replace").rstrip().endswith(mark):
        return "passed"
    used_up = (128 + signal.SIGKILL, 128 + signal.SIGXCPU)  # as the shell and `timeout` report them
    return "timeout" if process.returncode in used_up else "failed"


def _command(jail: Path, source: Path, limits: Limits) -> list[str]:
    python = Path(sys.executable).resolve()
    interpreter = (Path(sys.base_prefix).resolve(), python.parent)
    binds = [Path(p) for p in dict.fromkeys([*SYSTEM, *map(str, interpreter)])]
    inside = jail / "program.py"
    steps = ["set -e", "umask 022", f"mount -t tmpfs -o size=1m,mode=755 none {shlex.quote(str(jail))}"]
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
        f"cp {shlex.quote(str(source))} {shlex.quote(str(inside))}",
        f"mount -o remount,ro {shlex.quote(str(jail))}",
        f"echo {shlex.quote(READY)} >&2",
        # The first process of the namespace: when it ends, the kernel ends all others.
        f"exec timeout --signal=KILL {WALL * limits.seconds} chroot {shlex.quote(str(jail))} setpriv {rights} "
        f"prlimit --cpu={limits.seconds} --as={limits.memory} --fsize=65536 --nofile=32 --nproc=1 --core=0 "
        f"{shlex.quote(str(python))} -I -S -B /program.py",
    ]
    return ["unshare", *spaces.split(), "sh", "-c", "\n".join(steps)]
