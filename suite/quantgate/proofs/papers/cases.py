"""Make pytest cases of findings: which there are, what each needs measured, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError
from quantgate.proofs.papers.baseline import BASELINES, load, workload_of
from quantgate.proofs.papers.expected import Entry, Outcome, load_entries, module_of, outcomes
from quantgate.records import Measurement
from quantgate.run.inputs import is_simulated
from quantgate.run.plan import Need


@dataclass(frozen=True)
class Question:
    """One case: a finding of a section. needs: the section's requests of every cell that it uses, without timings of
    simulated schemes, which have none."""

    section: str
    key: str
    entry: Entry
    cells: Sequence[Cell]

    @property
    def needs(self) -> list[Need]:
        return [
            Need(cell, request)
            for cell in self.cells
            for request in self.entry.requests
            if not (is_simulated(cell) and request.split("/")[0] == "throughput")
        ]


def questions(tier: str, cells: Sequence[Cell]) -> list[Question]:
    """Return the findings of a tier, without sections whose cells are all missing."""
    return [
        Question(name, key, entry, chosen)
        for name, entry in load_entries().items()
        if entry.tier == tier and (chosen := entry.chosen(cells))
        for key in entry.findings
    ]


class Answers:
    """Computes the findings of each section once a run. root: folder of the baselines."""

    def __init__(self, root: Path = BASELINES) -> None:
        self._root = root
        self._sections: dict[str, dict[str, Outcome] | QuantgateError] = {}

    def of(self, question: Question, measurement: Callable[[Cell], Measurement]) -> Outcome:
        """Return the outcome of one finding. Raises QuantgateError, the same one for each finding of a section, if
        something was not measured."""
        name = question.section
        if name not in self._sections:
            try:
                measured = [(cell, measurement(cell)) for cell in question.cells]
                have = {cell.id: record.requests for cell, record in measured}
                for need in question.needs:
                    if need.request not in have[need.cell.id]:
                        raise MeasurementError(f"{need.request} of {need.cell.id} was not measured")
                self._sections[name] = outcomes(
                    name,
                    question.entry,
                    module_of(name).findings(measured),
                    workload_of(measured, question.entry.requests),
                    load(name, self._root),
                )
            except QuantgateError as error:
                self._sections[name] = error
        result = self._sections[name]
        if isinstance(result, QuantgateError):
            raise result
        return result[question.key]


class FindingCase:
    """The fixture of a case: `finding.check()`."""

    def __init__(
        self, question: Question, answers: Answers, measurement: Callable[[Cell], Measurement]
    ) -> None:
        self._question, self._answers, self._measurement = question, answers, measurement

    def check(self) -> None:
        """Pass if the finding holds as expected; xfail if it is expected not to hold or to be open; fail if its state
        is not the expected one, or if it left its baseline or has none. Without an expectation, skip and show what was
        measured."""
        try:
            outcome = self._answers.of(self._question, self._measurement)
        except QuantgateError as error:
            pytest.fail(f"error: {error}", pytrace=False)
        if outcome.changes:
            pytest.fail(outcome.text, pytrace=False)
        if outcome.expected.state == "unknown":
            pytest.skip(outcome.text)
        if outcome.finding.state != "holds":
            pytest.xfail(outcome.text)
