"""Read the baselines of one tier, each once in a run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from quantgate.baselines.file import Baseline
from quantgate.baselines.store import read
from quantgate.errors import QuantgateError
from quantgate.records import Metric


class StoredBaselines:
    """The baselines of a tier below `root`, with the absolute timings of `machine` if one is named.

    What a run judges by and what its update replaces is one and the same reading.
    """

    def __init__(self, root: Path, tier: str, machine: str | None = None) -> None:
        self._root = root
        self._tier = tier
        self._machine = machine
        self._read: dict[str, Baseline | QuantgateError | None] = {}

    def of(self, cell: str) -> Baseline | None:
        """Return the baseline of a cell, by its id; None where there is none. Raises QuantgateError, the same one each
        time, for one that cannot be read."""
        if cell not in self._read:
            try:
                self._read[cell] = read(self._root, cell, self._tier, self._machine)
            except QuantgateError as error:
                self._read[cell] = error
        baseline = self._read[cell]
        if isinstance(baseline, QuantgateError):
            raise baseline
        return baseline

    def metrics(self, cells: Iterable[str]) -> dict[str, dict[str, Metric]]:
        """Return the metrics of each of the cells that has a baseline which can be read."""
        by_cell = {}
        for cell in cells:
            with suppress(QuantgateError):  # the cases of the cell say why not
                if baseline := self.of(cell):
                    by_cell[cell] = baseline.metrics
        return by_cell
