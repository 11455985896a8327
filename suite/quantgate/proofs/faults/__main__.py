"""`python -m quantgate.proofs.faults`: try every fault of the catalogue, and say which gates caught it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from quantgate.commands import Parser
from quantgate.errors import InputError, QuantgateError
from quantgate.files import write_atomic
from quantgate.paths import RESULTS
from quantgate.proofs.choice import choose
from quantgate.proofs.faults.catalogue import CATALOGUE
from quantgate.proofs.faults.outcome import Row
from quantgate.proofs.faults.prove import Proof, Titled
from quantgate.proofs.faults.registry import Fault
from quantgate.proofs.faults.table import failed, in_one_line, render, to_json, to_markdown
from quantgate.run.demand import lengths_of, needs_of
from quantgate.run.inputs import load_matrix
from quantgate.supply.supply import Supply

PAIRS = 5
"""Processes of each side, for what can only be held against clean processes on the same machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1: a fault was missed or could not be tried, or a run without one was red; 4: wrong input."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        chosen = choose(CATALOGUE.values(), options.k, "fault", lambda f: f"{f.kind} {f.name} {f.cell}")
        if options.list:
            for fault in chosen:
                print(f"{fault.name}: {fault.text} ({fault.cell}): {', '.join(fault.gates)}")
            return 0
        rows = prove(options, chosen)
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return 4
    render(rows, console)
    for path, content in ((options.markdown, to_markdown(rows).encode()), (options.json, to_json(rows))):
        if path is not None:
            write_atomic(path, content)
    return 1 if failed(rows) else 0


def prove(options: argparse.Namespace, faults: Sequence[Fault]) -> list[Row]:
    """One row for each cell without a fault, then one for each fault."""
    if options.pairs < 2:
        raise InputError(f"--pairs {options.pairs}: must be 2 or more; one pair says nothing of noise")
    matrix = load_matrix(options.matrix)
    tier = matrix.tier(options.tier)
    model = options.model or matrix.cells(options.tier)[0].model
    threads = options.threads or len(os.sched_getaffinity(0))
    results = options.results.resolve()
    controls: dict[tuple[str, bool], dict[str, None]] = {}
    needs, lengths = needs_of(tier.group_options), lengths_of(tier.group_options)
    with Titled(sys.stderr, 0) as progress:
        supply = Supply(
            matrix, tier, threads, results / "logs", lambda *_: None, options.text, needs, lengths
        )
        supply.check()
        proof = Proof(
            matrix=matrix,
            tier=options.tier,
            model=model,
            baselines=options.baselines,
            results=results,
            threads=threads,
            supply=supply,
            progress=progress,
            pairs=options.pairs,
            reuse=options.reuse,
        )
        for fault in faults:
            # Whatever cannot be tried is refused before anything is measured.
            groups = dict.fromkeys(proof.groups(fault))
            proof.cell(fault.cell, beside_clean=fault.beside_clean)
            controls.setdefault((fault.cell, fault.beside_clean), {}).update(groups)
        rows: list[Row] = []
        for (cell, beside_clean), each in controls.items():
            rows.append(proof.row(cell, list(each), beside_clean=beside_clean))
            progress.note(_said(rows[-1]))
        for fault in faults:
            rows.append(proof.row(fault.cell, proof.groups(fault), fault, beside_clean=fault.beside_clean))
            progress.note(_said(rows[-1]))
        progress.note(in_one_line(rows))
    return rows


def _said(row: Row) -> str:
    return f"{row.fault}: {row.outcome}" + (f": {'; '.join(row.red)}" if row.red else "")


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.faults", description=main.__doc__)
    add = parser.add_argument
    add("-k", default="", metavar="REGEX", help="only faults whose kind, name or cell matches")
    add("--list", action="store_true", help="say which faults there are, and measure nothing")
    add("--markdown", type=Path, metavar="FILE", help="write the table there")
    add("--json", type=Path, metavar="FILE", help="write the table with every verdict there")
    add("--tier", default="smoke", help="whose workload and baselines are used (default: smoke)")
    add("--matrix", type=Path, metavar="PATH", help="your own matrix.toml")
    add("--text", type=Path, metavar="PATH", help="plain text that perplexity is taken on")
    add("--model", metavar="NAME", help="default: that of the tier's first cell")
    add("--baselines", type=Path, metavar="DIR", default=Path("baselines"))
    add("--results", type=Path, metavar="DIR", default=RESULTS / "faults")
    add(
        "--pairs",
        type=int,
        default=PAIRS,
        metavar="N",
        help=f"of clean and faulty processes (default: {PAIRS})",
    )
    add("--reuse", action="store_true", help="take measurements of an earlier run where nothing has changed")
    add("--threads", type=int, metavar="N", help="default: the cores of this machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
