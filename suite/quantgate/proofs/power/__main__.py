"""`python -m quantgate.proofs.power`: operating characteristics of the gates, as tables, Markdown and a figure."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from quantgate.baselines import store as baselines
from quantgate.commands import Parser
from quantgate.errors import QuantgateError
from quantgate.judge import gate_level, load_tolerances
from quantgate.proofs.power import figure, noise, quality, report, resources
from quantgate.proofs.power.speed import one_run, seconds_to_judge
from quantgate.proofs.power.study import ELSEWHERE, HERE, Referee, Row, Scenario, run_alarms, study
from quantgate.records import Metric
from quantgate.run.inputs import load_matrix

CELLS = 10_000


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 4 for an option or a record that does not fit."""
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    try:
        cells = load_cells(options.baselines, options.tier)
        if options.record is not None:
            noise.record(options.record, options.other, cells)
            return 0
        _run(options, cells, console)
    except QuantgateError as error:
        console.print(str(error), style="red", markup=False)
        return 4
    return 0


def _run(options: argparse.Namespace, cells: dict[str, dict[str, Metric]], console: Console) -> None:
    begin = time.monotonic()
    tolerances = load_tolerances().for_tier(options.tier, load_matrix().roundings())
    referee = Referee(tolerances, gate_level(tolerances, cells))
    scenarios = all_scenarios(cells, noise.load_noise(cells), options.tier)
    rows: list[Row] = [row for scenario in scenarios for row in study(scenario, referee, options.replays)]
    sections = report.sections(rows)
    for section in sections:
        console.print(report.to_table(section))
    alarms = {place: run_alarms(scenarios, referee, options.replays, place) for place in (HERE, ELSEWHERE)}
    run = one_run(scenarios)
    replayed = sum(len(referee.verdicts(cell, pairs)) for cell, pairs in run.items())
    judged = seconds_to_judge(run, referee, CELLS)
    summary = [
        f"tier {options.tier}: {len(cells)} cells, level of one gate {referee.alpha:.2g} "
        f"(run-wide {tolerances.run_alpha:g})",
        *(line for place in alarms for line in report.alarms(place, replayed, *alarms[place])),
        f"judging {CELLS:,} cells with stored measurements, {replayed / len(run):.1f} verdicts each: "
        f"{judged:.1f} s of one processor",
        f"in all {time.monotonic() - begin:.0f} s",
    ]
    for line in summary:
        console.print(line, markup=False)
    if options.markdown:
        options.markdown.write_text(report.to_markdown(sections, summary[:-1]))
    if options.figure:
        figure.draw(rows, options.figure)


def all_scenarios(cells: noise.Cells, recorded: noise.Noise, tier: str) -> list[Scenario]:
    """Every effect at every gate."""
    matrix = load_matrix()
    known = {cell.id: cell for cell in matrix.cells(tier)}
    timed, held = (
        getattr(matrix.tier(tier).group_options.get(group), "processes", 3)
        for group in ("throughput", "memory")
    )
    places = (recorded.still(), recorded)
    return [
        *(one for place in places for one in quality.perplexity(cells, place)),
        *(one for place in places for one in quality.accuracy(cells, place)),
        *quality.divergence(cells, recorded),
        *resources.tokens_per_second(recorded, known, timed),
        *resources.memory(cells, recorded, held),
    ]


def load_cells(root: Path, tier: str) -> dict[str, dict[str, Metric]]:
    """Metrics of the tier's baselines, by cell. Raises InputError for a damaged one."""
    read = {cell.id: baselines.read(root, cell.id, tier) for cell in load_matrix().cells(tier)}
    return {cell: dict(baseline.metrics) for cell, baseline in read.items() if baseline}


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.power", description=__doc__)
    add = parser.add_argument
    add("--tier", default="smoke", help="whose baselines are replayed (default: smoke)")
    add(
        "--replays",
        type=int,
        default=1000,
        metavar="N",
        help="of each effect, and of whole runs (default: 1000)",
    )
    add("--baselines", type=Path, default=Path("baselines"), metavar="DIR")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    add("--figure", type=Path, metavar="FILE", help="draw the figure there (svg, png); needs matplotlib")
    add(
        "--record",
        type=Path,
        nargs="*",
        metavar="DIR",
        help="make fixtures/noise.json of these runs' results",
    )
    add(
        "--other",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="with --record: results under another instruction set or build",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
