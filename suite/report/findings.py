"""What did not pass, gathered so that one thing is read once; and the run in a sentence."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suite.records import Status, Verdict
from suite.report.summary import counts, unique
from suite.report.words import delta, difference, duration, lines_of, listed, plural

if TYPE_CHECKING:
    from suite.report import RunInfo

LOG_LINES = 15
"""Of an error's log, the last so many lines are shown."""


@dataclass
class Finding:
    """Verdicts that are one thing to read: one broken cell, or one cause wherever it struck."""

    status: Status
    verdicts: list[Verdict] = field(default_factory=list)

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
        return unique(line for v in self.verdicts for line in v.environment)

    @property
    def commands(self) -> list[str]:
        """What broke a whole cell shows in any one of its cases; each regression needs its own."""
        commands = unique(v.reproduce for v in self.verdicts if v.reproduce)
        return commands[:1] if self.status == Status.ERROR else commands

    @property
    def cause(self) -> list[str]:
        """The reason, then the last lines of the log where there is one."""
        first = self.verdicts[0]
        reason, *log = lines_of(first.text) or first.environment[:1] or [str(self.status)]
        lines = [reason, *textwrap.dedent("\n".join(log[-LOG_LINES:])).splitlines()]
        return [f"{line[:400]} ..." if len(line) > 400 else line for line in lines]


def findings(verdicts: list[Verdict]) -> list[Finding]:
    """Everything that did not pass, the worst first.

    Regressions are gathered by cell, improvements stay single, the rest is gathered by cause: an
    error that took seven metrics of a cell, another machine's timings, are told once.
    """
    found: dict[tuple[Status, str], Finding] = {}
    for verdict in sorted(verdicts, key=lambda v: list(Status).index(v.status)):
        if verdict.status == Status.PASS:
            continue
        same = verdict.text or verdict.cell
        if verdict.status == Status.REGRESSION:
            same = verdict.cell
        elif verdict.status == Status.NO_BASELINE:
            same = ""
        elif verdict.status == Status.IMPROVEMENT:
            same = f"{verdict.cell} {verdict.metric}"
        finding = found.setdefault((verdict.status, same), Finding(verdict.status))
        finding.verdicts.append(verdict)
    return list(found.values())


def update_command(verdicts: list[Verdict], info: RunInfo) -> str:
    """The command that takes improvements and first values into the baseline; empty where there are none, or where
    this run does it."""
    cells = unique(v.cell for v in verdicts if v.status in (Status.IMPROVEMENT, Status.NO_BASELINE))
    if not cells or info.updating:
        return ""
    command = f'pytest --update-baselines --reason "..." --tier {info.tier}'
    if info.options:
        command += f" {shlex.join(info.options)}"
    if len(cells) == len({v.cell for v in verdicts}):
        return command
    # Never without a choice: that would also take in what drifted within its tolerance.
    return f'{command} -k "{" or ".join(cells) if len(cells) <= 3 else "<these cells>"}"'


def outcome(verdicts: list[Verdict]) -> str:
    """The run in one sentence."""
    found = counts(verdicts)
    if not found:
        return "Nothing was judged."
    cases = plural(sum(found.values()), "case")
    worse = [v for v in verdicts if v.status == Status.REGRESSION]
    if worse:
        by = f" by {delta(worse[0].change, worse[0])}" if worse[0].change is not None else ""
        more = f", and {plural(len(worse) - 1, 'further metric')}" if len(worse) > 1 else ""
        return f"Changed for the worse: {worse[0].metric} of {worse[0].cell}{by}{more}."
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
