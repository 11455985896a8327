"""`python -m quantgate.proofs.papers`: show the findings in the records of `pytest --tier papers -m papers`
as tables and as a page.

Exit status 4: an option or a record does not fit.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quantgate.commands import Parser
from quantgate.config.matrix import MATRIX, Matrix
from quantgate.errors import InputError, QuantgateError
from quantgate.proofs.papers import baseline, charts, page
from quantgate.proofs.papers.expected import Entry, Outcome, load_entries, module_of, outcomes
from quantgate.proofs.papers.section import Measured
from quantgate.run.inputs import load_matrix
from quantgate.run.process import read_measurement

COLOUR = {"holds": "green", "does not hold": "red", "open": "yellow"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=170)
    try:
        matrix = load_matrix(options.matrix)
        entries = chosen(options.k)
        sections = [shown(name, entry, matrix, options, console) for name, entry in entries.items()]
        for section in sections:
            if section.missing:
                console.print(section.missing, markup=False, soft_wrap=True)
            else:
                console.print(table_of(section.paper.title, section.outcomes))
        if all(section.missing for section in sections):
            raise InputError(f"{options.results}: nothing was measured there")
        if options.output is not None:
            for file in page.write(sections, options.output):
                console.print(f"wrote {file}", markup=False, soft_wrap=True)
    except QuantgateError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 4
    return 0


def chosen(pattern: str) -> dict[str, Entry]:
    """The sections whose name matches. Raises InputError where none does."""
    entries = load_entries()
    try:
        matches = {name: entry for name, entry in entries.items() if re.search(pattern, name)}
    except re.error as error:
        raise InputError(f"-k {pattern}: is no regular expression: {error}") from None
    if not matches:
        raise InputError(f"-k {pattern}: no section matches; there are {', '.join(entries)}")
    return matches


def shown(
    name: str, entry: Entry, matrix: Matrix, options: argparse.Namespace, console: Console
) -> page.Shown:
    """A section, with its figures if it is to be drawn. With --update-baselines its findings become its baseline first,
    but for those of which nothing is expected yet."""
    module = module_of(name)

    def missing(error: QuantgateError) -> page.Shown:
        return page.Shown(name, module.PAPER, missing=str(error))

    try:
        measured = load(entry, matrix, options.results)
        findings = module.findings(measured)
    except QuantgateError as error:
        if options.update_baselines:
            console.print(f"{name}: left as it is: {error}", markup=False, soft_wrap=True)
        return missing(error)
    workload = baseline.workload_of(measured, entry.requests)
    if options.update_baselines:
        unexpected = {key for key, expected in entry.findings.items() if expected.state == "unknown"}
        accepted_findings = [f for f in findings if f.key not in unexpected]
        before = _accepted(name, options.baselines)
        moved = [
            f.key for f in accepted_findings if before and not (f.key in before and before[f.key].allows(f))
        ]
        path = baseline.accept(name, accepted_findings, workload, options.reason, options.baselines)
        left = f", {len(moved)} of them new or beyond what was accepted before" if before else ""
        named = f": {', '.join(moved)}" if moved else ""
        console.print(
            f"wrote {path}: {len(accepted_findings)} findings{left}{named}", markup=False, soft_wrap=True
        )
    accepted = baseline.load(name, options.baselines)
    try:
        results = list(outcomes(name, entry, findings, workload, accepted).values())
    except QuantgateError as error:
        return missing(error)
    if options.output is None:
        return page.Shown(name, module.PAPER, outcomes=results)
    figures = module.figures(measured)
    return page.Shown(
        name,
        module.PAPER,
        outcomes=results,
        figures=figures,
        tables=module.tables(measured),
        origin=page.origin_of(measured),
        specs={f.name: charts.dressed(f.chart).to_dict() for f in figures},
    )


def _accepted(name: str, root: Path) -> dict[str, baseline.Known]:
    """The findings of a section's baseline; none where it cannot be read, which an update mends."""
    try:
        file = baseline.load(name, root)
    except QuantgateError:
        return {}
    return file.findings if file else {}


def load(entry: Entry, matrix: Matrix, results: Path) -> Measured:
    """The records of a section's cells. Raises InputError where one is missing, MeasurementError for a damaged one."""
    cells = entry.chosen(matrix.cells(entry.tier) if entry.tier in matrix.tiers else [])
    files = [(cell, results / entry.tier / f"{cell.id}.json") for cell in cells]
    missing = [cell.id for cell, file in files if not file.exists()]
    if missing or not files:
        raise InputError(
            f"{len(missing)} of {len(files)} cells were not measured ({', '.join(missing[:2])} ...): "
            f"pytest --tier {entry.tier} -m papers --results={results}"
        )
    return [(cell, read_measurement(file)) for cell, file in files]


def table_of(title: str, results: Sequence[Outcome]) -> Table:
    """A row for each finding."""
    table = Table("finding", "the paper", "measured (95 % interval)", "", "of what", title=title)
    for one in results:
        f = one.finding
        state = f"[{COLOUR[f.state]}]{f.state}[/]" + "".join(f", {change}" for change in one.changes)
        table.add_row(f.name, f.claim, f.measured, state, f.text)
    return table


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.papers", description=__doc__)
    add = parser.add_argument
    add(
        "--results",
        type=Path,
        default=Path(".quantgate"),
        metavar="DIR",
        help="of the runs (default: .quantgate)",
    )
    add("--matrix", type=Path, default=MATRIX, metavar="PATH", help="the runs' matrix file")
    add("-k", default="", metavar="REGEX", help="only sections of fixtures/papers.toml whose name matches")
    add(
        "--update-baselines",
        action="store_true",
        help="make what these records came to the baseline of the findings (needs --reason)",
    )
    add("--baselines", type=Path, default=baseline.BASELINES, metavar="DIR", help="default: baselines/")
    add("--reason", default="", metavar="TEXT", help="why the baselines change; kept in them")
    add("--output", type=Path, metavar="DIR", help=f"write {page.NAME} and its figures as PNG there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
