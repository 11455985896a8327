"""What comes out of a run: filled as reports arrive, read by its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from quantgate.baselines.update import Update
from quantgate.errors import QuantgateError
from quantgate.records import Scalar, Verdict

VERDICTS = pytest.StashKey[list[Verdict]]()
ENVIRONMENT = pytest.StashKey[dict[str, Scalar]]()
"""Of a case: its verdicts, and what its cell was measured in."""


@dataclass(eq=False)  # pytest keeps plugins in sets
class Outcome:
    """Collects verdicts where the reports arrive: in the controlling process. Registered as a plugin."""

    verdicts: list[Verdict] = field(default_factory=list)
    cases: dict[str, list[Verdict]] = field(default_factory=dict)
    """By node id."""
    environments: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """By cell id."""
    updates: list[Update | QuantgateError] = field(default_factory=list)
    case_seconds: float = 0.0
    foreign_failures: int = 0
    """Failed tests that are no cases of the gate."""
    exit_status: int | None = None
    """None until the run has ended."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the verdicts of a case from its report."""
        if verdicts := [Verdict.model_validate(v) for v in getattr(report, "quantgate", [])]:
            self.verdicts.extend(verdicts)
            self.cases[report.nodeid] = verdicts
            if environment := report.quantgate_environment:
                self.environments[verdicts[0].cell] = environment
        self.case_seconds += report.duration
        if report.failed and not getattr(report, "quantgate_case", False):
            self.foreign_failures += 1


def attach(report: Any, item: pytest.Item) -> None:
    """Send the verdicts with the report of the teardown phase, across the processes of pytest-xdist too."""
    if report.when == "teardown" and VERDICTS in item.stash:
        report.quantgate = [v.model_dump(mode="json") for v in item.stash[VERDICTS]]
        report.quantgate_environment = item.stash[ENVIRONMENT]
    report.quantgate_case = bool(item.get_closest_marker("quantgate"))
