"""The other side of `quantgate.processes.isolate.Server`: a process that forks itself for each job."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from pathlib import Path

from quantgate.processes.turns import DESCRIPTOR
from quantgate.processes.warden import adopt_orphans, end_with_parent, kill_descendants


def serve(descriptor: int) -> Path | None:
    """Fork for each job that comes over the socket; returns in each forked process, which finds its job's file named,
    and, without one, in this process when the other side has closed the socket.

    A message has the path of a job's file (none: there is no job yet) and the modules that are to be imported before it
    is begun, with the descriptors of its log, of the pipe for its progress and, if it works in turns with another one,
    of their connection (`quantgate.processes.turns`). The answer is how its process ended: exit status, or minus
    the number of a
    signal; 0 where there is no job.
    """
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    server = os.getpid()
    imported: set[str] = set()
    adopt_orphans()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 2**16, 3)
        if not message:
            return None
        output, progress, *turns = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        file, *modules = os.fsdecode(message).split("\0")
        if not imported.issuperset(modules):
            for module in modules:
                importlib.import_module(module)
            imported.update(modules)
            # It stays: the forked need not look for garbage there, nor copy its pages by doing so.
            gc.collect()
            gc.freeze()
        if not file:
            os.close(progress)
            control.send(b"0")
            continue
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if not child:
            control.close()
            _settle(server)
            os.environ["QUANTGATE_PROGRESS_FD"] = str(progress)
            if turns:
                os.environ[DESCRIPTOR] = str(turns[0])
            return Path(file)
        for descriptor in (progress, *turns):
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        kill_descendants()  # what it has left running, daemons included, ends with it
        control.send(str(os.waitstatus_to_exitcode(status)).encode())


def _settle(server: int) -> None:
    """Make the forked process one of its own."""
    os.setsid()
    end_with_parent()
    if os.getppid() != server:  # it ended before it could take this process with it
        os._exit(1)
