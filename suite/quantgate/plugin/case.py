"""One case: what `quantgate_case` gives it, how it comes to its verdicts, and what these mean for pytest."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.judge.compare import Rules, explained, verdicts
from quantgate.judge.confirm import confirmed, needs_second_look, unconfirmed
from quantgate.measure.groups import group_name, group_of
from quantgate.plugin.options import Options
from quantgate.plugin.screen import is_worker
from quantgate.plugin.wiring import WIRING, Wiring
from quantgate.records import MOVED, Scalar, Status, Verdict, worst
from quantgate.run.measurer import Measurer
from quantgate.run.plan import Need
from quantgate.words import comparison


@dataclass
class Judged:
    """What a case comes to. environment: what the cell was measured in; empty where it was not."""

    verdicts: list[Verdict] = field(default_factory=list)
    environment: dict[str, Scalar] = field(default_factory=dict)


JUDGED = pytest.StashKey[Judged]()


@pytest.fixture
def quantgate_case(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """The case's cell and metric: `quantgate_case.check()`."""
    wiring, replay = request.config.stash[WIRING], Replay()
    if request.config.pluginmanager.hasplugin("benchmark"):
        request.node.add_marker(pytest.mark.benchmark(timer=replay))
    gate = Gate(request.param, node_id(request.node), wiring, replay)
    # Of a repository's own functions the process that starts this one does not know what they measure.
    if is_worker(request.config) and (problem := beside_others(group_name(gate.need.request), "-n")):
        refusal = Verdict(cell=gate.need.cell.id, metric=gate.need.request, status=Status.ERROR, text=problem)
        request.node.stash[JUDGED] = Judged([refusal])
        pytest.fail(describe(refusal), pytrace=False)
    yield gate
    for verdict in gate.judged.verdicts:
        request.node.user_properties.append((f"verdict {verdict.metric}", str(verdict.status)))
    request.node.stash[JUDGED] = gate.judged


def beside_others(group: str, spread_by: str) -> str:
    """Return why a metric group cannot be measured while other processes of pytest-xdist measure; empty: it can.
    spread_by: the option that starts them."""
    if not group_of(group).alone:
        return ""
    return (
        f"{spread_by} measures cells side by side, and {group} cases are selected: their timings would be worthless; "
        f"leave {spread_by} out, or deselect them with -m 'not {group}'"
    )


def node_id(item: pytest.Item) -> str:
    """Return a case's node id as a command takes it in the folder where pytest was started: pytest's own begins at the
    root of the repository."""
    here, root = item.config.invocation_params.dir, item.config.rootpath
    below = item.path.is_relative_to(here) or here.is_relative_to(root)
    if item.path.is_relative_to(root) and (here == root or not below):
        return item.nodeid
    return "::".join([os.path.relpath(item.path, here), *item.nodeid.split("::")[1:]])


@dataclass
class Gate:
    """One case: a cell and one of its requests."""

    need: Need
    node_id: str
    wiring: Wiring
    replay: Replay
    judged: Judged = field(default_factory=Judged)

    def check(self) -> None:
        """Judge every metric of the request; pass, skip or fail accordingly."""
        wiring, options = self.wiring, self.wiring.options
        reproduce = f"{options.command} {shlex.quote(self.node_id)}"
        second_look = not options.update_baselines
        with wiring.start.restored():
            self.judged = judge_case(
                self.need, wiring.measurer, wiring.rules, reproduce, second_look=second_look
            )
        outcome, deciding = outcome_of(self.judged.verdicts, failing(options))
        text = "\n".join(map(describe, deciding))
        if outcome == "failed":
            pytest.fail(text, pytrace=False)
        if outcome == "skipped":
            pytest.skip(text)

    def report_rounds(self, benchmark: Any) -> None:
        """Show the rounds that the cell's processes timed as those of pytest-benchmark: in its table, its JSON, its
        comparison."""
        cell, request = self.need.cell, self.need.request
        if not hasattr(benchmark, "extra_info"):
            return  # no pytest-benchmark: switched off, or another fixture of this name
        try:
            with self.wiring.start.restored():
                metric = self.wiring.measurer.compare(cell, request).new.metrics[request]
        except QuantgateError:
            return  # `check` reports it
        self.replay.rounds = metric.samples or []
        benchmark.group = request.rpartition("/")[2]
        facts = {"cell": cell.id, metric.unit: metric.value, "bits": cell.bits}
        benchmark.extra_info.update(facts | {"rounds per process": metric.processes} | metric.conditions)
        benchmark.pedantic(lambda: None, rounds=len(self.replay.rounds), iterations=1)


def judge_case(
    need: Need, measurer: Measurer, rules: Rules, reproduce: str = "", *, second_look: bool = True
) -> Judged:
    """Measure and judge one case. An error, foreseen or not, becomes a verdict.

    reproduce: the command that repeats the case. second_look: whether what seems worse is measured again first.
    """
    cell, request = need.cell, need.request
    environment: dict[str, Scalar] = {}
    try:
        comparison = measurer.compare(cell, request)
        environment = dict(comparison.new.environment)
        judged = verdicts(comparison, need.covers, rules)
        if not judged:
            raise MeasurementError(
                f"{request}: measured without an error, and gave no metric that could be judged"
            )
        if second_look and needs_second_look(judged, comparison, rules):
            try:
                look = measurer.again(cell, request)
            except QuantgateError as error:
                judged = unconfirmed(judged, comparison, rules, str(error))
            else:
                judged = confirmed(judged, comparison, look, need.covers, rules)
        if any(v.status in MOVED for v in judged):
            judged = _beside_reference(judged, need, measurer, rules)
    except Exception as error:
        foreseen = error if isinstance(error, QuantgateError) else unexpected(error)
        judged = [Verdict(cell=cell.id, metric=request, status=Status.ERROR, text=str(foreseen))]
    return Judged([v.model_copy(update={"reproduce": reproduce}) for v in judged], environment)


def _beside_reference(judged: list[Verdict], need: Need, measurer: Measurer, rules: Rules) -> list[Verdict]:
    """Add what the reference did in the same run."""
    try:
        reference = measurer.reference(need.cell)
    except QuantgateError:
        return judged  # the reference's own cases say why
    return explained(judged, reference, need.covers, rules) if reference else judged


def outcome_of(
    verdicts: Sequence[Verdict], failing: Collection[Status]
) -> tuple[Literal["passed", "failed", "skipped"], list[Verdict]]:
    """Return what a case comes to by its verdicts, and those that decide it: the worst. What nothing but the machine
    keeps from being judged fails no case, and hides nothing that does. failing: the statuses that do."""
    status = worst(v.status for v in verdicts)
    deciding = [v for v in verdicts if v.status == status]
    if status == Status.NOT_COMPARABLE and all(v.by_machine for v in deciding):
        rest = [v for v in verdicts if not v.by_machine and v.status in failing]
        return ("failed", rest) if rest else ("skipped", deciding)
    if status in failing:
        return "failed", deciding
    return "skipped" if status in (Status.NO_BASELINE, Status.INCONCLUSIVE) else "passed", deciding


def failing(options: Options) -> set[Status]:
    """Return the statuses that fail a case. An update reports itself what it takes or refuses."""
    if options.update_baselines:
        return {Status.ERROR}
    missing = {Status.NO_BASELINE} if options.require_baselines else set()
    return {Status.ERROR, *MOVED, Status.NOT_COMPARABLE} | missing


def describe(verdict: Verdict) -> str:
    """Write out a verdict, as the failure text of its case."""
    lines = [f"{verdict.status}: {verdict.metric} of {verdict.cell}"]
    if verdict.measured is not None or verdict.baseline is not None:
        lines += comparison(verdict)
    lines += [line for line in verdict.text.splitlines() if line.strip()]
    lines += [line for line in (verdict.confirmed, verdict.reference) if line]
    lines += [f"environment: {change}" for change in verdict.environment]
    if verdict.reproduce:
        lines.append(f"reproduce: {verdict.reproduce}")
    return "\n  ".join(lines)


@dataclass
class Replay:
    """A timer that gives recorded rounds, in seconds: pytest-benchmark reads it before and after each round."""

    rounds: list[float] = field(default_factory=list)
    _reads: int = 0

    def __call__(self) -> float:
        index, second = divmod(self._reads, 2)
        self._reads += 1
        return self.rounds[index] if second and index < len(self.rounds) else 0.0


class NoBenchmark:
    """Stands in for pytest-benchmark where that is switched off (`-p no:benchmark`)."""

    @pytest.fixture
    def benchmark(self) -> None:
        """Report nothing."""
