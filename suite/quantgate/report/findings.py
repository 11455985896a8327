"""Group what did not pass, so that each problem is read once."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantgate.judge.causes import Cause, causes, same_factor
from quantgate.judge.environment import of_weights
from quantgate.measure.groups import families, group_name
from quantgate.records import MOVED, Status, Verdict, worst
from quantgate.report import by_cell
from quantgate.words import comparison, delta, difference, limit, lines_of, listed, plural, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOG_LINES = 15
"""How many of the last lines of an error's log are shown."""
LONG = 400
"""How many characters of a line of an error are shown."""
SOME = 6
"""How many changes of the environment are named that some cells have."""
FAILED = (*MOVED, Status.ERROR)
OTHER_FILE = (
    "another checkpoint is under test: put the old one back, or accept this one by --update-baselines "
    '--accept-regressions --re-anchor --reason "..."'
)


def abbreviated(line: str) -> str:
    """Leave out the middle of a long line: its end says what to do."""
    return line if len(line) <= LONG else f"{line[: LONG // 2]} ... {line[-LONG // 2 :]}"


def unique(items: Iterable[str]) -> list[str]:
    """Drop repetitions; the order is that of the first occurrence."""
    return list(dict.fromkeys(items))


@dataclass
class Finding:
    """Verdicts that are read together: those of one broken cell, or of one cause in many cells."""

    status: Status
    verdicts: list[Verdict] = field(default_factory=list)
    common: Cause | None = None
    """The cause, where many cells have it in common."""

    @property
    def leads(self) -> bool:
        """Whether reports begin with it: the common cause of failures."""
        return self.common is not None and self.status in FAILED

    @property
    def title(self) -> str:
        """`all 8 llamacpp cells: perplexity +2.9 % to +3.2 %`, or the cells and their metrics."""
        if self.common is None:
            return f"{self.whose}: {self.subject}"
        if self.status == Status.ERROR:
            return f"{self.whose}: {self.cause[0]}"
        metric, verdicts = next(iter(self.common.by_metric().items()))
        others = [m for m in self.metrics if m != metric]
        more = f"; also {listed(others)}" if others else ""
        return f"{self.whose}: {' '.join(filter(None, (metric, spread(verdicts))))}{more}"

    @property
    def whose(self) -> str:
        """The cells; of a common cause in short: `all 8 llamacpp cells`, `9 of 10 4-bit cells`."""
        if self.common is None:
            return ", ".join(self.cells)
        kind, *names = self.common.group
        moved, judged = len(self.common.cells), self.common.judged
        number = f"all {moved}" if moved == judged else f"{moved} of {judged}"
        if kind == "all":
            return f"{number} cells"
        named = {"bits": f"{names[0]}-bit", "model": " on ".join(names[::2])}.get(kind, names[0])
        return f"{number} {named} cells"

    @property
    def cells(self) -> list[str]:
        return unique(v.cell for v in self.verdicts)

    @property
    def metrics(self) -> list[str]:
        return unique(v.metric for v in self.verdicts)

    @property
    def subject(self) -> str:
        """The metrics in short; for a single one also the change, and where that settles nothing the tolerance."""
        text, single = listed(self.metrics), self.verdicts[0]
        if len(self.verdicts) > 1 or single.change is None:
            return text
        inconclusive = self.status == Status.INCONCLUSIVE and single.tolerance is not None
        tolerance = f", tolerance {limit(single, single.tolerance)}" if inconclusive else ""
        return f"{text} {difference(single)}{tolerance}"

    @property
    def environment(self) -> list[str]:
        if self.common is not None:
            return self.common.environment
        return unique(line for v in self.verdicts for line in v.environment)

    @property
    def commands(self) -> list[str]:
        """Commands that reproduce it: one case for what broke a whole cell or many cells; all cases for regressions."""
        commands = unique(v.reproduce for v in self.ranked if v.reproduce)
        return commands[:1] if self.status == Status.ERROR or self.common is not None else together(commands)

    @property
    def ranked(self) -> list[Verdict]:
        """The verdicts; for a common cause by metric, the largest change first, since that one shows it best."""
        if self.common is None:
            return self.verdicts
        metrics = self.common.by_metric().values()
        return [v for group in metrics for v in sorted(group, key=lambda v: -abs(v.size))]

    @property
    def cause(self) -> list[str]:
        """The reason, then the last lines of the log where there is one."""
        first = self.verdicts[0]
        reason, *log = lines_of(first.text) or first.environment[:1] or [str(self.status)]
        lines = [reason, *textwrap.dedent("\n".join(log[-LOG_LINES:])).splitlines()]
        return [abbreviated(line) for line in lines]


def findings(verdicts: list[Verdict], bits: Mapping[str, float]) -> list[Finding]:
    """Return everything that did not pass, the worst first and common causes before others (`quantgate.judge.causes`).

    Without a common cause, regressions are grouped by cell, improvements stay single, and the rest is grouped by its
    text: an error that hit seven metrics of a cell, or the timings of another machine, are reported once.
    """
    common = [
        Finding(worst(v.status for v in cause.verdicts), list(cause.verdicts), cause)
        for cause in causes(verdicts, families(), bits)
    ]
    done = {(v.cell, v.metric) for finding in common for v in finding.verdicts}
    moved = {(v.cell, group_name(v.metric)) for v in verdicts if v.status in MOVED}
    single: dict[tuple[Status, str], Finding] = {}
    for verdict in sorted(verdicts, key=lambda v: list(Status).index(v.status)):
        status = verdict.status
        if status == Status.PASS or (verdict.cell, verdict.metric) in done:
            continue
        if status == Status.INCONCLUSIVE and (verdict.cell, group_name(verdict.metric)) in moved:
            continue  # beside a regression of the same metric group, it adds nothing
        same = verdict.text or verdict.cell
        if status in MOVED:
            # A cell that got worse and whose computation changed is one problem.
            same = verdict.cell
            status = next((s for s in MOVED if (s, same) in single), status)
        elif status == Status.NO_BASELINE:
            same = ""
        elif status == Status.IMPROVEMENT:
            same = f"{verdict.cell} {verdict.metric}"
        single.setdefault((status, same), Finding(status)).verdicts.append(verdict)
    return sorted(
        [*common, *single.values()],
        key=lambda finding: (list(Status).index(finding.status), finding.common is None),
    )


def leading(verdicts: list[Verdict], bits: Mapping[str, float]) -> tuple[list[Finding], list[Finding]]:
    """Return the common causes of failures, with which every report begins, and the other findings."""
    everything = findings(verdicts, bits)
    return [one for one in everything if one.leads], [one for one in everything if not one.leads]


def sentences(verdicts: Iterable[Verdict]) -> list[str]:
    """Return what verdicts say, each line once: the cause, the second measurement, what the reference did."""
    texts = (text for v in verdicts for text in (v.text, v.confirmed, v.reference))
    return unique(line for text in texts for line in lines_of(text))


def together(commands: list[str]) -> list[str]:
    """Join commands that differ only in the last word, the case, so that a cell is measured once for all of them."""
    cases: dict[str, list[str]] = {}
    for command in commands:
        options, _, case = command.rpartition(" ")
        cases.setdefault(options, []).append(case)
    return [" ".join([options, *names]) for options, names in cases.items()]


def changes(finding: Finding) -> list[tuple[str, str]]:
    """Return, for a common cause, each metric with the number of cells and the change: `3 cells, +2.9 % to +3.2 %`."""
    if finding.common is None or finding.status == Status.ERROR:
        return []
    lines = []
    for metric, verdicts in finding.common.by_metric().items():
        limits = unique(limit(v, v.tolerance) for v in verdicts if v.tolerance is not None)
        parts = [plural(len(verdicts), "cell"), spread(verdicts), f"tolerance {limits[0]}" if limits else ""]
        lines.append((metric, ", ".join(part for part in parts if part)))
    return lines


def members(finding: Finding) -> list[tuple[str, str]]:
    """Return, for a common cause, each cell with the changes of its metrics, the largest first."""
    return [
        (cell, ", ".join(f"{v.metric} {delta(v.change, v)}" for v in its if v.change is not None))
        for cell, its in by_cell(finding.ranked).items()
    ]


def circumstances(finding: Finding) -> list[str]:
    """Return what goes with a finding: other cells, the references, what changed in the environment."""
    common, changed = finding.common, ", ".join(finding.environment)
    if common is None:
        other = [OTHER_FILE] if finding.status in MOVED and any(map(of_weights, finding.environment)) else []
        return [f"since the baseline: {changed}", *other] if changed else []
    lines = []
    if common.along:
        lines.append(f"{plural(len(common.along), 'more cell')} moved the same way, within tolerance")
    # What the references did, without the figures of each.
    lines += unique(v.reference.partition(" (")[0] for v in finding.verdicts if v.reference)
    if changed:
        lines.append(f"since the baseline, in all of them: {changed}")
    elif some := unique(line for v in finding.verdicts for line in v.environment):
        lines.append(f"since the baseline, in some of them: {shortened(some, SOME)}")
    elif finding.status != Status.ERROR:
        suspects = "the machine itself (load, frequency, neighbours) or the code under test"
        lines.append(f"the recorded environment has not changed since the baseline: look at {suspects}")
    return lines


def brief(verdicts: list[Verdict], finding: Finding) -> str:
    """Return a failed case under a common cause in two lines; the summary describes the cause."""
    figures = [", ".join([v.metric, *comparison(v)]) if v.change is not None else v.metric for v in verdicts]
    return f"{finding.status}: {'; '.join(figures)}\none cause in {finding.whose}: see the summary"


def spread(verdicts: list[Verdict]) -> str:
    """Return by how much one metric changed in several cells: `+2.9 % to +3.2 %, about the same in all`."""
    changes = sorted(v.change for v in verdicts if v.change is not None)
    if not changes:
        return ""
    low, high = (delta(change, verdicts[0]) for change in (changes[0], changes[-1]))
    text = low if low == high else f"{low} to {high}"
    return f"{text}, about the same in all" if same_factor(verdicts) and low != high else text
