"""A server's own side: the process that forks itself for each job (`quantgate.processes.server`)."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from pathlib import Path

from quantgate.processes.progress import VARIABLE
from quantgate.processes.turns import DESCRIPTOR
from quantgate.processes.warden import adopt_orphans, end_with_parent, kill_descendants


def serve(descriptor: int) -> Path | None:
    """Fork for each job that comes over the socket `descriptor`. Returns the job's file in each forked process, and
    None in this one when the other side has closed the socket.

    A message holds the path of a job's file and the modules to import first, separated by NUL; with it come the
    descriptors of the log, of the pipe for progress and, for a job that takes turns with another one, of their
    connection. The answer is the exit status of the job's process, or minus the number of the signal that killed it.
    An empty path asks for the imports alone; the answer is 0.
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
            # Freeze imported objects, so that garbage collection in the children does not touch (and copy) their pages.
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
            os.environ[VARIABLE] = str(progress)
            if turns:
                os.environ[DESCRIPTOR] = str(turns[0])
            return Path(file)
        for descriptor in (progress, *turns):
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        kill_descendants()  # whatever the job has left running, daemons included
        control.send(str(os.waitstatus_to_exitcode(status)).encode())


def _settle(server: int) -> None:
    """Give the forked process a session of its own, and end it with the server."""
    os.setsid()
    end_with_parent()
    if os.getppid() != server:  # the server ended before the kernel was asked to end this process with it
        os._exit(1)
