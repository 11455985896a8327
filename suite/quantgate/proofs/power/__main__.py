"""`python -m quantgate.proofs.power`: show how often a loss of known size turns a gate red, and how often none does.

Exit status 4: an option or a record does not fit.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console

from quantgate.backends.spec import unused
from quantgate.baselines import store as baselines
from quantgate.commands import WRONG_INPUT, Parser, at_least, run_command
from quantgate.config.tolerances import load_tolerances
from quantgate.errors import QuantgateError
from quantgate.judge.compare import Rules
from quantgate.judge.sensitivity import gate_level
from quantgate.proofs.command import new_console
from quantgate.proofs.power import figure, nights_report, noise, quality, report, resources
from quantgate.proofs.power.answers import answers
from quantgate.proofs.power.study import ELSEWHERE, HERE, Row, Scenario, run_alarms, study
from quantgate.proofs.table import origin
from quantgate.records import Metric
from quantgate.run.inputs import load_matrix


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = new_console()
    try:
        cells = load_cells(options.baselines, options.tier)
        if options.record is not None:
            noise.record(options.record, options.other, cells)
            return 0
        _run(options, cells, console)
    except QuantgateError as error:
        console.print(str(error), style="red", markup=False)
        return WRONG_INPUT
    return 0


def _run(options: argparse.Namespace, cells: dict[str, dict[str, Metric]], console: Console) -> None:
    begin = time.monotonic()
    tolerances = load_tolerances().for_tier(options.tier, load_matrix().roundings())
    rules = Rules(tolerances, gate_level(tolerances, cells), unused=unused())
    scenarios = all_scenarios(cells, noise.load_noise(cells), options.tier)
    rows: list[Row] = [row for scenario in scenarios for row in study(scenario, rules, options.replays)]
    sections = [*report.sections(rows), *nights_report.sections(options.years)]
    for section in sections:
        console.print(report.to_table(section))
    alarms = {place: run_alarms(scenarios, rules, options.replays, place) for place in (HERE, ELSEWHERE)}
    summary = [
        f"tier {options.tier}: {len(cells)} cells, level of one gate {rules.alpha:.2g} "
        f"(run-wide {tolerances.run_alpha:g})",
        *(line for place in alarms for line in report.alarms(place, alarms[place])),
        *nights_report.summary(options.years),
        f"in all {time.monotonic() - begin:.0f} s",
    ]
    for line in summary:
        console.print(line, markup=False)
    if options.markdown:
        head = origin(shlex.join(["python", "-m", "quantgate.proofs.power", *sys.argv[1:]]))
        options.markdown.write_text(f"{head}\n\n{report.to_markdown(sections, summary)}")
    if options.figure:
        figure.draw(rows, options.figure)


def all_scenarios(cells: noise.Cells, recorded: noise.Noise, tier: str) -> list[Scenario]:
    """Return every effect at every gate of the tier."""
    matrix = load_matrix()
    by_id = {cell.id: cell for cell in matrix.cells(tier)}
    timed, held = (
        getattr(matrix.tier(tier).group_options.get(group), "processes", 3)
        for group in ("throughput", "memory")
    )
    places = (recorded.without_differences(), recorded)
    return [
        *(one for place in places for one in quality.perplexity(cells, place)),
        *(one for place in places for one in quality.accuracy(cells, place)),
        *answers(cells),
        *quality.divergence(cells, recorded),
        *resources.tokens_per_second(recorded, by_id, timed),
        *resources.memory(cells, recorded, held),
    ]


def load_cells(root: Path, tier: str) -> dict[str, dict[str, Metric]]:
    """Return the metrics of the tier's baselines, by cell. Raises InputError for a damaged one."""
    read = {cell.id: baselines.read(root, cell.id, tier) for cell in load_matrix().cells(tier)}
    return {cell: dict(baseline.metrics) for cell, baseline in read.items() if baseline}


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.power", description=__doc__)
    add = parser.add_argument
    add("--tier", default="smoke", help="tier whose baselines are replayed (default: smoke)")
    add(
        "--replays",
        type=at_least(1),
        default=1000,
        metavar="N",
        help="replays of each effect, and of whole runs (default: 1000)",
    )
    add(
        "--years",
        type=at_least(0),
        default=20,
        metavar="N",
        help="years of nights that the history's events are replayed on (default: 20; 0: none)",
    )
    add("--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default: baselines/")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    add("--figure", type=Path, metavar="FILE", help="draw the figure there (svg, png); needs matplotlib")
    add(
        "--record",
        type=Path,
        nargs="*",
        metavar="DIR",
        help="write fixtures/noise.json from the results of these runs",
    )
    add(
        "--other",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="with --record: results of other instruction sets or builds",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
