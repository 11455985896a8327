"""A Ray cluster of several nodes on this machine, and runs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

AT_START = frozenset(os.environ)
LOCAL = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
HEAD = {"no_monitor": True, "include_log_monitor": False}
"""Nothing scales the cluster, and no driver prints what its workers log: two processes less."""


class LocalCluster:
    """A cluster of nodes on this machine. environment: of the nodes' processes. cpus: of its head; none: it measures
    nothing."""

    def __init__(self, environment: dict[str, str], cpus: int = 0) -> None:
        from ray.cluster_utils import Cluster

        self._environment = environment
        head = {**LOCAL, **HEAD, "num_cpus": cpus, "env_vars": environment}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """Add a node of one processor; return when Ray lists it, and none any more that was killed."""
        self._cluster.add_node(**LOCAL, env_vars=self._environment)
        self._cluster.wait_for_nodes(timeout=120)

    def kill(self, node: Any) -> None:
        """End a node as a machine ends that loses its power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def measuring(self, cell: str) -> tuple[psutil.Process, Any]:
        """A process that imports libraries for, or measures, this cell, as soon as there is one, and its
        node. It is stopped, so that it does not come to its end first: see `ends`."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for node in self._cluster.list_all_nodes():
                [raylet] = node.all_processes["raylet"]
                for process in psutil.Process(raylet.process.pid).children(recursive=True):
                    with suppress(psutil.Error, OSError):  # they come and go
                        if _works_for(process, cell):
                            process.suspend()
                            return process, node
            time.sleep(0.05)
        raise AssertionError(f"nothing measures {cell}")

    def close(self) -> None:
        self._cluster.shutdown()


def _works_for(process: psutil.Process, cell: str) -> bool:
    """Whether it is a measuring process, not its warden, with this cell's log."""
    module = process.cmdline()[2:3] == ["quantgate.measure.worker"]
    return module and os.readlink(f"/proc/{process.pid}/fd/1").endswith(f"/{cell}.log")  # noqa: PTH115


def ends(process: psutil.Process) -> bool:
    """Let a stopped process go on; return whether it ends, by a signal or as nobody is there to work for."""
    with suppress(psutil.NoSuchProcess):
        process.resume()
    psutil.wait_procs([process], timeout=60)
    return not process.is_running()


@pytest.fixture(scope="session")
def new_cluster(environment: dict[str, str]) -> Iterator[Callable[..., LocalCluster]]:
    """Starts clusters, which end with the test session; skips where there is no Ray."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'quantgate[ray]'")
    started: list[LocalCluster] = []
    # Sockets have short paths; beside other tests, workers of Ray's niceness get no processor; a node counts as killed
    # after five failed checks.
    settings = {
        "RAY_TMPDIR": "/tmp",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_health_check_period_ms": "500",
    }

    def start(cpus: int = 0, **further: str) -> LocalCluster:
        # What libraries that other tests have imported set for OpenMP is not in the environment of a run.
        for name in [name for name in os.environ if name.startswith("KMP_") and name not in AT_START]:
            del os.environ[name]
        os.environ.update(settings)
        started.append(LocalCluster({**environment, **settings, **further}, cpus))
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


@pytest.fixture(scope="session")
def two_nodes(new_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    """A cluster of two nodes with one processor each, for tests that leave it with two."""
    cluster = new_cluster()
    cluster.add()
    cluster.add()
    return cluster
