"""A server's side: the process that forks itself for each job (`quantgate.processes.server`)."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from quantgate.processes.progress import VARIABLE, End
from quantgate.processes.turns import DESCRIPTOR
from quantgate.processes.warden import adopt_orphans, end_with_parent, kill_descendants

NEVER = 2**31 - 1
"""Collections of younger objects before one of all."""


def serve(descriptor: int, first: Callable[[], object]) -> Path | None:
    """Fork for each job that comes over the socket `descriptor`. Returns the job's file in each forked process, and
    None in this one when the other side has closed the socket.

    A message holds the path of a job's file and the modules to import first, separated by NUL; with it come the
    descriptors of the log and, for a job that takes turns with another one, of their connection. The forked process
    sends its progress over the same socket. When it has ended, the answer is an `End`. An empty path asks for the
    imports alone; the answer is an `End` with status 0. first: is called before the first import.
    """
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    server = os.getpid()
    imported: set[str] = set()
    adopt_orphans()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 2**16, 2)
        if not message:
            return None
        log, *turns = descriptors
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        file, *modules = os.fsdecode(message).split("\0")
        if not imported.issuperset(modules):
            if not imported:
                first()
            thresholds = gc.get_threshold()
            # What is imported stays: to look at all of it again and again takes a fifth of the time of torch's imports.
            gc.set_threshold(*thresholds[:2], NEVER)
            for module in modules:
                importlib.import_module(module)
            gc.set_threshold(*thresholds)
            imported.update(modules)
            # Freeze imported objects, so that garbage collection in the children does not touch (and copy) their pages.
            gc.collect()
            gc.freeze()
        status = 0
        if file:
            sys.stdout.flush()
            sys.stderr.flush()
            child = os.fork()
            if not child:
                _settle(server)
                os.environ[VARIABLE] = str(control.detach())
                if turns:
                    os.environ[DESCRIPTOR] = str(turns[0])
                return Path(file)
            for one in turns:
                os.close(one)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            kill_descendants()  # whatever the job has left running, daemons included
        control.send(End(status=status).model_dump_json().encode())


def _settle(server: int) -> None:
    """Give the forked process a session of its own, and end it with the server."""
    os.setsid()
    end_with_parent()
    if os.getppid() != server:  # the server ended before the kernel was asked to end this process with it
        os._exit(1)
