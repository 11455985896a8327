"""In which order the cells of a run are submitted. Pure. Ray gives a free node the first task that fits."""

from __future__ import annotations

import statistics
from collections.abc import Mapping


def submission(references: Mapping[str, str], seconds: Mapping[str, float]) -> list[str]:
    """Return the cells, the longest first (Graham, Bounds on multiprocessing timing anomalies, 1969), where a cell
    counts with all that waits for it: a reference with the longest of the cells that read what it leaves.

    references: by cell, the one that it waits for; itself or one that is not among the cells: none. seconds: how long
    cells take, as far as an earlier run tells; others count as the median. Equals keep their order, references first.
    """
    usual = statistics.median(seconds.values()) if seconds else 1.0
    alone = {cell: seconds.get(cell, usual) for cell in references}
    whole = dict(alone)
    for cell, reference in references.items():
        if reference != cell and reference in alone:
            whole[reference] = max(whole[reference], alone[reference] + alone[cell])
    waits = {cell: reference != cell and reference in alone for cell, reference in references.items()}
    return sorted(references, key=lambda cell: (-whole[cell], waits[cell]))
