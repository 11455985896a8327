"""Reports of a run, for people and machines: terminal, page, Markdown, JSON, and progress while it runs.

Everything here takes the judge's verdicts and a `RunInfo`, and decides nothing. `rich` is imported by `terminal` and
`profile` only, because `pytest --collect-only` imports this room and has to stay fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import Field

from quantgate import __version__
from quantgate.jobs import Spent
from quantgate.records import Record, Scalar, Verdict


class RunInfo(Record):
    """What a report says about the run itself; everything else follows from the verdicts."""

    tier: str
    run: str = ""
    """The run's id, hexadecimal digits."""
    created: str = ""
    """When the run ended, UTC, ISO 8601."""
    place: dict[str, Scalar] = Field(default_factory=dict)
    """What makes the class of the machine: processor, instruction sets, cores, threads, image."""
    seconds: float = 0.0
    machine: str = ""
    """One line of text: processor, threads, memory, GPU."""
    environment: dict[str, Scalar] = Field(default_factory=dict)
    """What the environments of all cells have in common."""
    environments: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """The rest of each cell's environment: what its backend adds, what differs."""
    exit_status: str = ""
    """As text: `1`."""
    skipped: list[tuple[str, str]] = Field(default_factory=list)
    """(cell, reason) of the cells that this machine cannot run."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Cases that were skipped before they came to a verdict, by metric group."""
    notes: list[tuple[str, str]] = Field(default_factory=list)
    """(cell, sentence) of the cells that were measured in an unusual way."""
    version: str = __version__
    commit: str = ""
    matrix: str = ""
    """Path of the user's own matrix (`--matrix`); empty for the built-in one."""
    updating: bool = False
    """Whether this run's values become the baseline."""
    against: str = ""
    """For an A/B run: the other environment, as `--against` names it."""
    changed: list[str] = Field(default_factory=list)
    """What differs from the environment of the baselines, or from the other side of an A/B run."""
    bits: dict[str, float] = Field(default_factory=dict)
    """Nominal bits by cell, which cells may have in common."""
    min_judged: float | None = None
    """Share of the gates that had to be judged (`--min-judged`)."""
    options: list[str] = Field(default_factory=list)
    """The options that an update has to repeat: `--matrix PATH`, `--quantgate-text=PATH` ..."""


OfCell = TypeVar("OfCell", Verdict, Spent)


def by_cell(items: Iterable[OfCell]) -> dict[str, list[OfCell]]:
    """Return what belongs to each cell; cells and items keep their order."""
    cells: dict[str, list[OfCell]] = {}
    for item in items:
        cells.setdefault(item.cell, []).append(item)
    return cells
