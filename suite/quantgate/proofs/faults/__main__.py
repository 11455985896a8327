"""`python -m quantgate.proofs.faults`: inject every fault of the catalogue, and show which gates caught it.

Exit status 1: a fault was missed or failed by itself, or a run without a fault was red; 4: wrong input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from quantgate.commands import Parser, run_command
from quantgate.errors import InputError
from quantgate.paths import RESULTS
from quantgate.processes.progress import ignore_progress
from quantgate.proofs.command import new_parser, run
from quantgate.proofs.faults.catalogue import of_tier
from quantgate.proofs.faults.outcome import LAYOUT, Row
from quantgate.proofs.faults.prove import Proof, TitledProgress
from quantgate.proofs.faults.registry import Fault
from quantgate.run.cell import make_supply
from quantgate.run.inputs import load_matrix

PAIRS = 5
"""Pairs of a clean and a faulty process, for faults that no stored baseline can show."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(
        _parser(),
        arguments,
        noun="fault",
        layout=LAYOUT,
        catalogue=lambda options: of_tier(options.tier),
        name=lambda fault: f"{fault.kind} {fault.name} {fault.cell}",
        describe=lambda fault: f"{fault.name}: {fault.text} ({fault.cell}): {', '.join(fault.gates)}",
        prove=prove,
    )


def prove(options: argparse.Namespace, faults: Sequence[Fault]) -> tuple[list[Row], list[str]]:
    """Return a row for each cell without a fault, then one for each fault; and no notes. Raises InputError, before
    anything is measured, for options and faults that cannot be tried."""
    if options.pairs < 2:
        raise InputError(f"--pairs {options.pairs}: must be 2 or more; one pair does not show the noise")
    matrix = load_matrix(options.matrix)
    tier = matrix.tier(options.tier)
    threads = options.threads or len(os.sched_getaffinity(0))
    results = options.results.resolve()
    controls: dict[tuple[str, bool], dict[str, None]] = {}
    with closing(TitledProgress(sys.stderr, 0)) as progress:
        supply = make_supply(matrix, tier, threads, results / "logs", ignore_progress, options.text)
        supply.check()
        proof = Proof(
            matrix=matrix,
            tier=options.tier,
            model=options.model or matrix.cells(options.tier)[0].model,
            baselines=options.baselines,
            results=results,
            threads=threads,
            supply=supply,
            progress=progress,
            pairs=options.pairs,
            reuse=options.reuse,
        )
        for fault in faults:
            groups = dict.fromkeys(proof.groups(fault))
            proof.cell(fault.cell, beside_clean=fault.beside_clean)
            controls.setdefault((fault.cell, fault.beside_clean), {}).update(groups)
        rows: list[Row] = []
        for (cell, beside_clean), each in controls.items():
            rows.append(proof.row(cell, list(each), beside_clean=beside_clean))
            progress.note(_line(rows[-1]))
        for fault in faults:
            rows.append(proof.row(fault.cell, proof.groups(fault), fault, beside_clean=fault.beside_clean))
            progress.note(_line(rows[-1]))
        progress.note(LAYOUT.summary(rows))
    return rows, []


def _line(row: Row) -> str:
    return f"{row.fault}: {row.outcome}" + (f": {'; '.join(row.red)}" if row.red else "")


def _parser() -> Parser:
    parser = new_parser("faults", __doc__ or "", "fault", results=RESULTS / "faults")
    add = parser.add_argument
    add("--tier", default="smoke", help="tier whose workload and baselines are used (default: smoke)")
    add("--model", metavar="NAME", help="default: that of the tier's first cell")
    add("--baselines", type=Path, metavar="DIR", default=Path("baselines"), help="default: baselines/")
    add(
        "--pairs", type=int, default=PAIRS, metavar="N", help=f"clean and faulty processes, in pairs (default: {PAIRS})"
    )  # fmt: skip
    add("--reuse", action="store_true", help="reuse measurements of an earlier run where nothing changed")
    return parser


if __name__ == "__main__":
    run_command(main)
