"""Run a proof from the command line: choose entries of its catalogue, try them, show and write the table."""

from __future__ import annotations

import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from quantgate.commands import WRONG_INPUT, Parser
from quantgate.errors import InputError, QuantgateError
from quantgate.files import write_atomic
from quantgate.proofs.table import Layout, R, to_json

E = TypeVar("E")

WIDTH = 170
"""Columns of a table where standard output is not a terminal."""
FEW = 10
"""Up to so many names are listed where none matches."""


def new_parser(name: str, doc: str, noun: str, *, results: Path, workload: bool = True) -> Parser:
    """Return a parser with the options that faults, peers and cuda share. workload: with those of what is measured."""
    parser = Parser(prog=f"python -m quantgate.proofs.{name}", description=doc)
    add = parser.add_argument
    add("-k", default="", metavar="REGEX", help=f"only each {noun} whose name matches")
    add("--list", action="store_true", help="print the catalogue and measure nothing")
    add("--markdown", type=Path, metavar="FILE", help="write the table there")
    add("--json", type=Path, metavar="FILE", help="write the table there, with every value")
    if workload:
        add("--matrix", type=Path, metavar="PATH", help="another matrix.toml")
        add("--text", type=Path, metavar="PATH", help="plain text to measure perplexity on")
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each process (default: the cores of this machine)",
    )
    add("--results", type=Path, metavar="DIR", default=results, help=f"default: {results}")
    return parser


def run(
    parser: Parser,
    arguments: Sequence[str] | None,
    *,
    noun: str,
    layout: Layout[R],
    catalogue: Callable[[Namespace], Iterable[E]],
    name: Callable[[E], str],
    describe: Callable[[E], str],
    prove: Callable[[Namespace, Sequence[E]], tuple[Sequence[R], Sequence[str]]],
    dump: Callable[[Sequence[R]], bytes] = to_json,
) -> int:
    """Run the command and return its exit status: 0; 1 where a row failed; 4 for wrong input.

    name: what `-k` searches. describe: the entry's line for `--list`. prove: returns the rows and the notes below the
    table. dump: what `--json` is given of the rows.
    """
    options = parser.parse_args(arguments)
    try:
        entries = choose(catalogue(options), options.k, noun, name)
        if options.list:
            print(*map(describe, entries), sep="\n")
            return 0
        rows, notes = prove(options, entries)
        command = shlex.join([*parser.prog.split(), *(sys.argv[1:] if arguments is None else arguments)])
        layout.render(rows, notes, new_console())
        if options.markdown is not None:
            write_atomic(options.markdown, layout.to_markdown(rows, notes, command).encode())
        if options.json is not None:
            write_atomic(options.json, dump(rows))
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 1 if layout.failed(rows) else 0


class _Console(Console):
    """A console that leaves it to `quantgate.commands` what happens where nobody reads the output any more."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that is being handled


def new_console() -> Console:
    """Return a console on standard output that is wide enough for tables unless COLUMNS says otherwise."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _Console(highlight=False, width=WIDTH if wide else None)


def choose(entries: Iterable[E], pattern: str, noun: str, name: Callable[[E], str]) -> list[E]:
    """Return the entries whose name matches. Raises InputError for a bad pattern and where none matches."""
    entries = list(entries)
    try:
        matches = [entry for entry in entries if re.search(pattern, name(entry))]
    except re.error as error:
        raise InputError(f"-k {pattern}: is not a regular expression: {error}") from None
    if not matches:
        names = (
            f"there are {', '.join(map(name, entries))}" if len(entries) <= FEW else "--list shows them all"
        )
        raise InputError(f"-k {pattern}: no {noun} matches; {names}")
    return matches
