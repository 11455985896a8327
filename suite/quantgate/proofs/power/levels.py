"""`python -m quantgate.proofs.power.levels`: make the table of `quantgate.history.levels` anew, in a minute or two."""

from __future__ import annotations

import numpy as np
from scipy import special

from quantgate.history.levels import FREEDOM, TABLE, Levels
from quantgate.history.noisy import WARM, Floats, Scan
from quantgate.proofs.power.nights import NOISES, NOTHING, YEAR, Noise, drawn

ROWS, PART = 20_000, 2_000
"""Series that are drawn, and how many of them at a time."""
NEVER = Levels(30.0, 1e6)
"""Beyond what any series comes to."""
SEED = 1
"""Another one than those of the years on which the levels are tried."""


def evidence(noise: Noise, rows: int, seed: int = SEED) -> tuple[Floats, Floats]:
    """Return, for each series of a year in which nothing happens, the largest step as of a normal value, and by nights
    the cumulative sum. Nothing is seen in them, so no segment begins anew."""
    values = np.array(drawn(NOTHING, noise, rows, seed).values)
    scan = Scan(values, NEVER, 0.0)
    steps, sums = np.zeros(rows), np.zeros((YEAR, rows))
    for position in range(WARM, YEAR):
        scan.take(position)
        beyond = special.stdtr(FREEDOM * position, -scan.size)
        steps = np.maximum(steps, -special.ndtri(np.maximum(beyond, 1e-300)))
        sums[position] = np.maximum(scan.up, scan.down)
    return steps, sums


def calibrated(noise: Noise, rows: int) -> Floats:
    """Return the table: for each share of the series, the level of steps and that of the cumulative sum which so many
    take beyond them in a year."""
    parts = [evidence(noise, min(PART, rows - begin), SEED + begin) for begin in range(0, rows, PART)]
    steps, sums = np.concatenate([one for one, _ in parts]), np.hstack([one for _, one in parts])
    table = []
    for share in TABLE[:, 0]:
        level = float(np.quantile(steps, 1 - share))
        wider = np.array([Levels(level, level).step(max(n, WARM)) / level for n in range(YEAR)])
        table.append((share, level, float(np.quantile((sums / wider[:, None]).max(axis=0), 1 - share))))
    return np.array(table)


def main() -> None:
    """Print the rows of the table."""
    for share, step, total in calibrated(NOISES[-1], ROWS):
        print(f"({share:g}, {step:.2f}, {total:.1f}),")


if __name__ == "__main__":
    main()
