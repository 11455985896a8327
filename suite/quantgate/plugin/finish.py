"""The end of a run: accepted baselines, exit status, summary, reports."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from quantgate.baselines import store as baselines
from quantgate.baselines.store import Update
from quantgate.errors import InputError, QuantgateError
from quantgate.judge import MOVED, gate_level, with_sensitivity
from quantgate.judge.environment import changed_environment
from quantgate.machine.environment import Environment
from quantgate.records import Measurement, Scalar, Status
from quantgate.report import RunInfo, append_job_summary, write_report
from quantgate.report.findings import brief, findings, leading
from quantgate.run.against import Against

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantgate.plugin.state import State

EXIT = {
    Status.REGRESSION: 1,
    Status.CHANGED: 13,
    Status.ERROR: 10,
    Status.NOT_COMPARABLE: 11,
    Status.NO_BASELINE: 12,
}
"""Exit status by the worst failing verdict; pytest's own (2 to 5) keep their meaning."""
FEW_JUDGED = 14
"""Exit status where nothing failed, but fewer gates were judged than `--min-judged` asks for."""


def exit_status(state: State, pytest_status: int, refused: bool) -> int:
    """pytest's status, made more precise where only verdicts failed."""
    if pytest_status not in (0, 1):
        return pytest_status
    if state.foreign_failures:
        return 1
    if refused and not pytest_status:
        regressed = any(v.status == Status.REGRESSION for v in state.verdicts)
        return EXIT[Status.REGRESSION if regressed else Status.ERROR]
    if pytest_status == 0:
        return FEW_JUDGED if state.lacks_judged else 0
    found = {v.status for v in state.verdicts if not v.by_machine}
    if state.option.update_baselines:
        found -= {Status.REGRESSION, Status.CHANGED, Status.NOT_COMPARABLE}
    # A case that failed without a verdict met what nobody foresaw.
    return next((code for status, code in EXIT.items() if status in found), EXIT[Status.ERROR])


def update_baselines(state: State) -> list[Update | QuantgateError]:
    """Make the run's measurements the baselines of the selected cells; each on its own, a refusal stops no other."""
    outcome: list[Update | QuantgateError] = []
    selected = dict.fromkeys(n.cell.id for n in state.needs)
    finished = state.runner.finished()
    taken = {cell: _judged(state, record) for cell, record in finished.items()}
    # The level of a gate is that of the whole tier's run, however few cells and metrics are updated now.
    metrics = state.baseline_metrics(state.cells)
    for cell, new in taken.items():
        metrics[cell] = metrics.get(cell, {}) | new.metrics
    level = gate_level(state.tolerances, metrics)
    for cell in selected:
        if cell not in taken or not taken[cell].metrics:
            continue  # its cases say why; or nothing that a baseline keeps was judged
        try:
            old = baselines.read(state.baselines, cell, state.option.tier, state.option.machine)
            baselines.check_unchanged(taken[cell], old, state.digests.get(cell, {}))
            seen = with_sensitivity(cell, taken[cell].metrics, state.tolerances, level)
            new = taken[cell].model_copy(update={"metrics": seen.metrics})
            update = baselines.plan_update(new, old, state.verdicts, state.option.machine, seen)
            baselines.write_update(
                state.baselines,
                update,
                reason=state.option.reason,
                accept_regressions=state.option.accept_regressions,
                command=shlex.join(["pytest", *state.inputs]),
            )
            outcome.append(update)
        except QuantgateError as error:
            outcome.append(error)
    return outcome


def _judged(state: State, record: Measurement) -> Measurement:
    """The record with what this run has judged and a baseline keeps: a reused one may have more, and timings of an
    unnamed machine are nobody's."""
    names = {v.metric for v in state.verdicts if v.cell == record.cell}
    kept = {
        name: metric
        for name, metric in record.metrics.items()
        if name in names and (metric.kind != "rounds" or state.option.machine is not None)
    }
    return record.model_copy(update={"metrics": kept})


def shorten_failures(state: State, reports: list[Any]) -> None:
    """Two lines for each failed case that is under a common cause: the summary tells that once. Only now are all
    cells judged; what pytest wrote to files as the cases ended (JUnit XML) is in full."""
    first, _ = leading(findings(state.verdicts, state.bits))
    under = {(v.cell, v.metric): finding for finding in first for v in finding.verdicts}
    for report in reports:
        failed = [v for v in state.cases.get(report.nodeid, []) if v.status in (*MOVED, Status.ERROR)]
        finding = under.get((failed[0].cell, failed[0].metric)) if failed else None
        if finding is not None and all(under.get((v.cell, v.metric)) is finding for v in failed):
            report.longrepr = brief(failed, finding)


def summarize(state: State, reporter: Any, status: int) -> None:
    """Write summary and reports: terminal, --report, GitHub's job summary. status: pytest's own."""
    from rich.console import Console

    from quantgate.report.markdown import to_markdown
    from quantgate.report.profile import render_profile
    from quantgate.report.terminal import render_summary

    writer = reporter._tw
    console = Console(
        file=writer._file, force_terminal=writer.hasmarkup, width=writer.fullwidth, no_color=not writer.hasmarkup,
        highlight=False,
    )  # fmt: skip
    info = run_info(state, status if state.exit_status is None else state.exit_status)
    render_summary(state.verdicts, info, console)
    if state.option.update_baselines and status not in (0, 1):
        console.print("the run did not end well: no baseline was updated", style="red")
    for one in state.updates:
        if isinstance(one, QuantgateError):
            console.print(f"not updated: {one}", style="red", markup=False, soft_wrap=True)
        else:
            console.print(baselines.format_update(one))
    try:
        if state.option.report is not None:
            for path in write_report(state.option.report, state.verdicts, info):
                console.print(f"wrote {path}", markup=False, soft_wrap=True)
        if job_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            append_job_summary(job_summary, to_markdown(state.verdicts, info))
    except InputError as error:  # the run itself is told; a report that cannot be written does not change it
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    if state.option.profile:
        render_profile(state.runner.spent, state.case_seconds, _since_start(), console)


def _since_start() -> float:
    """Seconds since this process was started."""
    return time.time() - float(psutil.Process().create_time())


def run_info(state: State, status: int) -> RunInfo:
    """The run itself, for the reports."""
    common, rest = in_common(state.environments)
    place = state.fingerprint
    finished = state.runner.finished() if state.needs else {}
    return RunInfo(
        tier=state.option.tier,
        seconds=time.monotonic() - state.begin,
        machine=f"{place['cpu']}, {place['cores']} cores, {place['memory_gb']} GB, {place['threads']} threads",
        environment=common,
        environments=rest,
        min_judged=state.option.min_judged,
        exit_status=str(status),
        skipped=list(state.skipped.items()),
        notes=[(cell, note) for cell, m in finished.items() for note in m.notes.values()],
        commit=_commit(state.root),
        matrix=str(state.option.matrix or ""),
        updating=state.option.update_baselines,
        against=state.option.against or "",
        changed=_changed(state),
        bits=state.bits,
        options=[*state.inputs, *state.circumstances],
    )


def in_common(
    environments: Mapping[str, Mapping[str, Scalar]],
) -> tuple[dict[str, Scalar], dict[str, dict[str, Scalar]]]:
    """What all of them have in common, and the rest of each."""
    first, *others = environments.values() or [{}]
    common = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    rest = {name: {k: v for k, v in one.items() if k not in common} for name, one in environments.items()}
    return common, {name: one for name, one in rest.items() if one}


def _changed(state: State) -> list[str]:
    """In what the environment differs from that of the baselines; of an A/B run, from the other one: versions, builds,
    and what the processes said."""
    if state.against is None:
        return list(dict.fromkeys(line for v in state.verdicts for line in v.environment))
    own, other = Environment(), state.against
    found = changed_environment(other.libraries, own.libraries)
    if isinstance(state.runner, Against):
        old, new = state.runner.old(), state.runner.finished()
        for cell in new:
            found += changed_environment(old[cell].environment, new[cell].environment)
    return list(dict.fromkeys(found))


def _commit(root: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
