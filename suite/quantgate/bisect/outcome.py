"""The outcome of a search in words."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.bisect.ends import version_of
from quantgate.bisect.search import Answer, Culprit, Finding, Pins, changes_between
from quantgate.bisect.trial import Reply
from quantgate.records import Verdict
from quantgate.words import difference, limit, plural

FEW = 6
"""Up to so many packages are named."""


def step(package: str, good: str | None, bad: str | None) -> str:
    """Return a package and its two versions: `torch 2.12.0 -> 2.13.0`."""
    before, after = ("none" if pin is None else version_of(pin) for pin in (good, bad))
    return f"{package} {before} -> {after}"


def difference_in_words(good: Pins, pins: Pins) -> str:
    """Return what an environment has in place of the good end's: `torch 2.13.0, numpy 2.4.6`."""
    changes = changes_between(good, pins)
    named = [f"{c.package} {version_of(c.bad) if c.bad else 'left out'}" for c in changes[:FEW]]
    if len(changes) > FEW:
        named.append(f"{len(changes) - FEW} more")
    return ", ".join(named)


def reply_in_words(reply: Reply) -> str:
    """Return an answer with the change behind it: `bad (regression, +3.1 % (+2.9 % to +3.3 %), tolerance 0.25 %)`."""
    verdict = reply.verdict
    if verdict is None or verdict.change is None:
        return f"{reply.answer} ({reply.text})" if reply.text else str(reply.answer)
    return f"{reply.answer} ({verdict.status}, {change_in_words(verdict)})"


def change_in_words(verdict: Verdict) -> str:
    """Return a verdict's change with interval and tolerance; its text where it has none."""
    if verdict.change is None:
        return verdict.text
    tolerance = limit(verdict, verdict.tolerance)
    return f"{difference(verdict)}, tolerance {tolerance}" if tolerance else difference(verdict)


def conclusion(finding: Finding, good: Pins, bad: Pins) -> list[str]:
    """Return in a few lines which change did it. good, bad: the two ends."""
    lines = []
    if len(finding.culprits) > 1:
        lines.append(f"{' and '.join(_named(c, good, bad) for c in finding.culprits)}: only together")
    else:
        [culprit] = finding.culprits
        lines.append(_named(culprit, good, bad))
        if finding.exact:
            lines.append("bad by itself, every other package as in the good end")
    for culprit in finding.culprits:
        if len(culprit.packages) > 1:
            lines.append(
                f"{' and '.join(culprit.packages)}: no environment that tells them apart could be judged"
            )
        elif culprit.skipped:
            between = ", ".join(map(version_of, culprit.skipped))
            lines.append(f"{culprit.packages[0]} {between} could not be judged: it may have begun there")
    if finding.beside:
        names = ", ".join(finding.beside)
        lines.append(f"judged with {names} new as well: without them it could not be judged")
    return lines


def _named(culprit: Culprit, good: Pins, bad: Pins) -> str:
    if len(culprit.packages) == 1:
        return step(culprit.packages[0], culprit.good, culprit.bad)
    return " or ".join(step(name, good.get(name), bad.get(name)) for name in culprit.packages)


def report(
    finding: Finding,
    ends: tuple[Pins, Pins],
    replies: tuple[Reply | None, Reply | None],
    metric: str,
    cell: str,
) -> list[str]:
    """Return the lines that end a search, but for its command. ends, replies: of the good one and the bad one; the
    replies are about the finding's two environments."""
    good, bad = ends
    first, *others = conclusion(finding, good, bad)
    lines = [first, *(f"  {line}" for line in others)]
    before, after = replies
    if after is not None and after.verdict is not None:
        lines.append(f"  {metric} of {cell}: {after.verdict.status}, {change_in_words(after.verdict)}")
    if finding.good == good:
        lines.append("  one step before it: the good end itself")
    elif before is not None and before.verdict is not None:
        lines.append(f"  one step before it: {before.verdict.status}, {change_in_words(before.verdict)}")
    return lines


def skipped_lines(skipped: Sequence[str]) -> list[str]:
    """Return a line for each environment that could not be judged, below their number."""
    if not skipped:
        return []
    head = f"skipped, as they could not be judged: {plural(len(skipped), 'environment')}"
    return [head, *(f"  {line}" for line in skipped)]


def no_change(reply: Reply, metric: str, cell: str) -> str:
    """Return why there is nothing to search for."""
    change = change_in_words(reply.verdict) if reply.verdict else reply.text
    if reply.answer == Answer.INCONCLUSIVE:
        return f"{metric} of {cell}: even the largest sample does not tell whether the bad end is worse: {change}"
    return f"{metric} of {cell}: the bad end is as good as the good one: {change}"
