"""Define a section of the papers page: a paper, findings, figures, tables, and the module that returns them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from quantgate.backends.spec import backends
from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.records import Measurement

NOTHING = 0.005
"""Negligible loss, nats per token: half a percent of perplexity."""
LITTLE = 0.02
"""Small loss, nats per token: the tolerance of a quantized cell's perplexity."""
TOLERABLE = 0.05
"""Small loss of a score from 0 to 1: the tolerance of an accuracy."""

State = Literal["holds", "does not hold", "open"]
"""State of a finding; `open`: the interval of the measured value allows both."""
Measured = Sequence[tuple[Cell, Measurement]]
"""Every cell that a section uses, with its record, in the order of the matrix."""


def is_simulated(cell: Cell) -> bool:
    """Return whether the cell computes what its scheme computes without the scheme's speed."""
    return "timings" not in backends()[cell.backend].can(cell.scheme_options)


@dataclass(frozen=True)
class Paper:
    """The paper of a section. question: what the paper asks, for readers who do not know it. setup: the experiment that
    replaces the paper's here."""

    authors: str
    title: str
    year: int
    arxiv: str
    question: str
    setup: str


@dataclass(frozen=True)
class Finding:
    """One claim of a paper, and the measured value.

    key: its name in fixtures/papers.toml. name: a few words. claim: what the paper states. value: measured here, in
    `unit` (empty: a pure number); low, high: its 95 % interval. text: which quantities were compared.
    """

    key: str
    name: str
    claim: str
    value: float
    low: float
    high: float
    unit: str
    state: State
    text: str

    @property
    def measured(self) -> str:
        """`0.0312 nats/token (0.0287 to 0.0337)`."""
        interval = f" ({self.low:.4g} to {self.high:.4g})" if math.isfinite(self.low) else ""
        return f"{self.value:.4g} {self.unit}".rstrip() + interval


def decide(low: float, high: float, *, above: float = -math.inf, below: float = math.inf) -> State:
    """Return whether a value with this interval lies above one bound and below the other. NaN leaves it open."""
    if low > above and high < below:
        return "holds"
    if high <= above or low >= below:
        return "does not hold"
    return "open"


@dataclass(frozen=True)
class Figure:
    """A figure. chart: an altair chart. name: of its PNG, without ending. caption: what the reader sees, in a sentence
    or two."""

    name: str
    title: str
    caption: str
    chart: Any


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class SectionModule(Protocol):
    """A module `suite/quantgate/proofs/papers/<name>.py` that `[<name>]` of fixtures/papers.toml names."""

    PAPER: Paper

    def findings(self, measured: Measured) -> list[Finding]:
        """Return the findings in the order of the page. Raises InputError where a cell was not measured."""

    def figures(self, measured: Measured) -> list[Figure]:
        """Return the figures. Only this needs altair; findings do without."""

    def tables(self, measured: Measured) -> list[Table]:
        """Return the tables; may be empty."""


# --- charts

WIDTH, HEIGHT = 420, 300
"""Pixels of a chart."""


def load_altair() -> Any:
    """Return the library. Raises InputError where it or vl-convert is missing."""
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        raise InputError(
            "figures need altair and vl-convert-python: pip install 'quantgate[papers]'"
        ) from None
    return altair


def chart_data(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return rows of named values as a chart takes them."""
    return load_altair().Data(values=[dict(row) for row in rows])
