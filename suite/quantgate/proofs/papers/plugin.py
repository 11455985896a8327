"""pytest plugin of suite/test_papers.py: one case for each finding that fixtures/papers.toml expects of the tier.

Only this checkout's conftest.py loads it. A section's records come from the run of `quantgate.plugin.hooks`.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import pytest

from quantgate.errors import InputError
from quantgate.plugin.screen import is_worker
from quantgate.plugin.wiring import WIRING
from quantgate.proofs.papers.cases import Answers, FindingCase, Question, questions

MARK = "papers"

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
    """The findings of the tier; none in an A/B run, which compares environments."""
    if _QUESTIONS not in config.stash:
        wiring = config.stash[WIRING]
        cells = [] if wiring.options.against else list(wiring.cells.values())
        try:
            config.stash[_QUESTIONS] = questions(wiring.options.tier, cells)
        except InputError as error:
            raise pytest.Collector.CollectError(str(error)) from None
    return config.stash[_QUESTIONS]
