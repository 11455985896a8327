"""Open, edit or close the one issue of a nightly or canary run.

    python3 issue.py LABEL [--canary]

It reads report/report.json and report/report.md, and the variables RESULT, STATUS, GH_TOKEN, GH_REPO, GITHUB_*. The
issue carries a mark of what is red: the kind, and every failing metric of every cell. A night that is red in the same
way changes nothing and notifies nobody; where metrics come or go, the text is replaced and one comment says which. What
an event of the history tells of (report/events.json, see events.py) is not told twice: where nothing else is red, there
is no issue. The first green night closes it. Needs the standard library and `gh` alone, since it runs with a token that
writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events import read_events
from gh import gh, run_address
from marks import came_and_went, mark, read_mark

REPORT = Path("report")
LIMIT = 45_000
"""Characters of a report in an issue, which holds 65,536."""
TITLE = 200
KEPT = 100
"""Members that the next night can name as gone."""
FAILING = ("regression", "drift", "changed", "error", "not comparable")
MOVED = ("regression", "changed")
"""What events of the history tell. Not `drift`: it is the sum of many, each of which may be settled."""
MARK = "quantgate"

MEANS = {
    "regression": (
        "A metric is worse than its baseline by more than its tolerance. What changed in the environment since the "
        "baseline, and the command that shows it again, stand with each finding."
    ),
    "drift": (
        "A metric is within its tolerance of the baseline, but the losses of several updates of the baseline add up to "
        "more than the tolerance since the anchor, which each finding names. Find out which update lost what (`git "
        "log` of the baseline), or accept the sum: update the baselines with --re-anchor and a reason."
    ),
    "changed": (
        "Numbers are no longer those of the baseline, by more than other processors and builds cause, though none "
        "is proven worse. Where the change is meant, run the workflow 'update baselines' with tier nightly."
    ),
    "broken infrastructure": (
        "The run did not come to an end that says something about the models: a crash, a failed download, a time "
        "limit, packages that cannot be installed together, or a fault of the runner or of quantgate (exit status "
        "{status}). A cell that did crash has the last lines of its log below."
    ),
    "not comparable": (
        "Weights, tokens, task data or workload are not those of the baseline; each finding names the first "
        "difference. Where it is meant, run the workflow 'update baselines' with tier nightly."
    ),
    "too few gates judged": (
        "Nothing failed, but fewer gates were judged than --min-judged asks for: a green run would say too little. The "
        "report's first lines say why the others were not."
    ),
    "no baseline": (
        "Cells or metrics have no baseline yet. Run the workflow 'update baselines' with tier nightly."
    ),
}
KINDS = {
    "11": "not comparable",
    "12": "no baseline",
    "13": "changed",
    "14": "too few gates judged",
    "15": "drift",
}
"""By exit status, as the README lists them."""


@dataclass(frozen=True)
class Event:
    """What is red. members: `cell metric: status` of everything that fails."""

    kind: str
    members: tuple[str, ...]

    @property
    def identity(self) -> str:
        """A hash that is equal where the same is red."""
        return hashlib.sha256("\n".join([self.kind, *self.members]).encode()).hexdigest()[:16]


def event(
    report: Mapping[str, Any] | None, status: str, elsewhere: Collection[tuple[str, str]] = ()
) -> Event | None:
    """Return what is red; None: only metrics that moved, and events of the history tell of each.

    status: pytest's exit status; empty: the run did not come so far. elsewhere: cell and metric of members of events.
    """
    kind = KINDS.get(status, "broken infrastructure")
    # 1 is pytest's and tox's status for other things, too: believed where the report agrees.
    if status == "1" and report and report["counts"].get("regression"):
        kind = "regression"
    failing = (*FAILING, "no baseline") if kind == "no baseline" else FAILING
    verdicts = report["verdicts"] if report else []
    red = [v for v in verdicts if v["status"] in failing]
    left = [v for v in red if v["status"] not in MOVED or (v["cell"], v["metric"]) not in elsewhere]
    if kind in MOVED and red:
        if not left:
            return None
        worst = next(status for status in FAILING if any(v["status"] == status for v in left))
        kind = "broken infrastructure" if worst == "error" else worst
    return Event(kind, tuple(sorted({f"{v['cell']} {v['metric']}: {v['status']}" for v in left})))


def title_of(name: str, red: Event, report: Mapping[str, Any] | None) -> str:
    """Return the title: the kind, and the first finding of the report that is about what is red."""
    red_metrics = {member.rpartition(": ")[0] for member in red.members}
    about = [
        finding["title"][:TITLE]
        for finding in (report["findings"] if report else [])
        if not red_metrics or red_metrics & {f"{c} {m}" for c in finding["cells"] for m in finding["metrics"]}
    ]
    return ": ".join([name.capitalize(), red.kind, *about[:1]])


def bisect_command(report: Mapping[str, Any] | None) -> str:
    """Return the command that says which upgrade moved the first metric that moved; empty where none did."""
    for finding in (report or {}).get("findings", []):
        if finding["status"] not in ("regression", "changed"):
            continue
        for metric in finding["metrics"]:
            name = re.sub(r"(/loss|_ratio)(?=$|/)", "", metric)
            if name.startswith("agreement/") or name.endswith("/anchor"):
                continue  # of several cells, or of what a baseline began with: no A/B run has them
            words = ["--cell", finding["cells"][0], "--metric", name, "--tier", "nightly"]
            ends = ["--good", "fixtures/constraints.txt", "--bad", "report/constraints.txt"]
            return shlex.join([".tox/quantgate/bin/python", "-m", "quantgate.bisect", *words, *ends])
    return ""


def body_of(
    red: Event, report: Mapping[str, Any] | None, markdown: str, run: str, status: str, *, canary: bool
) -> str:
    """Return the text of the issue. run: the address of this run, with its commit."""
    text = [
        MEANS[red.kind].format(status=status or "none"),
        "",
        f"First run with these failing metrics: {run}. Its artifact has the report, measurements and logs.",
        "This text is replaced when metrics come or go; the first green run closes the issue.",
        "",
    ]
    lines = [*text, *(_which_upgrade(report, run) if canary else [])]
    if not markdown:
        lines.append("There is no report: see the log of the run.")
    elif len(markdown) > LIMIT:
        lines += ["**The report is too long for an issue; this is its beginning.**", ""]
        lines.append(markdown[:LIMIT].rpartition("\n")[0])
    else:
        lines.append(markdown)
    return "\n".join([mark(MARK, {"id": red.identity, "members": red.members[:KEPT]}), *lines])


def _which_upgrade(report: Mapping[str, Any] | None, run: str) -> list[str]:
    command = bisect_command(report)
    if not command:
        return [
            "The run took the newest releases of all packages. No metric moved that a bisection could go by.",
            "",
        ]
    number = run.partition(",")[0].rpartition("/")[2]
    return [
        "The run took the newest releases of all packages, which `report/constraints.txt` of the artifact lists. Which "
        "of them did it:",
        "",
        "```sh",
        "tox -e nightly --notest   # the pinned versions, in a checkout",
        f"gh run download {number} --name canary-report",
        command,
        "```",
        "",
    ]


def changes(old: str, red: Event) -> str | None:
    """Return what came and went since the text of an issue; empty: nothing that is named, only the kind; None: the same
    is red as then."""
    before = read_mark(MARK, old) or {"id": "", "members": []}
    if before["id"] == red.identity:
        return None
    return " ".join(came_and_went(set(before["members"]), set(red.members), KEPT))


def read_report(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the report of a run, as data and as Markdown; None and empty where it left none."""
    try:
        return json.loads((folder / "report.json").read_bytes()), (folder / "report.md").read_text()
    except (OSError, ValueError):
        return None, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("label", help="of the issue: nightly, canary")
    parser.add_argument("--canary", action="store_true", help="write the command of the bisection")
    options = parser.parse_args(arguments)
    env = os.environ
    run = f"{run_address()}, commit {env['GITHUB_SHA']}"
    fields = ("--state", "open", "--label", options.label, "--json", "number,body", "--limit", "100")
    issues = sorted(json.loads(gh("issue", "list", *fields)), key=lambda issue: issue["number"])
    if env["RESULT"] == "success" and env["STATUS"] == "0":
        for issue in issues:
            gh("issue", "close", str(issue["number"]), "--comment", f"Green again: {run}.")
        return 0
    report, markdown = read_report(REPORT)
    elsewhere = {(cell, metric) for one in read_events() for cell, metric in one["failing"]}
    red = event(report, env["STATUS"], elsewhere)
    if red is None:
        for issue in issues:
            text = f"Issues of events tell of all that is still red: {run}."
            gh("issue", "close", str(issue["number"]), "--comment", text)
        return 0
    title = title_of(options.label, red, report)
    body = body_of(red, report, markdown, run, env["STATUS"], canary=options.canary)
    if not issues:
        about = f"The {options.label} run is red"
        gh("label", "create", options.label, "--color", "b60205", "--description", about, "--force")
        gh("issue", "create", "--title", title, "--label", options.label, "--body-file", "-", text=body)
        return 0
    first = issues[0]
    difference = changes(first["body"], red)
    if difference is None:
        print(f"issue {first['number']}: the same is red as before; nothing is written")
        return 0
    number = str(first["number"])
    gh("issue", "comment", number, "--body-file", "-", text=f"Now {red.kind}. {difference} {run}.")
    # The mark comes last: a night that breaks off before it is made up for by the next one.
    gh("issue", "edit", number, "--title", title, "--body-file", "-", text=body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
