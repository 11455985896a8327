"""Collect the results of a run, and end it: accept baselines, choose the exit status, write summary and reports."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from quantgate.baselines.git import ignored
from quantgate.baselines.table import format_update
from quantgate.baselines.update import Update, is_timing, plan_update, write_update
from quantgate.errors import InputError, QuantgateError
from quantgate.history import store as history
from quantgate.judge.coverage import coverage
from quantgate.judge.sensitivity import gate_level, with_sensitivity
from quantgate.plugin.case import failing
from quantgate.plugin.cases import group_of_case
from quantgate.plugin.info import run_info
from quantgate.plugin.wiring import Wiring
from quantgate.records import Measurement, Scalar, Status, Verdict, worst
from quantgate.report import RunInfo
from quantgate.report.files import append_job_summary, write_report
from quantgate.report.findings import FAILED, brief, leading
from quantgate.report.markdown import to_markdown
from quantgate.words import plural, shortened

EXIT = {
    Status.REGRESSION: 1,
    Status.DRIFT: 15,
    Status.CHANGED: 13,
    Status.ERROR: 10,
    Status.NOT_COMPARABLE: 11,
    Status.NO_BASELINE: 12,
}
"""Exit status by the worst failing verdict; pytest's own (2 to 5) keep their meaning."""
FEW_JUDGED = 14
"""Exit status where nothing failed, but fewer gates were judged than `--min-judged` asks for."""


@dataclass(eq=False)  # pytest keeps plugins in sets
class Outcome:
    """What comes out of a run: filled as reports arrive, in the controlling process. Registered as a plugin.

    cells: ids of those of the tier.
    """

    cells: Container[str]
    verdicts: list[Verdict] = field(default_factory=list)
    cases: dict[str, list[Verdict]] = field(default_factory=dict)
    """By node id."""
    environments: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    """By cell id."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """What the processes of pytest-xdist have to say of cells (`notes_of`)."""
    updates: list[Update | QuantgateError] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    """Files of baselines."""
    case_seconds: float = 0.0
    silent: dict[str, str] = field(default_factory=dict)
    """By node id of each case that ended without a verdict, its metric group."""
    failed: dict[str, None] = field(default_factory=dict)
    """Node ids of the cases that failed."""
    foreign_failures: int = 0
    """Failed tests that are no cases of the gate."""
    exit_status: int | None = None
    """None until the run has ended."""
    reported: bool = False
    """Whether its reports are written."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the verdicts of a case from its report."""
        verdicts = [Verdict.model_validate(v) for v in getattr(report, "quantgate", [])]
        if verdicts and report.nodeid not in self.cases:  # `--dist each` judges a case in each process
            self.verdicts.extend(verdicts)
            self.cases[report.nodeid] = verdicts
            if environment := report.quantgate_environment:
                self.environments[verdicts[0].cell] = environment
        if report.when == "teardown" and not verdicts and (group := getattr(report, "quantgate_case", "")):
            self.silent[report.nodeid] = group
        self.case_seconds += report.duration
        if report.failed and self._is_case(report):
            self.failed[report.nodeid] = None
        elif report.failed:
            self.foreign_failures += 1

    @property
    def left_out(self) -> dict[str, int]:
        """By metric group, how many cases were skipped before they could come to a verdict: the machine leaves their
        cells out, or somebody else's mark or fixture skips them."""
        return Counter(group for case, group in self.silent.items() if case not in self.failed)

    def _is_case(self, report: Any) -> bool:
        group: str | None = getattr(report, "quantgate_case", None)
        if group is not None:
            return group != ""
        # Of a process of pytest-xdist that crashed there is a report that has been through no hook of ours.
        return group_of_case(report.nodeid, self.cells) is not None


def exit_status(wiring: Wiring, outcome: Outcome, pytest_status: int) -> int:
    """Return pytest's status, made more precise where nothing failed but cases. What fails a run without any test that
    fails (the least coverage of pytest-cov, a file that cannot be collected) is no case."""
    if pytest_status not in (0, 1):
        return pytest_status
    if pytest_status == 1 and (outcome.foreign_failures or not outcome.failed):
        return 1
    if pytest_status == 0:
        if any(isinstance(one, QuantgateError) for one in outcome.updates):
            refused = {v.status for v in outcome.verdicts} & {Status.REGRESSION, Status.DRIFT}
            return EXIT[worst(refused) if refused else Status.ERROR]
        gates, least = coverage(outcome.verdicts, outcome.left_out), wiring.options.min_judged
        return FEW_JUDGED if least is not None and gates.share < least else 0
    verdicts = (v for case in outcome.failed for v in outcome.cases.get(case, []) if not v.by_machine)
    statuses = {v.status for v in verdicts} & failing(wiring.options)
    if not all(case in outcome.cases for case in outcome.failed):
        statuses.add(Status.ERROR)  # a case that failed without a verdict met an unforeseen error
    return next((code for status, code in EXIT.items() if status in statuses), EXIT[Status.ERROR])


def update_baselines(wiring: Wiring, outcome: Outcome) -> list[Update | QuantgateError]:
    """Make the run's measurements the baselines of the selected cells; a refusal of one stops no other."""
    options = wiring.options
    updates: list[Update | QuantgateError] = []
    judged: dict[str, set[str]] = {}
    by_model: dict[str, list[Verdict]] = {}
    for verdict in outcome.verdicts:
        judged.setdefault(verdict.cell, set()).add(verdict.metric)
        by_model.setdefault(verdict.cell.partition("/")[0], []).append(verdict)
    accepted = {
        cell: _kept(record, judged.get(cell, set()), timed=options.machine is not None)
        for cell, record in wiring.measurer.finished().items()
    }
    # The level of a gate is that of the whole tier's run, however few cells and metrics are updated now.
    metrics = wiring.stored.metrics(wiring.cells)
    for cell, new in accepted.items():
        metrics[cell] = metrics.get(cell, {}) | new.metrics
    level = gate_level(wiring.tolerances, metrics, wiring.stored.anchored(wiring.cells))
    for cell in wiring.needs:
        if cell not in accepted or not accepted[cell].metrics:
            continue  # its cases say why; or nothing that a baseline keeps was judged
        try:
            sensitivity = with_sensitivity(cell, accepted[cell].metrics, wiring.tolerances, level)
            new = accepted[cell].model_copy(update={"metrics": sensitivity.metrics})
            verdicts = by_model[cell.partition("/")[0]]
            update = plan_update(
                new,
                wiring.stored.of(cell),
                verdicts,
                options.machine,
                sensitivity,
                re_anchor=options.re_anchor,
            )
            outcome.written += write_update(
                wiring.baselines,
                update,
                reason=options.reason,
                accept_regressions=options.accept_regressions,
                command=shlex.join(["pytest", *options.input_words]),
            )
            updates.append(update)
        except QuantgateError as error:
            updates.append(error)
    return updates


def _kept(record: Measurement, judged: set[str], *, timed: bool) -> Measurement:
    """Return the record with what this run judged and a baseline keeps: a reused record may have more, and timings
    of an unnamed machine (not `timed`) belong to none."""
    metrics = record.metrics.items()
    kept = {n: metric for n, metric in metrics if n in judged and (timed or not is_timing(metric))}
    return record.model_copy(update={"metrics": kept})


def shorten_failures(wiring: Wiring, outcome: Outcome, reports: list[Any]) -> None:
    """Leave two lines of each failed case that has a common cause, which the summary states once. Only now are all
    cells judged; what pytest wrote to files as the cases ended (JUnit XML) is in full."""
    first, _ = leading(outcome.verdicts, wiring.bits)
    under = {(v.cell, v.metric): finding for finding in first for v in finding.verdicts}
    for report in reports:
        failed = [v for v in outcome.cases.get(report.nodeid, []) if v.status in FAILED]
        finding = under.get((failed[0].cell, failed[0].metric)) if failed else None
        if finding is not None and all(under.get((v.cell, v.metric)) is finding for v in failed):
            report.longrepr = brief(failed, finding)


def summarize(wiring: Wiring, outcome: Outcome, reporter: Any, status: int) -> None:
    """Write the summary on the terminal, and the reports. status: pytest's own."""
    from rich.console import Console

    from quantgate.report.profile import render_profile
    from quantgate.report.terminal import render_summary

    options = wiring.options
    writer = reporter._tw
    console = Console(
        file=writer._file, force_terminal=writer.hasmarkup, width=writer.fullwidth, no_color=not writer.hasmarkup,
        highlight=False,
    )  # fmt: skip
    say = partial(console.print, markup=False, soft_wrap=True)
    info = run_info(wiring, outcome, status if outcome.exit_status is None else outcome.exit_status)
    render_summary(outcome.verdicts, info, console)
    if options.update_baselines and status not in (0, 1):
        console.print("the run did not complete: no baseline was updated", style="red")
    for one in outcome.updates:
        if isinstance(one, QuantgateError):
            say(f"not updated: {one}", style="red")
        else:
            console.print(format_update(one))
    if accepted := sum(isinstance(one, Update) for one in outcome.updates):
        say(
            f"wrote {plural(accepted, 'baseline')} in {wiring.baselines}: read the differences, then commit them"
        )
    if left_out := ignored(wiring.baselines, outcome.written):
        say(
            f"a .gitignore keeps {plural(len(left_out), 'file')} of these baselines out of git, such as {left_out[0]}: "
            f"except {wiring.baselines} there, or another checkout cannot judge by them",
            style="yellow",
        )
    for text in write_reports(wiring, outcome, info):
        say(text, style="" if text.startswith("wrote ") else "red")
    if options.profile:
        since_start = time.time() - float(psutil.Process().create_time())
        render_profile(wiring.spent, outcome.case_seconds, since_start, console)


def write_reports(wiring: Wiring, outcome: Outcome, info: RunInfo) -> Iterator[str]:
    """Write what is kept of a run: its file of the history, --quantgate-report, GitHub's job summary. Yield what was
    written, and what could not be: the run stays what it is."""
    options, verdicts = wiring.options, outcome.verdicts
    outcome.reported = True
    try:
        if options.history is not None:
            path, _ = history.append(options.history, verdicts, info)
            yield f"wrote {path}"
    except InputError as error:  # the others are written all the same
        yield str(error)
    try:
        if options.report is not None:
            for path in write_report(options.report, verdicts, info):
                yield f"wrote {path}"
    except InputError as error:
        yield str(error)
    try:
        if job_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            append_job_summary(Path(job_summary), to_markdown(verdicts, info))
    except InputError as error:
        yield str(error)


def write_unsaid(wiring: Wiring, outcome: Outcome) -> None:
    """Write the reports of a run that ends without a summary: after an internal error, or where pytest has no terminal
    (`-p no:terminal`)."""
    if outcome.verdicts and outcome.exit_status is not None and not outcome.reported:
        for text in write_reports(wiring, outcome, run_info(wiring, outcome, outcome.exit_status)):
            if not text.startswith("wrote "):
                print(text, file=sys.stderr)


def nothing_judged(wiring: Wiring, outcome: Outcome) -> Iterator[str]:
    """Yield what there is to say at the end of a run in which no gate was judged."""
    options, reasons = wiring.options, dict[str, list[str]]()
    for cell, why in wiring.skipped.items():
        reasons.setdefault(why, []).append(cell)
    for why, cells in reasons.items():
        yield f"skipped: {shortened(cells, 3)}: {why}"
    for folder, what in ((options.report, "report"), (options.history, "run")):
        if folder is not None:
            yield f"{folder}: no {what} was written, since no gate was judged"
    if options.update_baselines:
        yield "no baseline was updated, since nothing was measured"
    if outcome.exit_status == FEW_JUDGED:
        yield f"no gate was judged: fewer than {options.flag('min_judged')} {options.min_judged:g}"
