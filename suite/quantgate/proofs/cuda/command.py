"""The command: rows one after another, each kept on disk as soon as it is there, whatever happens to the next."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from quantgate.commands import Parser
from quantgate.errors import InputError, QuantgateError
from quantgate.files import write_atomic
from quantgate.machine.environment import cuda_devices, machine
from quantgate.paths import RESULTS
from quantgate.proofs.checks import Row
from quantgate.proofs.command import new_parser, run
from quantgate.proofs.cuda.bed import Bed, NotTriedError
from quantgate.proofs.cuda.catalogue import LAYOUT, Entry, catalogue
from quantgate.proofs.cuda.config import load_config
from quantgate.words import duration

FILE = "cuda.json"
"""Below the results: the facts of the run, and its rows with all values."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(
        _parser(),
        arguments,
        noun="check",
        layout=LAYOUT,
        catalogue=lambda options: catalogue(),
        name=lambda entry: entry.name,
        describe=lambda entry: f"{entry.name}: {entry.text}",
        prove=check_all,
    )


def check_all(options: argparse.Namespace, entries: Sequence[Entry]) -> tuple[list[Row], list[str]]:
    """Return the rows, and notes on where they were measured. Raises InputError where there is no such device."""
    if options.device == "cuda" and not cuda_devices():
        raise InputError("--device cuda: this machine has no CUDA device; --device cpu rehearses the check")
    os.environ.setdefault(
        "HF_HUB_OFFLINE", "1"
    )  # nothing is fetched: libraries look there for kernels, and wait
    results: Path = options.results.resolve()
    rows: list[Row] = []
    config = load_config(options.config)
    threads = options.threads or config.setting(options.device).threads or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="quantgate-cuda-") as work:
        bed = Bed(
            config=config,
            device=options.device,
            threads=threads,
            work=Path(work),
            results=results,
            say=lambda line, done, total: None,
        )
        try:
            for number, entry in enumerate(entries, start=1):
                rows.append(check(entry, bed))
                _print(
                    f"[{number}/{len(entries)}] {entry.name}: {rows[-1].outcome}, {duration(rows[-1].seconds)}"
                )
                _keep(results / FILE, bed, rows)
        finally:
            bed.close()
    return rows, [_note(bed), f"every value: {results / FILE}"]


def check(entry: Entry, bed: Bed) -> Row:
    """Measure one row. An error is kept in its row and stops no other."""
    begin = time.monotonic()
    row = Row(name=entry.name, text=entry.text)
    try:
        bed.begin_row()
        row = row.model_copy(update={"checks": entry.compare(bed)})
    except NotTriedError as reason:
        row = row.model_copy(update={"not_tried": str(reason)})
    except QuantgateError as error:
        row = row.model_copy(update={"error": str(error)})
    except Exception:
        row = row.model_copy(update={"error": traceback.format_exc()})
    return row.model_copy(update={"seconds": time.monotonic() - begin})


def _keep(file: Path, bed: Bed, rows: Sequence[Row]) -> None:
    shown = [{**row.model_dump(), "outcome": row.outcome} for row in rows]
    values: dict[str, Any] = {"device": bed.device, "facts": {**machine(), **bed.facts}, "rows": shown}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, TypeAdapter(dict[str, Any]).dump_json(values, indent=1))


def _note(bed: Bed) -> str:
    facts = [f"{key} {value}" for key, value in bed.facts.items() if value]
    where = (
        "on a CUDA device"
        if bed.device == "cuda"
        else "rehearsed on the CPU: nothing here says anything of a GPU"
    )
    return "; ".join([where, f"{bed.threads} threads", *facts])


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = new_parser("cuda", __doc__ or "", "check", results=RESULTS / "cuda", workload=False)
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse the check (default: cuda)")
    add("--config", type=Path, metavar="PATH", help="another cuda.toml")
    return parser
