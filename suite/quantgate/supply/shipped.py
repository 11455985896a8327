"""A model that is itself under test: a quantized checkpoint at a path, and no other checkpoint, such as the one in full
precision that it was made from. Another file in its place is compared with what lay there before."""

from __future__ import annotations

from pathlib import Path

from quantgate.checkpoint.nominal import FULL, file_type, is_quantized
from quantgate.config.matrix import Matrix, Model
from quantgate.config.source import Source
from quantgate.errors import InputError
from quantgate.supply.sources import Sources

UNDER_TEST = "the checkpoint under test"
"""The condition `source` of such a model, in place of the identity of its weights."""
LEFT_OUT = "beginning-of-sequence token that the checkpoint leaves out"
"""The condition of a checkpoint under test that does not put the token which the matrix puts."""


def shipped(model: Model, sources: Sources) -> Source | None:
    """Return the source of a model that is itself under test; None: it is what cells are made from. Raises AssetError
    where it is not there."""
    only, *others = filter(None, (model.weights, model.gguf))
    if only.path is None or others or any(one.path != only.path for one in model.checkpoints.values()):
        return None
    return only if is_quantized(sources.locate(only)) else None


def check_measured(matrix: Matrix, name: str, gguf: Path) -> None:
    """Raise InputError where a model's only GGUF file, which is under test, is of another type than the quantized cells
    of the model, so that each would be made from it and none would measure it."""
    cells = [cell for tier in matrix.tiers for cell in matrix.cells(tier) if cell.model == name]
    types = {str(c.scheme_options.get("ftype")) for c in cells if c.checkpoint == "gguf" and c.as_is is None}
    quantized = sorted(types - {*FULL, "None"})
    kind = file_type(gguf)
    if quantized and kind not in quantized and not matrix.models[name].checkpoints:
        raise InputError(
            f"{matrix.path}: models.{name}.gguf: {gguf} is in {kind or 'a type that it does not name'}, and the cells "
            f"measure {', '.join(quantized)}: put a file of that type there, or have a cell measure this one as it is "
            f"({name}/llamacpp/{kind or 'SCHEME'}, or [models.{name}.checkpoints])"
        )
