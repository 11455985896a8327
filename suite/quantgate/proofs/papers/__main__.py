"""`python -m quantgate.proofs.papers`: show the findings in the records of `pytest --tier papers -m papers`
as tables and as a page.

Exit status 4: an option or a record does not fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quantgate.commands import WRONG_INPUT, Parser, run_command
from quantgate.config.matrix import MATRIX, Matrix
from quantgate.errors import InputError, QuantgateError
from quantgate.proofs.command import choose, new_console
from quantgate.proofs.papers import expected, page
from quantgate.proofs.papers.expected import PAPERS, Entry, Outcome, load_entries, module_of, outcomes
from quantgate.proofs.papers.section import Finding, Measured
from quantgate.run.inputs import load_matrix
from quantgate.run.process import read_measurement

COLOUR = {"holds": "green", "does not hold": "red", "open": "yellow"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = new_console()
    try:
        matrix = load_matrix(options.matrix)
        entries = choose(load_entries().items(), options.k, "section", itemgetter(0))
        sections = [shown(name, entry, matrix, options, console) for name, entry in entries]
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
        return WRONG_INPUT
    return 0


def shown(
    name: str, entry: Entry, matrix: Matrix, options: argparse.Namespace, console: Console
) -> page.Shown:
    """Return a section, with its figures and tables if they are to be written. With --update-baselines, accept its
    findings first."""
    module = module_of(name)
    try:
        measured = load(entry, matrix, options.results)
        findings = module.findings(measured)
    except QuantgateError as error:
        if options.update_baselines:
            console.print(f"{name}: left as it is: {error}", markup=False, soft_wrap=True)
        return page.Shown(name, module.PAPER, missing=str(error))
    workload = expected.workload_of(measured, entry.requests)
    if options.update_baselines:
        line = update(name, entry, findings, workload, options.reason, options.baselines)
        console.print(line, markup=False, soft_wrap=True)
    accepted = expected.load_baseline(name, options.baselines)
    try:
        results = list(outcomes(name, entry, findings, workload, accepted).values())
    except QuantgateError as error:
        return page.Shown(name, module.PAPER, missing=str(error))
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
        specs={f.name: page.styled(f.chart).to_dict() for f in figures},
    )


def update(
    name: str, entry: Entry, findings: Sequence[Finding], workload: str, reason: str, root: Path
) -> str:
    """Accept the findings of a section whose state is expected; returns the line that says so, and which of them have
    another state than the expected one: the next run fails there, until that is changed too."""
    accepted = [
        f for f in findings if f.key not in entry.findings or entry.findings[f.key].state != "unknown"
    ]
    try:
        file = expected.load_baseline(name, root)
    except QuantgateError:
        file = None  # the update replaces a file that cannot be read
    before = file.findings if file else {}
    moved = [f.key for f in accepted if not (f.key in before and before[f.key].allows(f))]
    path = expected.accept(name, accepted, workload, reason, root)
    line = f"wrote {path}: {len(accepted)} findings"
    if before:
        line += f", {len(moved)} of them new or beyond what was accepted before"
        line += f": {', '.join(moved)}" if moved else ""
    for f in accepted:
        if f.key in entry.findings and (state := entry.findings[f.key].state) != f.state:
            line += f"\n  {f.key}: {f.state}, expected: {state}: change {PAPERS}, and say why"
    return line


def load(entry: Entry, matrix: Matrix, results: Path) -> Measured:
    """Return the records of a section's cells. Raises InputError where one is missing, MeasurementError for a damaged
    one."""
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
    """Return a row for each finding."""
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
        help="results of the runs (default: .quantgate)",
    )
    add("--matrix", type=Path, default=MATRIX, metavar="PATH", help="matrix.toml of the runs")
    add("-k", default="", metavar="REGEX", help="only sections of fixtures/papers.toml whose name matches")
    add(
        "--update-baselines",
        action="store_true",
        help="accept the findings of these records as their baseline (needs --reason)",
    )
    add("--baselines", type=Path, default=expected.BASELINES, metavar="DIR", help="default: baselines/")
    add("--reason", default="", metavar="TEXT", help="why the baselines change; written into them")
    add("--output", type=Path, metavar="DIR", help=f"write {page.NAME} and its figures as PNG there")
    return parser


if __name__ == "__main__":
    run_command(main)
