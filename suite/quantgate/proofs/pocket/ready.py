"""Ready-made GGUF files of a pocket model, as a team ships them: quantized once, with an importance matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quantgate.config.matrix import MATRIX, Model
from quantgate.config.source import Source
from quantgate.files import sha256_of, write_atomic
from quantgate.proofs.pocket.corpus import new_maker
from quantgate.proofs.pocket.plan import Size
from quantgate.supply.derived import Derived
from quantgate.supply.sources import Sources

FOLDER = "gguf"
"""Beside the folders of the models."""


def make_ready(name: str, size: Size, models: Path, threads: int, say: Callable[[str], None]) -> None:
    """Write `gguf/NAME-TYPE.gguf` of each type that the plan names, from the model's folder below `models`, as the
    suite makes the checkpoints of schemes with `imatrix`. Raises AssetError, InputError, MeasurementError."""
    maker = new_maker()
    sources = Sources(MATRIX, None, maker)
    model = Model(license="Apache-2.0", weights=Source(path=(models / name).absolute()))
    derived = Derived({name: model}, sources, maker, threads)
    for ftype, text in size.gguf.items():
        file = models / FOLDER / f"{name}-{ftype}.gguf"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, derived.quantized(name, ftype, text).read_bytes())
        say(f"{file}: {file.stat().st_size:,} bytes, SHA-256 {sha256_of(file)}")
