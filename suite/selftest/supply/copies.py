"""Checkpoints that are changed for a test, and what the parent says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantgate.measure.groups import parse_options
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import lengths_of
from quantgate.supply.fitness import check_model


def edit(file: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    table = json.loads(file.read_bytes()) if file.exists() else {}
    table.update(keys)
    file.write_text(json.dumps({k: v for k, v in table.items() if v is not None}))


def checked(folder: Path, add_bos: bool | None = None, **options: Any) -> None:
    model = load_matrix().models["pocket-90k"].model_copy(update={"add_bos": add_bos})
    check_model(Path("m.toml"), "t", model, lengths_of(parse_options(options)), folder)


def set_metadata(file: Path, key: str, value: float) -> None:
    """Change a number or a truth value in a GGUF file's header."""
    from gguf import GGUFReader

    field = GGUFReader(file, "r+").fields[key]
    field.parts[field.data[0]][0] = value
