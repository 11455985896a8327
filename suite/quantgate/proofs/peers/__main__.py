"""`python -m quantgate.proofs.peers`: the suite beside lm-evaluation-harness and llama.cpp's tools, and how far
apart they are."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from quantgate.commands import Parser
from quantgate.errors import InputError, QuantgateError
from quantgate.files import write_atomic
from quantgate.paths import RESULTS
from quantgate.proofs.choice import choose
from quantgate.proofs.peers.bed import Bed
from quantgate.proofs.peers.catalogue import Entry, catalogue
from quantgate.proofs.peers.config import PEERS, Config, load_config
from quantgate.proofs.peers.outcome import Row
from quantgate.proofs.peers.table import failed, render, to_json, to_markdown
from quantgate.run.inputs import load_matrix

REPEATS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1: a row is outside its bound or could not be compared; 4: wrong input."""
    options = _parser().parse_args(arguments)
    try:
        config = load_config(options.config)
        chosen = choose(catalogue(config), options.k, "row", lambda entry: entry.name)
        if options.list:
            for entry in chosen:
                print(f"{entry.name}: {entry.text}")
            return 0
        bed = _bed(options, config)
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return 4
    rows = []
    for number, entry in enumerate(chosen, start=1):
        _say(f"[{number}/{len(chosen)}] {entry.name}: {entry.text}")
        rows.append(compare(entry, bed))
        _say(f"[{number}/{len(chosen)}] {entry.name}: {rows[-1].outcome}, {rows[-1].seconds:.0f} s")
    notes = _notes(bed)
    render(rows, notes, Console(highlight=False, width=None if sys.stdout.isatty() else 170))
    written = {options.markdown: to_markdown(rows, notes).encode(), options.json: to_json(rows)}
    for path, content in written.items():
        if path is not None:
            write_atomic(path, content)
    return 1 if failed(rows) else 0


def compare(entry: Entry, bed: Bed) -> Row:
    """One row; whatever goes wrong in it is its own."""
    begin = time.monotonic()
    found: dict[str, object] = {}
    try:
        found["checks"] = entry.compare(bed)
    except QuantgateError as error:
        found["error"] = str(error)
    except Exception:
        found["error"] = traceback.format_exc()
    return Row.model_validate(
        {"name": entry.name, "text": entry.text, "seconds": time.monotonic() - begin, **found}
    )


def _bed(options: argparse.Namespace, config: Config) -> Bed:
    for name in ("repeats", "items", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be 1 or more")
    text = options.text or os.environ.get("QUANTGATE_WIKITEXT2") or None
    if text is not None and not Path(text).is_file():
        raise InputError(f"--text {text}: no such file")
    matrix = load_matrix(options.matrix)
    model = options.model or config.model
    if model not in matrix.models:
        raise InputError(f"{matrix.path}: has no model {model!r}; there are: {', '.join(matrix.models)}")
    known = {f"{name}/{scheme}" for name, backend in matrix.backends.items() for scheme in backend.schemes}
    if unknown := sorted(set(config.cells) - known):
        raise InputError(f"{options.config or PEERS}: no cell of {matrix.path}: {', '.join(unknown)}")
    return Bed(
        config=config.model_copy(update={"model": model}),
        matrix=matrix,
        threads=options.threads or len(os.sched_getaffinity(0)),
        repeats=options.repeats,
        results=options.results.resolve(),
        text=Path(text).resolve() if text else None,
        say=lambda text, done, total: None if total else _say(text),
        items=options.items,
    )


def _notes(bed: Bed) -> list[str]:
    """What the sides ran on, and the text."""
    kernels = [f"kernels of the {side}: {'; '.join(sorted(said))}" for side, said in bed.kernels.items()]
    text = f"perplexity on {bed.text}" if bed.text else f"perplexity on text {bed.config.perplexity.text!r}"
    return [*kernels, f"{text}; {bed.threads} threads; timings: medians of {bed.repeats}"]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.peers", description=main.__doc__)
    add = parser.add_argument
    add(
        "-k",
        default="",
        metavar="REGEX",
        help="only rows whose name matches; speed/ is for a machine that does nothing else",
    )
    add("--list", action="store_true", help="say which rows there are, and measure nothing")
    add("--markdown", type=Path, metavar="FILE", help="write the table there")
    add("--json", type=Path, metavar="FILE", help="write the table with every value there")
    add(
        "--text",
        metavar="PATH",
        help="plain text that perplexity is taken on (default: QUANTGATE_WIKITEXT2, or what the configuration names)",
    )
    add("--repeats", type=int, default=REPEATS, metavar="N", help=f"of timings (default: {REPEATS})")
    add("--threads", type=int, metavar="N", help="of every process (default: the cores of this machine)")
    add("--items", type=int, metavar="N", help="of each task, whatever the configuration says")
    add("--model", metavar="NAME", help="another model than the configuration's")
    add("--matrix", type=Path, metavar="PATH", help="your own matrix.toml")
    add("--config", type=Path, metavar="PATH", help="your own peers.toml")
    add("--results", type=Path, metavar="DIR", default=RESULTS / "peers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
