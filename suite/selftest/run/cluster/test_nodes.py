"""The nodes of a cluster: what Ray lists of them, what a cell needs of them, how they differ. And the order in which
cells are submitted."""

from __future__ import annotations

import pytest
from quantgate.config.resources import Offer, Resources
from quantgate.machine.environment import machine
from quantgate.run.cluster.nodes import Node, differing, nodes_of, shared_machine, taken, whole_node
from quantgate.run.cluster.order import submission
from quantgate.run.cluster.work import sent_variables


def listed(name: str, address: str, alive: bool = True, **resources: float) -> dict[str, object]:
    return {
        "NodeID": name * 8,
        "Alive": alive,
        "NodeManagerAddress": address,
        "NodeManagerHostname": f"host-{name}",
        "Resources": resources,
    }


def test_the_nodes_that_can_measure() -> None:
    """Not a dead one, and not a head without processors."""
    nodes = nodes_of(
        [
            listed("a", "10.0.0.1", memory=8e9),
            listed("b", "10.0.0.2", CPU=16.0, GPU=2.0, memory=256.34e9),
            listed("c", "10.0.0.3", alive=False, CPU=16.0),
            listed("d", "10.0.0.4", CPU=4.0),
        ]
    )
    assert nodes == [
        Node("bbbbbbbb", "10.0.0.2", Offer("node host-b (10.0.0.2)", 16, 2, 256.3)),
        Node("dddddddd", "10.0.0.4", Offer("node host-d (10.0.0.4)", 4, 0, 0)),
    ]
    assert shared_machine(nodes) == ""


def test_nodes_of_one_machine_are_told_apart_and_time_nothing() -> None:
    nodes = nodes_of([listed("a", "10.0.0.1", CPU=1.0), listed("b", "10.0.0.1", CPU=1.0)])
    assert [node.offer.name for node in nodes] == [
        "node host-a (10.0.0.1, aaaaaa)",
        "node host-b (10.0.0.1, bbbbbb)",
    ]
    assert shared_machine(nodes).startswith("several nodes of the cluster are one machine (node host-a")


@pytest.mark.parametrize(
    ("resources", "cpus"), [(Resources(), 4), (Resources(cpus=2), 4), (Resources(cpus=8), 8)]
)
def test_a_cell_takes_no_fewer_processors_than_its_threads(resources: Resources, cpus: int) -> None:
    assert taken(resources, threads=4).cpus == cpus


def test_a_timing_takes_all_processors_of_whatever_node_it_comes_to() -> None:
    offers = [Offer("a", 8, 0, 64), Offer("b", 32, 4, 64), Offer("c", 64, 0, 64)]
    assert whole_node(Resources(cpus=4), offers) == 64
    assert whole_node(Resources(cpus=4, gpus=2), offers) == 32
    assert whole_node(Resources(cpus=128), offers) == 128  # which none has, as the user is told


def test_versions_builds_variables_and_code_differ_and_machines_do_not() -> None:
    ours = {**machine(), "torch": "2.13.0", "OMP_SCHEDULE": None, "quantgate code": "a"}
    theirs = {"cpu": "another", "torch": "2.12.0", "OMP_SCHEDULE": "static", "quantgate code": "a"}
    assert differing(ours, theirs) == ["OMP_SCHEDULE static, none here", "torch 2.12.0, 2.13.0 here"]


def test_variables_that_hold_everywhere_are_sent() -> None:
    sent = sent_variables(
        {
            "QUANTGATE_ACCEPT_GEMMA": "1", "MKL_CBWR": "AVX2", "OMP_SCHEDULE": "static",
            "QUANTGATE_CACHE": "/here", "QUANTGATE_CACHE_LIMIT": "5", "CUDA_VISIBLE_DEVICES": "3",
            "LD_LIBRARY_PATH": "/here", "HF_TOKEN": "secret", "OMP_NUM_THREADS": "7", "HOME": "/here",
        }
    )  # fmt: skip
    assert sent == {"QUANTGATE_ACCEPT_GEMMA": "1", "MKL_CBWR": "AVX2", "OMP_SCHEDULE": "static"}


def test_the_longest_first_and_a_reference_with_what_waits_for_it() -> None:
    references = {"q4": "f16", "q8": "f16", "fp32": "fp32", "nf4": "fp32", "f16": "f16", "alone": "alone"}
    seconds = {"q4": 10.0, "q8": 30.0, "f16": 5.0, "fp32": 4.0, "nf4": 8.0}
    # f16 counts 5 + 30, fp32 4 + 8; `alone` was never measured: 8 s, the median.
    assert submission(references, seconds) == ["f16", "q8", "fp32", "q4", "alone", "nf4"]


def test_without_an_earlier_run_references_go_first_in_their_order() -> None:
    references = {"q4": "f16", "f16": "f16", "nf4": "fp32", "fp32": "fp32"}
    assert submission(references, {}) == ["f16", "fp32", "q4", "nf4"]
