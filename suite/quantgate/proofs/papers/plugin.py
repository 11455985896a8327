"""pytest plugin of suite/test_papers.py: one case for each finding that fixtures/papers.toml expects of the tier.

Only this checkout's conftest.py loads it. A section's records come from the run of `quantgate.plugin.hooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from quantgate.config.matrix import Cell
from quantgate.errors import InputError, MeasurementError, QuantgateError
from quantgate.plugin.screen import is_worker
from quantgate.plugin.wiring import WIRING
from quantgate.proofs.papers.expected import (
    BASELINES,
    Entry,
    Outcome,
    load_baseline,
    load_entries,
    module_of,
    outcomes,
    workload_of,
)
from quantgate.proofs.papers.section import is_simulated
from quantgate.records import Measurement
from quantgate.run.plan import Need

MARK = "papers"


@dataclass(frozen=True)
class Question:
    """One case: a finding of a section."""

    section: str
    key: str
    entry: Entry
    cells: Sequence[Cell]

    @property
    def needs(self) -> list[Need]:
        """The section's requests of each of its cells; simulated schemes have no timings."""
        return [
            Need(cell, request)
            for cell in self.cells
            for request in self.entry.requests
            if not (is_simulated(cell) and request.split("/")[0] == "throughput")
        ]


def questions(tier: str, cells: Sequence[Cell]) -> list[Question]:
    """Return the cases of a tier, without sections that have no cells in this run."""
    return [
        Question(name, key, entry, chosen)
        for name, entry in load_entries().items()
        if entry.tier == tier and (chosen := entry.chosen(cells))
        for key in entry.findings
    ]


class Answers:
    """Compute the findings of each section once a run. root: folder of the baselines."""

    def __init__(self, root: Path = BASELINES) -> None:
        self._root = root
        self._sections: dict[str, dict[str, Outcome] | QuantgateError] = {}

    def of(self, question: Question, measurement: Callable[[Cell], Measurement]) -> Outcome:
        """Return the outcome of one finding. Raises QuantgateError where something was not measured, the same for each
        finding of a section."""
        name = question.section
        if name not in self._sections:
            try:
                measured = [(cell, measurement(cell)) for cell in question.cells]
                requests = {cell.id: record.requests for cell, record in measured}
                for need in question.needs:
                    if need.request not in requests[need.cell.id]:
                        raise MeasurementError(f"{need.request} of {need.cell.id} was not measured")
                self._sections[name] = outcomes(
                    name,
                    question.entry,
                    module_of(name).findings(measured),
                    workload_of(measured, question.entry.requests),
                    load_baseline(name, self._root),
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


_ANSWERS = pytest.StashKey[Answers]()
_QUESTIONS = pytest.StashKey[list[Question]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", f"{MARK}: findings of papers about quantized models")


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Collect nothing for the mark where the tier has no findings."""
    marks = getattr(obj, "pytestmark", ()) if isinstance(obj, FunctionType) else ()
    if any(mark.name == MARK for mark in marks) and not _questions(collector.config):
        return []
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one case of each finding."""
    if metafunc.definition.get_closest_marker(MARK) and "quantgate_finding" in metafunc.fixturenames:
        cases = [pytest.param(q, id=f"{q.section}/{q.key}") for q in _questions(metafunc.config)]
        metafunc.parametrize("quantgate_finding", cases, indirect=True)


@pytest.fixture
def quantgate_finding(request: pytest.FixtureRequest) -> FindingCase:
    """The finding of this case: `quantgate_finding.check()`."""
    config = request.config
    wiring = config.stash[WIRING]
    answers = config.stash.setdefault(_ANSWERS, Answers(wiring.baselines))
    return FindingCase(request.param, answers, wiring.measurer.measurement)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Keep other runs out of the folder of results, as for gates."""
    wiring = node.config.stash[WIRING]
    if not wiring.claimed and any("test_papers.py::" in i for i in ids):
        try:
            wiring.claim_results()
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the command that makes a page of the findings."""
    wiring = config.stash[WIRING]
    folder = wiring.options.report
    if (
        folder is None
        or config.option.collectonly
        or is_worker(config)
        or not config.stash.get(_ANSWERS, None)
    ):
        return
    terminalreporter.write_line(
        "a page of the findings: "
        f"python -m quantgate.proofs.papers --results={wiring.results} --output={folder}"
    )


def _questions(config: pytest.Config) -> list[Question]:
    """Return the cases of the tier; none in an A/B run, which compares environments."""
    if _QUESTIONS not in config.stash:
        wiring = config.stash[WIRING]
        cells = [] if wiring.options.against else list(wiring.cells.values())
        try:
            config.stash[_QUESTIONS] = questions(wiring.options.tier, cells)
        except InputError as error:
            raise pytest.Collector.CollectError(str(error)) from None
    return config.stash[_QUESTIONS]
