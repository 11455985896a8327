"""Collect the results of a run, and end it: accept baselines, choose the exit status, write summary and reports."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from quantgate.baselines.table import format_update
from quantgate.baselines.update import Update, is_timing, plan_update, write_update
from quantgate.errors import InputError, QuantgateError
from quantgate.history import store as history
from quantgate.judge.coverage import coverage
from quantgate.judge.environment import changed_environment
from quantgate.judge.sensitivity import gate_level, with_sensitivity
from quantgate.machine.environment import Environment, commit_of, instruction_sets
from quantgate.measure.groups import TEMPLATE
from quantgate.plugin.wiring import Wiring
from quantgate.records import MOVED, Measurement, Scalar, Status, Verdict, worst
from quantgate.report import RunInfo
from quantgate.report.files import append_job_summary, write_report
from quantgate.report.findings import FAILED, brief, leading
from quantgate.report.markdown import to_markdown
from quantgate.words import plural

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
    """What comes out of a run: filled as reports arrive, in the controlling process. Registered as a plugin."""

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


def exit_status(wiring: Wiring, outcome: Outcome, pytest_status: int) -> int:
    """Return pytest's status, made more precise where only verdicts failed."""
    if pytest_status not in (0, 1):
        return pytest_status
    if outcome.foreign_failures:
        return 1
    if pytest_status == 0:
        if any(isinstance(one, QuantgateError) for one in outcome.updates):
            refused = {v.status for v in outcome.verdicts} & {Status.REGRESSION, Status.DRIFT}
            return EXIT[worst(refused) if refused else Status.ERROR]
        gates, least = coverage(outcome.verdicts), wiring.options.min_judged
        share = 0.0 if wiring.skipped and not gates.gates else gates.share
        return FEW_JUDGED if least is not None and share < least else 0
    statuses = {v.status for v in outcome.verdicts if not v.by_machine}
    if wiring.options.update_baselines:
        statuses -= {*MOVED, Status.NOT_COMPARABLE}
    # A case that failed without a verdict met an unforeseen error.
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
            write_update(
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
    """Write summary and reports: terminal, --quantgate-report, GitHub's job summary. status: pytest's own."""
    from rich.console import Console

    from quantgate.report.profile import render_profile
    from quantgate.report.terminal import render_summary

    options = wiring.options
    writer = reporter._tw
    console = Console(
        file=writer._file, force_terminal=writer.hasmarkup, width=writer.fullwidth, no_color=not writer.hasmarkup,
        highlight=False,
    )  # fmt: skip
    info = run_info(wiring, outcome, status if outcome.exit_status is None else outcome.exit_status)
    render_summary(outcome.verdicts, info, console)
    if options.update_baselines and status not in (0, 1):
        console.print("the run did not complete: no baseline was updated", style="red")
    for one in outcome.updates:
        if isinstance(one, QuantgateError):
            console.print(f"not updated: {one}", style="red", markup=False, soft_wrap=True)
        else:
            console.print(format_update(one))
    try:
        if options.history is not None:
            path, _ = history.append(options.history, outcome.verdicts, info)
            console.print(f"wrote {path}", markup=False, soft_wrap=True)
    except InputError as error:  # the reports are written all the same
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    try:
        if options.report is not None:
            for path in write_report(options.report, outcome.verdicts, info):
                console.print(f"wrote {path}", markup=False, soft_wrap=True)
        if job_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            append_job_summary(Path(job_summary), to_markdown(outcome.verdicts, info))
    except InputError as error:  # the run stays what it is
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    if options.profile:
        since_start = time.time() - float(psutil.Process().create_time())
        render_profile(wiring.spent, outcome.case_seconds, since_start, console)


def run_info(wiring: Wiring, outcome: Outcome, status: int) -> RunInfo:
    """Describe the run itself, for the reports."""
    common, rest = in_common(outcome.environments)
    options, place = wiring.options, wiring.fingerprint
    finished = wiring.measurer.finished() if wiring.needs else {}
    notes = list(dict.fromkeys(_notes(finished)))
    for (cell, group), why in wiring.without.items():
        if cell in wiring.needs:
            notes.append((cell, f"no {group} cases: {why}"))
    return RunInfo(
        tier=options.tier,
        run=wiring.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        place=machine_class(wiring),
        seconds=time.monotonic() - wiring.begin,
        machine=f"{place['cpu']}, {place['cores']} cores, {place['memory_gb']} GB, {place['threads']} threads"
        + (f", {plural(len(wiring.machines.nodes), 'node')}" if wiring.machines else ""),
        environment=common,
        environments=rest,
        min_judged=options.min_judged,
        exit_status=str(status),
        skipped=list(wiring.skipped.items()),
        notes=notes,
        commit=commit_of(wiring.root, "--short") or "",
        matrix=str(options.matrix or ""),
        updating=options.update_baselines,
        against=options.against or "",
        changed=_changed(wiring, outcome),
        bits=wiring.bits,
        options=options.words,
    )


def _notes(finished: Mapping[str, Measurement]) -> Iterator[tuple[str, str]]:
    """Yield the notes of the records, each with the id of its cell, or with the model whose note it is."""
    for cell, record in finished.items():
        for about, note in record.notes.items():
            yield (cell.partition("/")[0] if about == TEMPLATE else cell), note


def machine_class(wiring: Wiring) -> dict[str, Scalar]:
    """Return what timings and kernels depend on, so that values of different machines are not compared as a series."""
    facts = {key: wiring.fingerprint[key] for key in ("cpu", "cores", "cpu_quota", "os", "threads")}
    image = os.environ.get("ImageOS")  # noqa: SIM112 - so GitHub spells it
    isa = wiring.fingerprint.get("isa") or instruction_sets()
    others = {"isa": isa, "image": image, "name": wiring.options.machine}
    return {**facts, **{key: value for key, value in others.items() if value}}


def in_common(
    environments: Mapping[str, Mapping[str, Scalar]],
) -> tuple[dict[str, Scalar], dict[str, dict[str, Scalar]]]:
    """Return what all environments have in common, and the rest of each."""
    first, *others = environments.values() or [{}]
    common = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    rest = {name: {k: v for k, v in one.items() if k not in common} for name, one in environments.items()}
    return common, {name: one for name, one in rest.items() if one}


def _changed(wiring: Wiring, outcome: Outcome) -> list[str]:
    """List what differs from the environment of the baselines, or from the other one of an A/B run: versions and builds
    of its libraries, and what the measuring processes recorded."""
    lines = [line for verdict in outcome.verdicts for line in verdict.environment]
    if wiring.against is not None:
        lines = [*changed_environment(wiring.against.libraries, Environment().libraries), *lines]
    return list(dict.fromkeys(lines))
