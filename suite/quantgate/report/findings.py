"""What did not pass, gathered so that one thing is read once; and the run in a sentence."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantgate.config.matrix import selecting
from quantgate.judge import MOVED, why_refused
from quantgate.judge.causes import Cause, causes, same_factor
from quantgate.judge.drift import size
from quantgate.measure.groups import families
from quantgate.records import Status, Verdict, worst
from quantgate.report.summary import counts, unique
from quantgate.words import comparison, delta, difference, duration, limit, lines_of, listed, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantgate.report import RunInfo

LOG_LINES = 15
"""Of an error's log, the last so many lines are shown."""


@dataclass
class Finding:
    """Verdicts that are one thing to read: one broken cell, or one cause wherever it struck."""

    status: Status
    verdicts: list[Verdict] = field(default_factory=list)
    common: Cause | None = None
    """The cause, where many cells have the same."""

    @property
    def title(self) -> str:
        """`all 8 llamacpp cells: perplexity +2.9 % to +3.2 %`, or the cells and their metrics."""
        if self.common is None:
            return f"{', '.join(self.cells)}: {self.subject}"
        if self.status == Status.ERROR:
            return f"{_whose(self.common)}: {self.cause[0]}"
        metric, verdicts = next(iter(self.common.by_metric().items()))
        others = [m for m in self.metrics if m != metric]
        more = f"; also {listed(others)}" if others else ""
        return f"{_whose(self.common)}: {metric} {spread(verdicts)}{more}"

    @property
    def cells(self) -> list[str]:
        return unique(v.cell for v in self.verdicts)

    @property
    def metrics(self) -> list[str]:
        return unique(v.metric for v in self.verdicts)

    @property
    def subject(self) -> str:
        """The metrics in short; of a single one also by how much it changed."""
        change = f" {difference(self.verdicts[0])}" if len(self.verdicts) == 1 else ""
        return f"{listed(self.metrics)}{change}".rstrip()

    @property
    def environment(self) -> list[str]:
        if self.common is not None:
            return self.common.environment
        return unique(line for v in self.verdicts for line in v.environment)

    @property
    def commands(self) -> list[str]:
        """What broke a whole cell, or many, shows in any one of its cases; of regressions all cases are named."""
        commands = unique(v.reproduce for v in self.ranked if v.reproduce)
        return commands[:1] if self.status == Status.ERROR or self.common is not None else together(commands)

    @property
    def ranked(self) -> list[Verdict]:
        """Of a common cause, metric by metric and the largest change first: the first shows it best."""
        if self.common is None:
            return self.verdicts
        metrics = self.common.by_metric().values()
        return [v for its in metrics for v in sorted(its, key=lambda v: -abs(size(v)))]

    @property
    def references(self) -> list[str]:
        """What the references did; of a common cause without the figures of each."""
        lines = unique(v.reference for v in self.verdicts if v.reference)
        return lines if self.common is None else unique(line.partition(" (")[0] for line in lines)

    @property
    def cause(self) -> list[str]:
        """The reason, then the last lines of the log where there is one."""
        first = self.verdicts[0]
        reason, *log = lines_of(first.text) or first.environment[:1] or [str(self.status)]
        lines = [reason, *textwrap.dedent("\n".join(log[-LOG_LINES:])).splitlines()]
        return [f"{line[:400]} ..." if len(line) > 400 else line for line in lines]


def findings(verdicts: list[Verdict], bits: Mapping[str, float] | None = None) -> list[Finding]:
    """Everything that did not pass: common causes first (`quantgate.judge.causes`), then the worst first.

    What has a cause of its own: regressions are gathered by cell, improvements stay single, the rest is gathered by
    its words: an error that took seven metrics of a cell, another machine's timings, are told once.
    """
    common = [
        Finding(worst(v.status for v in cause.verdicts), list(cause.verdicts), cause)
        for cause in causes(verdicts, families(), bits)
    ]
    told = {(v.cell, v.metric) for finding in common for v in finding.verdicts}
    moved = {(v.cell, v.metric.partition("/")[0]) for v in verdicts if v.status in MOVED}
    # Beside a regression of the same group, what the sample cannot tell is nothing more to read.
    told |= {
        (v.cell, v.metric)
        for v in verdicts
        if v.status == Status.INCONCLUSIVE and (v.cell, v.metric.partition("/")[0]) in moved
    }
    found: dict[tuple[Status, str], Finding] = {}
    for verdict in sorted(verdicts, key=lambda v: list(Status).index(v.status)):
        if verdict.status == Status.PASS or (verdict.cell, verdict.metric) in told:
            continue
        status: Status = verdict.status
        same = verdict.text or verdict.cell
        if status in MOVED:
            # Of a cell that is worse, what else changed is the same thing.
            same = verdict.cell
            status = next((s for s in MOVED if (s, same) in found), status)
        elif status == Status.NO_BASELINE:
            same = ""
        elif status == Status.IMPROVEMENT:
            same = f"{verdict.cell} {verdict.metric}"
        finding = found.setdefault((status, same), Finding(status))
        finding.verdicts.append(verdict)
    ranked = [*common, *found.values()]
    return sorted(ranked, key=lambda finding: (list(Status).index(finding.status), finding.common is None))


def together(commands: list[str]) -> list[str]:
    """One command in place of those that differ in the last word alone, the case: a cell is measured once for all."""
    cases: dict[str, list[str]] = {}
    for command in commands:
        options, _, case = command.rpartition(" ")
        cases.setdefault(options, []).append(case)
    return [" ".join([options, *its]) for options, its in cases.items()]


def leading(found: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Common causes of what failed, which every report begins with, and the other findings."""
    failed = (*MOVED, Status.ERROR)
    first = [f for f in found if f.common is not None and f.status in failed]
    return first, [f for f in found if f not in first]


def changes(finding: Finding) -> list[tuple[str, str]]:
    """Of a common cause: metric, and in how many cells by how much it changed."""
    if finding.common is None or finding.status == Status.ERROR:
        return []
    lines = []
    for metric, verdicts in finding.common.by_metric().items():
        limits = unique(limit(v, v.tolerance) for v in verdicts if v.tolerance is not None)
        said = [plural(len(verdicts), "cell"), spread(verdicts), f"tolerance {limits[0]}" if limits else ""]
        lines.append((metric, ", ".join(part for part in said if part)))
    return lines


def members(finding: Finding) -> list[tuple[str, str]]:
    """Of a common cause: cell, and how its metrics changed, the largest change first."""
    cells: dict[str, list[Verdict]] = {}
    for verdict in finding.ranked:
        cells.setdefault(verdict.cell, []).append(verdict)
    return [
        (cell, ", ".join(f"{v.metric} {delta(v.change, v)}" for v in its if v.change is not None))
        for cell, its in cells.items()
    ]


def circumstances(finding: Finding) -> list[str]:
    """What goes with a finding: other cells, the references, what changed in the environment."""
    lines = []
    if finding.common is not None and finding.common.along:
        along = len(finding.common.along)
        lines.append(f"{plural(along, 'more cell')} moved the same way, within tolerance")
    lines += finding.references if finding.common is not None else []
    if finding.environment:
        everywhere = ", in all of them" if finding.common is not None else ""
        lines.append(f"since the baseline{everywhere}: {', '.join(finding.environment)}")
    elif finding.common is not None and finding.status != Status.ERROR:
        what = "the machine itself (load, frequency, neighbours) or the code under test"
        lines.append(f"no change of the recorded environment since the baseline goes with it: look at {what}")
    return lines


def brief(verdicts: list[Verdict], finding: Finding) -> str:
    """A failed case under a common cause, in two lines: the cause is told elsewhere."""
    said = [", ".join([v.metric, *comparison(v)]) if v.change is not None else v.metric for v in verdicts]
    return f"{finding.status}: {'; '.join(said)}\none cause in {_whose(finding.common)}: see the summary"


def spread(verdicts: list[Verdict]) -> str:
    """By how much one metric changed in several cells: `+2.9 % to +3.2 %, about the same in all`."""
    changes = sorted(v.change for v in verdicts if v.change is not None)
    if not changes:
        return ""
    low, high = (delta(change, verdicts[0]) for change in (changes[0], changes[-1]))
    text = low if low == high else f"{low} to {high}"
    return f"{text}, about the same in all" if same_factor(verdicts) and low != high else text


def _whose(cause: Cause | None) -> str:
    """`all 8 llamacpp cells`, `9 of 10 4-bit cells`."""
    if cause is None:
        return ""
    kind, *names = cause.group
    moved, judged = len(cause.cells), cause.judged
    number = f"all {moved}" if moved == judged else f"{moved} of {judged}"
    if kind == "all":
        return f"{number} cells"
    named = {"bits": f"{names[0]}-bit", "model": " on ".join(names[::2])}.get(kind, names[0])
    return f"{number} {named} cells"


def update_command(verdicts: list[Verdict], info: RunInfo) -> str:
    """The command that takes improvements and first values into the baseline; empty where there are none, or where
    this run does it. Not of cells where something failed: that comes first."""
    failed = {v.cell for v in verdicts if v.status in (*MOVED, Status.ERROR)}
    better = (v for v in verdicts if v.status in (Status.IMPROVEMENT, Status.NO_BASELINE))
    wrong = [v for v in verdicts if v.wrong]
    cells = unique(v.cell for v in better if v.cell not in failed and not why_refused(v.cell, wrong))
    if not cells or info.updating or info.against:
        return ""
    command = f'pytest --update-baselines --reason "..." --tier {info.tier}'
    if info.options:
        command += f" {shlex.join(info.options)}"
    tier = set(info.bits) - {cell for cell, _ in info.skipped} or {v.cell for v in verdicts}
    if set(cells) == tier:
        return command
    # Never without a choice: that would also take in what drifted within its tolerance.
    chosen = " or ".join(f"({selecting(cell)})" for cell in cells) if len(cells) > 1 else selecting(cells[0])
    return f'{command} -m "{chosen if len(cells) <= 3 else "<these cells>"}"'


def against_text(info: RunInfo) -> str:
    """What an A/B run compared, and in what the two differ; of another run, in what the environment differs from that
    of the baselines."""
    if not info.against:
        return f"changed since the baselines: {', '.join(info.changed)}" if info.changed else ""
    return (
        f"compared with {info.against}, measured here in turns: {', '.join(info.changed) or 'same versions'}"
    )


def outcome(verdicts: list[Verdict], bits: Mapping[str, float] | None = None) -> str:
    """The run in one sentence."""
    found = counts(verdicts)
    if not found:
        return "Nothing was judged."
    causes_, others = leading(findings(verdicts, bits))
    if causes_:
        rest = len(causes_) - 1 + sum(1 for f in others if f.status in (*MOVED, Status.ERROR))
        more = f"; and {plural(rest, 'further finding')}" if rest else ""
        return f"One cause in {causes_[0].title}{more}."
    cases = plural(sum(found.values()), "case")
    moved = [v for v in verdicts if v.status in MOVED]
    if moved:
        regressions = [v for v in moved if v.status == Status.REGRESSION]
        worse, what = regressions or moved, "Changed for the worse" if regressions else "Changed"
        by = f" by {delta(worse[0].change, worse[0])}" if worse[0].change is not None else ""
        more = f", and {plural(len(moved) - 1, 'further metric')}" if len(moved) > 1 else ""
        return f"{what}: {worse[0].metric} of {worse[0].cell}{by}{more}."
    wrong = [v for v in verdicts if v.wrong]
    if wrong:
        more = f", and {plural(len(wrong) - 1, 'further metric')}" if len(wrong) > 1 else ""
        return f"Wrong whatever the baseline: {wrong[0].metric} of {wrong[0].cell}{more}."
    words = {
        Status.ERROR: "failed to measure",
        Status.NOT_COMPARABLE: "not comparable",
        Status.NO_BASELINE: "without a baseline",
        Status.INCONCLUSIVE: "inconclusive",
    }
    unjudged = [f"{found[status]:,} {word}" for status, word in words.items() if status in found]
    if unjudged:
        return f"No regression in what could be judged, but of {cases}: {', '.join(unjudged)}."
    better = f", {found[Status.IMPROVEMENT]:,} better" if Status.IMPROVEMENT in found else ""
    return f"No regression: {cases} within tolerance of the baseline{better}."


def unequal_text(verdicts: list[Verdict]) -> str:
    """What is not equal to the last digit though nothing has changed, in a sentence; empty for nothing."""
    unequal = [v for v in verdicts if v.unequal]
    if not unequal:
        return ""
    largest = max(unequal, key=lambda v: v.measured or 0.0)
    return (
        f"{plural(len(unequal), 'metric')} of {plural(len(unique(v.cell for v in unequal)), 'cell')} "
        f"{'is' if len(unequal) == 1 else 'are'} not equal to the last digit, though nothing has changed since the "
        f"baseline: the computation does not repeat itself ({largest.cell} {largest.metric}: "
        f"{largest.measured:.2g} {largest.unit})"
    )


def counts_text(verdicts: list[Verdict]) -> str:
    """`3 regressions, 1 not comparable, 49 pass`."""
    nouns = (Status.REGRESSION, Status.ERROR, Status.IMPROVEMENT)
    found = counts(verdicts)
    parts = [plural(n, status) if status in nouns else f"{n:,} {status}" for status, n in found.items()]
    return ", ".join(parts) or "nothing was judged"


def run_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """`65 cases in 13 cells, 2 cells skipped, 9 min 40 s, exit status 1 (regression)`."""
    cells = len(unique(v.cell for v in verdicts))
    parts = [f"{plural(sum(counts(verdicts).values()), 'case')} in {plural(cells, 'cell')}"]
    if info.skipped:
        parts.append(f"{plural(len(info.skipped), 'cell')} skipped")
    parts.append(duration(info.seconds))
    if info.exit_status:
        parts.append(f"exit status {info.exit_status}")
    return ", ".join(parts)
