"""Find and read the baseline of a cell.

<root>/<model>/<backend>/<scheme>/<tier>.toml            the summary, read by reviewers in a diff
<root>/<model>/<backend>/<scheme>/<tier>.<sha>.json      values per window and item, named by the summary
<root>/<model>/<backend>/<scheme>/<tier>@<machine>.toml  absolute timings (kind "rounds"), with raw file
<root>/machines/<machine>.toml                           what distinguishes that machine from others
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantgate.baselines.file import Baseline, read_file
from quantgate.errors import InputError
from quantgate.files import checked_name

if TYPE_CHECKING:
    from pathlib import Path


def baseline_path(root: Path, cell: str, tier: str, machine: str | None = None) -> Path:
    """Return the summary file of a cell. Raises InputError for a name that cannot be part of a path."""
    parts = cell.split("/")
    if len(parts) != 3:
        raise InputError(f"cell {cell!r}: not of the form <model>/<backend>/<scheme>")
    at = "" if machine is None else f"@{checked_name('machine', machine)}"
    file = f"{checked_name('tier', tier)}{at}.toml"
    return root.joinpath(*(checked_name("cell", part) for part in parts), file)


def read(root: Path, cell: str, tier: str, machine: str | None = None) -> Baseline | None:
    """Read the baseline of a cell, with the absolute timings of `machine` if one is named; None: no file.

    Raises InputError (file, key, remedy) for a file that is corrupted, incomplete or of a newer format.
    """
    general = read_file(baseline_path(root, cell, tier), cell, tier, None)
    if machine is None:
        return general
    timings = read_file(baseline_path(root, cell, tier, machine), cell, tier, machine)
    if general is None or timings is None:
        return general or timings
    return general.model_copy(
        update={
            "machine": machine,
            "metrics": general.metrics | timings.metrics,
            "kept": general.kept | {name: timings.origin(name) for name in timings.metrics},
            "digests": general.digests | timings.digests,
        }
    )
