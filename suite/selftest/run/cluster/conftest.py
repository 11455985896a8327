"""A Ray cluster of several nodes on this machine, and runs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from selftest.once import Once

AT_START = frozenset(os.environ)
LOCAL = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


class LocalCluster:
    """A cluster of nodes on this machine: its head measures nothing. environment: of the nodes' processes."""

    def __init__(self, environment: dict[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self._environment = environment
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**LOCAL, "num_cpus": 0, "env_vars": environment}
        )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, environment: dict[str, str] | None = None, **arguments: Any) -> Any:
        """Add a node of one processor; return what `kill` takes."""
        variables = {**self._environment, **(environment or {})}
        return self._cluster.add_node(**{**LOCAL, "env_vars": variables, **arguments})

    def kill(self, node: Any) -> None:
        """End a node as a machine ends that loses its power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def measuring(self) -> tuple[psutil.Process, Any]:
        """A process that imports libraries for, or measures, a cell, as soon as there is one, and its node. Clusters of
        other tests may measure beside this one."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if "quantgate.measure.worker" not in process.cmdline():
                        continue
                    above = {one.pid for one in process.parents()}
                    for node in self._cluster.list_all_nodes():
                        if above & _processes(node):
                            return process, node
            time.sleep(0.05)
        raise AssertionError("nothing measures")

    def close(self) -> None:
        self._cluster.shutdown()


def _processes(node: Any) -> set[int]:
    """The ids of the processes that Ray has started for a node."""
    return {one.process.pid for several in node.all_processes.values() for one in several}


@pytest.fixture(scope="session")
def new_cluster(environment: dict[str, str], once: Once) -> Iterator[Callable[[], LocalCluster]]:
    """Starts clusters, which end with the test session; skips where there is no Ray."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'quantgate[ray]'")
    started: list[LocalCluster] = []
    # Sockets have short paths; beside other tests, workers of Ray's niceness get no processor.
    settings = {"RAY_TMPDIR": "/tmp", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

    def start() -> LocalCluster:
        # What libraries that other tests have imported set for OpenMP is not in the environment of a run.
        for name in [name for name in os.environ if name.startswith("KMP_") and name not in AT_START]:
            del os.environ[name]
        os.environ.update(settings)
        started.append(LocalCluster({**environment, **settings}))
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


@pytest.fixture(scope="session")
def two_nodes(new_cluster: Callable[[], LocalCluster]) -> LocalCluster:
    """A cluster of two nodes with one processor each, for tests that leave it as it is."""
    cluster = new_cluster()
    cluster.add()
    cluster.add()
    return cluster
