"""`python -m quantgate.proofs.peers`: compare the suite with lm-evaluation-harness and llama.cpp's tools.

Exit status 1: a row is outside its bound or could not be compared; 4: wrong input.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from quantgate.commands import Parser, run_command
from quantgate.errors import InputError, QuantgateError
from quantgate.paths import RESULTS
from quantgate.proofs.checks import Row
from quantgate.proofs.command import new_parser, run
from quantgate.proofs.peers.bed import Bed
from quantgate.proofs.peers.catalogue import Entry, catalogue
from quantgate.proofs.peers.config import PEERS, load_config
from quantgate.proofs.peers.outcome import LAYOUT
from quantgate.run.inputs import load_matrix
from quantgate.words import duration

REPEATS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(
        _parser(),
        arguments,
        noun="row",
        layout=LAYOUT,
        catalogue=lambda options: catalogue(load_config(options.config)),
        name=lambda entry: entry.name,
        describe=lambda entry: f"{entry.name}: {entry.text}",
        prove=compare_all,
    )


def compare_all(options: argparse.Namespace, entries: Sequence[Entry]) -> tuple[list[Row], list[str]]:
    """Return the rows, and notes on kernels, text and timings. Raises InputError for options that do not fit."""
    rows: list[Row] = []
    with closing(_bed(options)) as bed:
        for number, entry in enumerate(entries, start=1):
            _print(f"[{number}/{len(entries)}] {entry.name}: {entry.text}")
            rows.append(compare(entry, bed))
            _print(
                f"[{number}/{len(entries)}] {entry.name}: {rows[-1].outcome}, {duration(rows[-1].seconds)}"
            )
        return rows, _notes(bed)


def compare(entry: Entry, bed: Bed) -> Row:
    """Compare one row. An error is kept in its row and stops no other."""
    begin = time.monotonic()
    row = Row(name=entry.name, text=entry.text)
    try:
        row = row.model_copy(update={"checks": entry.compare(bed)})
    except QuantgateError as error:
        row = row.model_copy(update={"error": str(error)})
    except Exception:
        row = row.model_copy(update={"error": traceback.format_exc()})
    return row.model_copy(update={"seconds": time.monotonic() - begin})


def _bed(options: argparse.Namespace) -> Bed:
    for name in ("repeats", "items", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be 1 or more")
    wikitext = os.environ.get("QUANTGATE_WIKITEXT2")
    text: Path | None = options.text or (Path(wikitext) if wikitext else None)
    if text is not None and not text.is_file():
        raise InputError(f"--text {text}: no such file")
    config, matrix = load_config(options.config), load_matrix(options.matrix)
    model = options.model or config.model
    if model not in matrix.models:
        raise InputError(f"{matrix.path}: has no model {model!r}; there are: {', '.join(matrix.models)}")
    cells = {f"{name}/{scheme}" for name, backend in matrix.backends.items() for scheme in backend.schemes}
    if unknown := sorted(set(config.cells) - cells):
        raise InputError(f"{options.config or PEERS}: no cell of {matrix.path}: {', '.join(unknown)}")
    return Bed(
        config=config.model_copy(update={"model": model}),
        matrix=matrix,
        threads=options.threads or len(os.sched_getaffinity(0)),
        repeats=options.repeats,
        results=options.results.resolve(),
        text=text.resolve() if text else None,
        say=lambda line, done, total: None if total else _print(line),
        items=options.items,
    )


def _notes(bed: Bed) -> list[str]:
    kernels = [f"kernels of the {side}: {'; '.join(sorted(names))}" for side, names in bed.kernels.items()]
    text = f"perplexity on {bed.text}" if bed.text else f"perplexity on text {bed.config.perplexity.text!r}"
    return [*kernels, f"{text}; {bed.threads} threads; timings are medians of {bed.repeats}"]


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = new_parser("peers", __doc__ or "", "row", results=RESULTS / "peers")
    add = parser.add_argument
    add("--repeats", type=int, default=REPEATS, metavar="N", help=f"repeats of timings (default: {REPEATS})")
    add("--items", type=int, metavar="N", help="items of each task, instead of the configuration's")
    add("--model", metavar="NAME", help="instead of the configuration's model")
    add("--config", type=Path, metavar="PATH", help="another peers.toml")
    return parser


if __name__ == "__main__":
    run_command(main)
