"""The connection of a run with a Ray cluster: found or refused within seconds, closed with all that runs in it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from quantgate.backends.spec import not_installed
from quantgate.errors import InputError, in_one_line
from quantgate.run.cluster.node import describe
from quantgate.run.cluster.nodes import Node, nodes_of
from quantgate.run.cluster.work import Described

REQUIRED = {"ray": "'quantgate[ray]'"}
PATIENCE = 4.0
"""Seconds in which a cluster has to answer."""
DESCRIBING = 300.0
"""Seconds in which every node has to describe itself; a worker process has to start there."""

_SETTINGS = {
    "RAY_task_oom_retries": "1",  # as often as after any other death of a worker; Ray's default is for ever
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # in a cluster that is started for the run; Ray's default is 15
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a cell of the CPU sees the variables that the node has
}
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_IS_SETTINGS = 4  # the type of the first frame of an HTTP/2 server: RFC 9113, section 3.4


class Cluster:
    """A cluster that the run is connected with. Raises InputError where there is none.

    address: HOST:PORT of its head; None: that of RAY_ADDRESS, or of the cluster that this machine belongs to, or else
    one of this machine alone is started for the run.
    """

    def __init__(self, address: str | None = None) -> None:
        if missing := not_installed(REQUIRED):
            raise InputError(f"--executor ray: {missing}")
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address)

    def _connect(self, address: str | None) -> None:
        flag = f"--executor ray={address}" if address else "--executor ray"
        address = address or os.environ.get("RAY_ADDRESS") or None
        if address not in (None, "auto", "local") and (problem := unanswered(str(address))):
            raise InputError(f"{flag}: {problem}")
        try:
            self._ray.init(
                address=address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except (Exception, SystemExit) as error:  # ray.init ends the process where it waits in vain
            with suppress(Exception):
                self._ray.shutdown()
            raise InputError(f"{flag}: Ray cannot be used: {in_one_line(error)}") from None

    @property
    def nodes(self) -> list[Node]:
        """The nodes that can measure, as of now."""
        return nodes_of(self._ray.nodes())

    def describe(self, nodes: Sequence[Node], variables: Mapping[str, str]) -> dict[str, Described | str]:
        """Have each node describe itself, all at once; return by its id what it says, or why it says nothing."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tasks = {}
        for node in nodes:
            place = NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = self._ray.remote(describe).options(num_cpus=0, max_retries=1, scheduling_strategy=place)
            tasks[task.remote(variables)] = node.id
        ready, late = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=DESCRIBING)
        described: dict[str, Described | str] = {}
        for one in ready:
            try:
                described[tasks[one]] = self._ray.get(one)
            except Exception as error:  # of Ray; or a module that the node lacks
                described[tasks[one]] = in_one_line(getattr(error, "cause", None) or error)
        described.update({tasks[one]: f"no answer within {DESCRIBING:g} s" for one in late})
        return described

    def share(self, value: Any) -> Any:
        """Put a value into the object store; return the reference to it, which tasks take in its place."""
        return self._ray.put(value)

    def task(self, function: Callable[..., Any], returns: int, **resources: Any) -> Any:
        """Return a function's remote form. It is tried again once where its worker or node dies, not if it raises."""
        return self._ray.remote(function).options(
            num_returns=returns,
            max_retries=1,
            retry_exceptions=False,
            scheduling_strategy="DEFAULT",
            **resources,
        )

    def first(self, pending: Sequence[Any], seconds: float) -> list[Any]:
        """Return what of `pending` is there, waiting up to so many seconds for something."""
        return list(self._ray.wait(list(pending), num_returns=1, timeout=seconds)[0])

    def take(self, reference: Any) -> Any:
        """Return the value; raises what its task raised, or what Ray says became of it (`died`)."""
        return self._ray.get(reference)

    def died(self, error: Exception) -> bool:
        """Return whether an error is Ray's: a worker or node died, and no code of a task raised it."""
        exceptions = self._ray.exceptions
        return isinstance(error, exceptions.RayError) and not isinstance(error, exceptions.RayTaskError)

    def cancel(self, references: Sequence[Any]) -> None:
        """End tasks, whether they run or wait."""
        for one in references:
            with suppress(Exception):
                self._ray.cancel(one, force=True)

    def close(self) -> None:
        """End the connection, and with it all that runs for it; a cluster that was started for it ends, too."""
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()


def unanswered(address: str) -> str:
    """Return why no Ray cluster can be reached at `HOST:PORT`; empty: one may answer. Ray itself would try for two
    minutes."""
    start = "start one with `ray start --head --port=6379`, and name HOST:6379"
    if address.startswith("ray://"):
        return (
            f"{address}: is a Ray Client's address: run pytest on a node of the cluster (`ray start "
            "--address=HOST:6379` makes this machine one, `--num-cpus=0` one that measures nothing), and name HOST:PORT"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        return f"{address!r} is not the address of a Ray cluster: write HOST:PORT (ray=10.0.0.1:6379), or ray alone"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return ""
            connection.settimeout(PATIENCE)
            connection.sendall(_PREFACE)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return f"no Ray cluster answers at {address} ({why}): {start}"
    if len(answer) < 4 or answer[3] != _IS_SETTINGS:
        return f"what answers at {address} is not a Ray cluster: {start}"
    return ""
