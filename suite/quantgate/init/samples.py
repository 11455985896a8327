"""How many windows and items a starter tier needs, by the same function that refuses an update with too few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from quantgate.config.matrix import Matrix
from quantgate.config.tolerances import load_tolerances
from quantgate.init.text import Samples
from quantgate.run.gates import foreseen
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need

WINDOWS = (8, 16, 32, 64)
ITEMS = (16, 32, 64, 128)
"""What is tried. More takes hours, and the embedded texts end."""
TIER = "smoke"


def enough(render: Callable[[Samples], str]) -> Samples:
    """Return the fewest windows and items that show the tolerances of `TIER`. render: the text of the matrix with a
    number of samples. Raises InputError for a text that is no matrix."""
    tolerances = load_tolerances()
    short: list[str] = []

    def problems(samples: Samples, groups: tuple[str, ...]) -> list[str]:
        matrix = _read(render(samples))
        tier, cells = matrix.tier(TIER), matrix.cells(TIER)
        needs = [Need(cell, group) for cell in cells for group in groups if group in tier.group_options]
        void, narrow = foreseen(needs, cells, tier, tolerances.for_tier(TIER, matrix.roundings()))
        return [*void, *narrow]

    def fewest(counts: tuple[int, ...], make: Callable[[int], Samples], *groups: str) -> int:
        left: list[str] = []
        for count in counts:
            if not (left := problems(make(count), groups)):
                return count
        short.extend(left)
        return counts[-1]

    windows = fewest(WINDOWS, lambda n: Samples(windows=n), "perplexity", "divergence")
    items = fewest(ITEMS, lambda n: Samples(windows, n), "accuracy")
    return Samples(windows, items, tuple(short))


def _read(text: str) -> Matrix:
    with TemporaryDirectory(prefix="quantgate-") as folder:
        file = Path(folder) / "quantgate.toml"
        file.write_text(text, encoding="utf-8")
        return load_matrix(file)
