"""A tolerances file as the tests change it."""

from __future__ import annotations

from pathlib import Path

from quantgate.config.tolerances import Tolerance, Tolerances, load_tolerances

Q4 = "smollm2-135m/llamacpp/Q4_K_M"


def load_text(folder: Path, text: str) -> Tolerances:
    """Load a tolerances file with this text."""
    file = folder / "tolerances.toml"
    file.write_text(text)
    return load_tolerances(file)


def one_entry(keys: str) -> str:
    """Return the text of a file with one entry."""
    return f"run_alpha = 0.001\n[[tolerance]]\n{keys}\n"


def gate(tolerances: Tolerances, metric: str, cell: str = Q4, *, against: bool = False) -> Tolerance:
    """Return the entry that counts for a metric of a cell; there has to be one."""
    entry = tolerances.of(metric, cell, against=against)
    assert entry is not None, f"{metric} of {cell} is not gated"
    return entry


def reproduction_gate(tolerances: Tolerances, metric: str, cell: str = Q4) -> Tolerance:
    """Return the entry that counts for the reproduction of a metric; there has to be one."""
    entry = tolerances.of_reproduction(metric, cell)
    assert entry is not None, f"the reproduction of {metric} of {cell} is not gated"
    return entry
