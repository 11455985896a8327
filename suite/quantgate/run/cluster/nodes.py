"""The nodes of a cluster, and how they differ from the driver and from each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantgate.config.resources import Offer, Resources, lacking
from quantgate.machine.environment import machine
from quantgate.records import Scalar


@dataclass(frozen=True)
class Node:
    """A node: id: Ray's; address: of its machine; offer: what it has in all."""

    id: str
    address: str
    offer: Offer


def nodes_of(listed: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Return the nodes that can measure, of what `ray.nodes()` lists: those that are alive and have processors. Names
    are host and address, with the beginning of Ray's id where nodes share a machine."""
    nodes = []
    for one in listed:
        has = one["Resources"]
        if not one["Alive"] or not has.get("CPU"):
            continue
        address = str(one["NodeManagerAddress"])
        offer = Offer(
            name=f"node {one['NodeManagerHostname']} ({address})",
            cpus=float(has["CPU"]),
            gpus=float(has.get("GPU", 0)),
            memory=round(float(has.get("memory", 0)) / 1e9, 1),
        )
        nodes.append(Node(str(one["NodeID"]), address, offer))
    addresses = [node.address for node in nodes]
    return [
        replace(node, offer=replace(node.offer, name=f"{node.offer.name[:-1]}, {node.id[:6]})"))
        if addresses.count(node.address) > 1
        else node
        for node in nodes
    ]


def taken(resources: Resources, threads: int) -> Resources:
    """Return what a cell takes whose measuring processes have so many threads."""
    return resources.model_copy(update={"cpus": max(threads, resources.cpus or 1)})


def whole_node(resources: Resources, offers: Sequence[Offer]) -> int:
    """Return as many CPUs as leave none to another cell, on each node that can measure a cell of these resources on all
    of its processors: as the largest of those has that have what it takes."""
    able = [offer for offer in offers if not lacking(resources, [offer])]
    return int(max((offer.cpus for offer in able), default=resources.cpus or 1))


def shared_machine(nodes: Sequence[Node]) -> str:
    """Return why nothing can be timed: nodes that are one machine share its processors; empty: none are."""
    for node in nodes:
        names = [other.offer.name for other in nodes if other.address == node.address]
        if len(names) > 1:
            return f"several nodes of the cluster are one machine ({names[0]}, {names[1]}): timings would share it"
    return ""


def differing(ours: Mapping[str, Scalar], theirs: Mapping[str, Scalar]) -> list[str]:
    """List what differs but for the machines themselves, of what can change a number: versions and builds of libraries,
    variables, quantgate's code: `torch 2.12.0, 2.13.0 here`."""
    keys = sorted((ours.keys() | theirs.keys()) - machine().keys())
    return [
        f"{key} {_shown(theirs.get(key))}, {_shown(ours.get(key))} here"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def _shown(value: Scalar) -> str:
    return "none" if value is None else str(value)
