"""Findings as pytest cases: which there are, what they need measured, how each comes out."""

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
from quantgate.run.plan import Need


@dataclass(frozen=True)
class Question:
    """One case: a finding that is asked for. needs: of every cell that its section uses, but for timings of simulated
    schemes, which have none."""

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
            if not (cell.simulated and request.split("/")[0] == "throughput")
        ]


def questions(tier: str, cells: Sequence[Cell]) -> list[Question]:
    """All of a tier. A section none of whose cells is there asks nothing."""
    return [
        Question(name, key, entry, chosen)
        for name, entry in load_entries().items()
        if entry.tier == tier and (chosen := entry.chosen(cells))
        for key in entry.findings
    ]


class Answers:
    """The findings of a run's sections, each worked out once. root: of the baselines."""

    def __init__(self, root: Path = BASELINES) -> None:
        self._root = root
        self._known: dict[str, dict[str, Outcome] | QuantgateError] = {}

    def of(self, question: Question, measurement: Callable[[Cell], Measurement]) -> Outcome:
        """Raises QuantgateError, the same one for each finding of a section, where something is not measured."""
        name = question.section
        if name not in self._known:
            try:
                measured = [(cell, measurement(cell)) for cell in question.cells]
                have = {cell.id: record.requests for cell, record in measured}
                for need in question.needs:
                    if need.request not in have[need.cell.id]:
                        raise MeasurementError(f"{need.request} of {need.cell.id} was not measured")
                self._known[name] = outcomes(
                    name,
                    question.entry,
                    module_of(name).findings(measured),
                    workload_of(measured, question.entry.requests),
                    load(name, self._root),
                )
            except QuantgateError as error:
                self._known[name] = error
        outcomes_or_error = self._known[name]
        if isinstance(outcomes_or_error, QuantgateError):
            raise outcomes_or_error
        return outcomes_or_error[question.key]


class FindingCase:
    """What a case is given: `finding.check()`."""

    def __init__(
        self, question: Question, answers: Answers, measurement: Callable[[Cell], Measurement]
    ) -> None:
        self._question, self._answers, self._measurement = question, answers, measurement

    def check(self) -> None:
        """Pass where the finding holds, as expected; xfail where it is expected not to, or to be open; fail where it is
        another than expected, has left its baseline or has none. Where nothing is expected yet: skip, with what was
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
