"""What goes between the driver, which is pytest's process, and the nodes that measure: what a run is, what a task does,
what comes back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from quantgate.config.matrix import Matrix
from quantgate.machine.environment import Facts, variables
from quantgate.records import Measurement
from quantgate.run.plan import GroupOptions

_OF_A_NODE = re.compile(
    r"CUDA_VISIBLE_DEVICES|QUANTGATE_(?:CACHE\w*|WIKITEXT2|SPY|\w+_FD)|LD_LIBRARY_PATH|LD_PRELOAD|LLAMA_CPP_LIB\w*"
    r"|GGML_BACKEND_PATH|BNB_CUDA_VERSION"
)
"""Variables that name places, devices and libraries of one machine."""


@dataclass(frozen=True)
class Setup:
    """A run, for every node. text: name and content of the user's text (`--text`). variables: of the driver, those that
    numeric libraries compute by and the user's consents. share: whether what references leave goes to other nodes."""

    matrix: Matrix
    tier: str
    threads: int
    run: str
    text: tuple[str, bytes] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    share: bool = True


@dataclass(frozen=True)
class Work:
    """What a task measures of one cell. options: of metric groups, with what the tier leaves open; None: the tier's.
    name: as in `quantgate.run.cell.measure`."""

    cell: str
    requests: list[str]
    options: GroupOptions | None = None
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """What comes back of one cell: a record, or the error.

    folder: of the node, in which the logs lay; logs: by their path below it.
    """

    cell: str
    node: str
    folder: str
    record: Measurement | None = None
    error: str = ""
    logs: Mapping[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Described:
    """A node, as it describes itself. facts: what can make two measurements of one job differ; machine: of them and
    beside them, what tells it from other machines. cache: its folder."""

    facts: Facts
    machine: Facts
    cache: str


def sent_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of this process that hold on every node."""
    consents = {name: value for name, value in environ.items() if name.startswith("QUANTGATE_")}
    return {
        name: value
        for name, value in {**variables(environ), **consents}.items()
        if not _OF_A_NODE.fullmatch(name)
    }
