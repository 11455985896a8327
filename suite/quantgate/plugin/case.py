"""What a case is given: `gate.check()` measures, judges, and turns the verdicts into pytest's outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from quantgate.errors import QuantgateError
from quantgate.judge import MOVED, worst
from quantgate.judge.compare import Rules
from quantgate.plugin.benchmark import Replay, report_rounds
from quantgate.plugin.options import Options
from quantgate.records import Scalar, Status, Verdict
from quantgate.run.measurer import Measurer, judge_case
from quantgate.run.plan import Need
from quantgate.words import comparison


class Gate:
    """One case: a cell and one of its requests."""

    def __init__(
        self, need: Need, node_id: str, measurer: Measurer, rules: Rules, options: Options, replay: Replay
    ) -> None:
        self._need = need
        self._node_id = node_id
        self._measurer = measurer
        self._rules = rules
        self._options = options
        self._replay = replay
        self.verdicts: list[Verdict] = []
        self.environment: dict[str, Scalar] = {}
        """What the cell was measured in."""

    def report_rounds(self, benchmark: Any) -> None:
        """Show the rounds that the cell's processes timed as those of pytest-benchmark."""
        cell, request = self._need.cell, self._need.request
        try:
            metric = self._measurer.compare(cell, request).new.metrics[request]
        except QuantgateError:
            return  # `check` reports it
        report_rounds(benchmark, self._replay, cell, request, metric)

    def check(self) -> None:
        """Judge every metric of the request; pass, skip or fail accordingly."""
        options = self._options
        self.verdicts, environment = judge_case(
            self._need,
            self._measurer,
            self._rules,
            f"{options.command} '{self._node_id}'",
            second_look=not options.update_baselines,
        )
        self.environment = dict(environment)
        status, text, elsewhere = concluded(self.verdicts)
        if status in failing(options) and not elsewhere:
            pytest.fail(text, pytrace=False)
        if elsewhere or status in (Status.NO_BASELINE, Status.INCONCLUSIVE):
            pytest.skip(text)


def failing(options: Options) -> set[Status]:
    """Return the statuses that fail a case. An update reports itself what it takes or refuses."""
    if options.update_baselines:
        return {Status.ERROR}
    missing = {Status.NO_BASELINE} if options.require_baselines else set()
    return {Status.ERROR, *MOVED, Status.NOT_COMPARABLE} | missing


def concluded(verdicts: Sequence[Verdict]) -> tuple[Status, str, bool]:
    """Return a case's status, its text, and whether nothing but the machine keeps it from being judged."""
    status = worst(verdicts)
    deciding = [v for v in verdicts if v.status == status]
    elsewhere = status == Status.NOT_COMPARABLE and all(v.by_machine for v in deciding)
    return status, "\n".join(map(describe, deciding)), elsewhere


def describe(verdict: Verdict) -> str:
    """Write out a verdict, as the failure text of its case."""
    lines = [f"{verdict.status}: {verdict.metric} of {verdict.cell}", *comparison(verdict)]
    lines += [line for line in verdict.text.splitlines() if line.strip()]
    lines += [line for line in (verdict.confirmed, verdict.reference) if line]
    lines += [f"environment: {change}" for change in verdict.environment]
    if verdict.reproduce:
        lines.append(f"again: {verdict.reproduce}")
    return "\n  ".join(lines)
